"""Wallets: identities by label, in memory, in a folder, or in the files of the Node SDK.

    wallet = Wallet.folder("wallet", password=ask_person)
    wallet.put("analyst", StoredIdentity("FinanceMSP", certificate_pem, private_key_pem))
    async with Gateway.connect(profile, wallet.get("analyst")) as gateway: ...

A wallet that is given a `password` encrypts the keys that it is given (PKCS#8) and reads encrypted ones. Files are for
their owner only, and files that others may read are refused: the key in them is no secret any more. Where the places are
is in `wallet_places`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sovchain.client.errors import FabricError
from sovchain.client.identity import SigningIdentity
from sovchain.protocol.crypto import PrivateKey, load_private_key
from sovchain.protocol.errors import ProtocolError

if TYPE_CHECKING:
    from sovchain.client.ca import Enrollment

Password = Callable[[], str | bytes]
"""Asked for when a key is encrypted or decrypted, so that the password need not be kept."""

LABEL_MAX: Final = 128
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]*")


class WalletError(FabricError):
    """A wallet cannot do what was asked. `label` is the identity's; `source` the file or folder, empty in memory."""

    def __init__(self, label: str, why: str, remedy: str, *, source: str = "") -> None:
        at = f" in {source}" if source else ""
        super().__init__(f"wallet identity {label!r}{at}: {why}; {remedy}")
        self.label = label
        self.why = why
        self.remedy = remedy
        self.source = source


class NotInWallet(WalletError):
    """The wallet has no identity of this label."""


class WalletPermissions(WalletError):
    """Others than its owner may read or change a file of the wallet."""


class WalletPassword(WalletError):
    """The key is encrypted and the wallet has no password, or another one; or it is not encrypted and should be."""


class WalletDamaged(WalletError):
    """What is stored cannot be read as an identity."""


@dataclass(frozen=True)
class StoredIdentity:
    """An X.509 identity as a wallet keeps it.

    Attributes:
        msp_id: the organisation's MSP id.
        certificate_pem: the certificate.
        private_key_pem: its key, PKCS#8 or SEC 1; in a wallet with a password encrypted.
    """

    msp_id: str
    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)

    @classmethod
    def of(cls, enrollment: Enrollment, msp_id: str) -> StoredIdentity:
        """What a Fabric CA has just issued."""
        return cls(msp_id, enrollment.certificate_pem, enrollment.private_key_pem)


class Place(Protocol):
    """Where a wallet keeps its identities, encrypted as they are."""

    @property
    def source(self) -> str:
        """What errors call it."""
        ...

    def read(self, label: str) -> StoredIdentity | None:
        """Return what is stored, None when there is nothing. Raises WalletError."""
        ...

    def write(self, label: str, identity: StoredIdentity) -> None:
        """Store, in place of what is there, as a whole. Raises WalletError."""
        ...

    def remove(self, label: str) -> bool:
        """Remove; return whether there was something. Raises WalletError."""
        ...

    def labels(self) -> list[str]:
        """All labels, sorted. Raises WalletError."""
        ...


