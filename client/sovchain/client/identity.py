"""Who the client is: a certificate, the organisation that vouches for it, and the key that signs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from sovchain.client.errors import (
    CertificateExpired,
    IdentityError,
    IdentityNotFound,
    KeyMismatch,
    SignatureMissing,
    SignatureRefused,
)
from sovchain.protocol.crypto import PrivateKey, PublicKey, load_private_key, normalize_signature, sign, verify
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.identity import parse_identity, serialize_identity

FILE_MAX_BYTES = 64 * 1024
"""Largest certificate or key file that is read."""


class Identity:
    """A certificate as a member of an organisation, without its key: for signing elsewhere (`Proposal.with_signature`).

    Attributes:
        msp_id: the organisation's MSP id.
        certificate_pem: the certificate, byte for byte as it was given. It is part of every transaction id.
        certificate: the same, parsed.
        creator: the serialised identity (msp.SerializedIdentity).
        public_key: the certificate's key.
    """

    msp_id: str
    certificate_pem: bytes
    certificate: x509.Certificate
    creator: bytes
    public_key: PublicKey
    can_sign: bool = False
    """Whether it can sign by itself."""

    def __init__(self, msp_id: str, certificate_pem: bytes | str, *, source: str = "") -> None:
        if not msp_id:
            raise IdentityError("the MSP id is empty: give the organisation's", source=source)
        self.msp_id = msp_id
        self.certificate_pem = certificate_pem.encode() if isinstance(certificate_pem, str) else certificate_pem
        self.creator = serialize_identity(msp_id, self.certificate_pem)
        try:
            parsed = parse_identity(self.creator)
            self.public_key = parsed.public_key
        except ProtocolError as error:
            raise IdentityError(f"the certificate cannot be used: {error}", source=source) from error
        self.certificate = parsed.certificate
        self._client_id = parsed.client_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.msp_id!r}, {self._client_id!r})"

    @property
    def client_id(self) -> str:
        """Subject and issuer in the form that chaincode sees (`x509::subject::issuer`)."""
        return self._client_id

    async def sign_async(self, message: bytes) -> bytes:
        """Sign a message as Fabric expects it. Raises SignatureMissing: a bare identity has no key."""
        raise SignatureMissing

    def checked(self, message: bytes, signature: bytes) -> bytes:
        """A signature that was made elsewhere, in the form that Fabric takes: DER with low s, or Ed25519.

        Raises SignatureRefused unless it is good under this identity's certificate.
        """
        try:
            fixed = normalize_signature(self.public_key, signature) if isinstance(signature, bytes) else b""
        except ProtocolError as error:
            raise SignatureRefused(f"the signature cannot be read: {error}") from error
        if not verify(self.public_key, message, fixed):
            raise SignatureRefused(
                "the signature is not one of the certificate's key over this message:"
                " check which key signs, and whether it is given the message or its SHA-256"
            )
        return fixed

    def check_validity(self, now: datetime | None = None) -> None:
        """Raise CertificateExpired unless the certificate is valid at `now` (default: this machine's time)."""
        moment = now or datetime.now(UTC)
        begin, end = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        if not begin <= moment <= end:
            raise CertificateExpired(self.certificate.subject.rfc4514_string(), begin, end, moment)


class SigningIdentity(Identity):
    """A certificate with its private key, as a member of an organisation."""

    can_sign = True

    def __init__(self, msp_id: str, certificate_pem: bytes | str, private_key: PrivateKey, *, source: str = "") -> None:
        super().__init__(msp_id, certificate_pem, source=source)
        if self.public_key != private_key.public_key():
            raise KeyMismatch("certificate and key do not belong together: give the key it was made for", source=source)
        self._key = private_key

    @classmethod
    def from_msp_folder(cls, path: Path | str, msp_id: str) -> SigningIdentity:
        """Read an MSP folder as `cryptogen` and the Fabric CA client lay it out.

        `signcerts` must hold one certificate, and `keystore` its key, alone or among others.

        Raises:
            IdentityNotFound: a folder or file is missing or cannot be read.
            IdentityError: there are several certificates, or one cannot be parsed.
            KeyMismatch: no key belongs to the certificate.
        """
        folder = Path(path)
        certificates = _files(folder / "signcerts")
        if len(certificates) != 1:
            raise IdentityError(f"signcerts holds {len(certificates)} files: it must hold one", source=str(folder))
        for key_pem in _files(folder / "keystore"):
            try:
                return cls(msp_id, certificates[0], load_private_key(key_pem), source=str(folder))
            except (KeyMismatch, ProtocolError):
                continue
        raise KeyMismatch("keystore holds no key of the certificate: put it there", source=str(folder))

    @classmethod
    def from_pem(cls, msp_id: str, certificate_pem: bytes | str, private_key_pem: bytes | str) -> SigningIdentity:
        """Make an identity from PEM; the key is PKCS#8 or SEC 1, not encrypted.

        Raises:
            IdentityError: the MSP id is empty, or certificate or key cannot be parsed or are of a kind Fabric refuses.
            KeyMismatch: the key does not belong to the certificate.
        """
        key_pem = private_key_pem.encode() if isinstance(private_key_pem, str) else private_key_pem
        try:
            key = load_private_key(key_pem)
        except ProtocolError as error:
            raise IdentityError(str(error)) from error
        return cls(msp_id, certificate_pem, key)

    def sign(self, message: bytes) -> bytes:
        """Sign a message as Fabric expects it: ECDSA over SHA-256 with low S, or Ed25519."""
        return sign(self._key, message)

    async def sign_async(self, message: bytes) -> bytes:
        """As `sign`: a local key signs faster than another thread could be asked."""
        return sign(self._key, message)


def _files(folder: Path) -> list[bytes]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        for path in paths:
            if path.stat().st_size > FILE_MAX_BYTES:
                raise IdentityError(f"the file has more than {FILE_MAX_BYTES} bytes", source=str(path))
        return [path.read_bytes() for path in paths]
    except OSError as error:
        raise IdentityNotFound(
            f"cannot be read ({error.strerror}): give the path of an MSP folder", source=str(folder)
        ) from error