class Wallet:
    """Identities by label. Labels have letters, digits and `@ . _ + -`, at most 128 characters."""

    def __init__(self, place: Place, password: Password | None = None) -> None:
        """Use any place; `memory`, `folder` and `node` make the usual ones."""
        self._place = place
        self._password = password

    @classmethod
    def memory(cls) -> Wallet:
        """A wallet that ends with the process."""
        from sovchain.client.wallet_places import MemoryPlace

        return cls(MemoryPlace())

    @classmethod
    def folder(cls, path: Path | str, *, password: Password | None = None) -> Wallet:
        """A wallet in a folder of this project's own form: for each label certificate and key as PEM files."""
        from sovchain.client.wallet_places import FolderPlace

        return cls(FolderPlace(Path(path)), password)

    @classmethod
    def node(cls, path: Path | str, *, password: Password | None = None) -> Wallet:
        """A file-system wallet of the Node SDK (`<label>.id`, JSON, version 1).

        The Node SDK itself reads no encrypted keys: with a password the wallet is for this client only.
        """
        from sovchain.client.wallet_places import NodePlace

        return cls(NodePlace(Path(path)), password)

    def put(self, label: str, identity: StoredIdentity) -> None:
        """Keep an identity, in place of one of the same label; its key is checked to be the certificate's.

        Raises IdentityError, KeyMismatch, WalletError.
        """
        self._check(label)
        signing = SigningIdentity.from_pem(identity.msp_id, identity.certificate_pem, identity.private_key_pem)
        encoded = self._encode(load_private_key(identity.private_key_pem))
        self._place.write(label, StoredIdentity(signing.msp_id, identity.certificate_pem, encoded))

    def get(self, label: str) -> SigningIdentity:
        """Return an identity that signs. Raises NotInWallet and WalletError, IdentityError, KeyMismatch."""
        stored = self._stored(label)
        key = self._decode(label, stored.private_key_pem)
        return SigningIdentity(stored.msp_id, stored.certificate_pem, key, source=self._place.source)

    def export(self, label: str) -> StoredIdentity:
        """Return an identity with its key, not encrypted, to be put elsewhere. Raises WalletError."""
        stored = self._stored(label)
        key = self._decode(label, stored.private_key_pem)
        return StoredIdentity(stored.msp_id, stored.certificate_pem, _plain(key))

    def remove(self, label: str) -> None:
        """Remove an identity. Raises NotInWallet, WalletError."""
        self._check(label)
        if not self._place.remove(label):
            raise self._absent(label)

    def labels(self) -> list[str]:
        """The labels, sorted. Raises WalletError."""
        return self._place.labels()

    def __contains__(self, label: object) -> bool:
        return isinstance(label, str) and label in self._place.labels()

    def __repr__(self) -> str:
        return f"Wallet({self._place.source or 'memory'})"

    def _stored(self, label: str) -> StoredIdentity:
        self._check(label)
        stored = self._place.read(label)
        if stored is None:
            raise self._absent(label)
        return stored

    def _absent(self, label: str) -> NotInWallet:
        known = ", ".join(self._place.labels()) or "none"
        return NotInWallet(label, "there is none", f"use one of: {known}", source=self._place.source)

    def _check(self, label: str) -> None:
        if not _LABEL.fullmatch(label) or len(label) > LABEL_MAX:
            raise WalletError(label[:LABEL_MAX], "it cannot be a label", "use letters, digits and @ . _ + -")

    def _encode(self, key: PrivateKey) -> bytes:
        if self._password is None:
            return _plain(key)
        encryption = serialization.BestAvailableEncryption(_bytes(self._password()))
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    def _decode(self, label: str, pem: bytes) -> PrivateKey:
        encrypted = b"ENCRYPTED" in pem
        if encrypted != (self._password is not None):
            why = "its key is encrypted" if encrypted else "its key is not encrypted, and this wallet has a password"
            remedy = "open the wallet with its password" if encrypted else "open it without one, or put it again"
            raise WalletPassword(label, why, remedy, source=self._place.source)
        try:
            if self._password is None:
                return load_private_key(pem)
            key = serialization.load_pem_private_key(pem, _bytes(self._password()))
        except (ProtocolError, UnsupportedAlgorithm):
            raise WalletDamaged(label, "its key cannot be read", "put it again", source=self._place.source) from None
        except (ValueError, TypeError):
            raise WalletPassword(
                label, "the password is wrong, or the key is damaged", "give its password", source=self._place.source
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey | Ed25519PrivateKey):
            raise WalletDamaged(label, "its key is of no kind that Fabric takes", "put it again")
        return key


def _plain(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _bytes(password: str | bytes) -> bytes:
    encoded = password.encode() if isinstance(password, str) else password
    if not encoded:
        raise WalletPassword("", "the password is empty", "give one, or open the wallet without")
    return encoded
