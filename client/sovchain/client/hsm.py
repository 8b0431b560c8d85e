"""Keys that never leave an HSM, reached through PKCS#11. Needs the extra `sovchain[hsm]` and the HSM's library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sovchain.client.errors import HsmError
from sovchain.client.signers import SIGN_TIMEOUT_S, ExternalIdentity
from sovchain.protocol.crypto import sha256

if TYPE_CHECKING:
    import pkcs11


class HsmKey:
    """A private key in an HSM: ECDSA P-256 or P-384, or Ed25519 where the HSM has it. Made by `open`."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        library: Path | str,
        *,
        token_label: str,
        pin: str,
        key_label: str | None = None,
        key_id: bytes | None = None,
    ) -> AsyncIterator[HsmKey]:
        """Log in and find the key, for the length of an `async with` block.

        Args:
            library: the HSM's PKCS#11 library, such as `/usr/lib/softhsm/libsofthsm2.so`.
            token_label: label of the token.
            pin: the user's PIN. It is not kept.
            key_label: label of the private key (CKA_LABEL).
            key_id: its id (CKA_ID); the Fabric CA client sets it to the subject key identifier. Either is enough.

        Raises:
            HsmError: the extra is not installed, or library, token, PIN or key do not lead to one private key.
        """
        if key_label is None and key_id is None:
            raise HsmError("name the key by its label or its id")
        # One thread for the one session: PKCS#11 signs one thing at a time in each.
        executor = ThreadPoolExecutor(1, thread_name_prefix="hsm")
        loop = asyncio.get_running_loop()
        try:
            key = await loop.run_in_executor(
                executor, lambda: _opened(cls, executor, str(library), token_label, pin, key_label, key_id)
            )
            try:
                yield key
            finally:
                await loop.run_in_executor(executor, key._session.close)
        finally:
            executor.shutdown(wait=False)

    def __init__(self, executor: ThreadPoolExecutor, session: pkcs11.Session, key: pkcs11.Key) -> None:
        from pkcs11 import KeyType, Mechanism

        self._executor = executor
        self._session: Any = session
        self._key: Any = key
        self._edwards = key.key_type is KeyType.EC_EDWARDS
        self._mechanism = Mechanism.EDDSA if self._edwards else Mechanism.ECDSA

    def __repr__(self) -> str:
        return "HsmKey()"

    async def sign(self, message: bytes) -> bytes:
        """Sign a message; return r and s, or the Ed25519 signature, as the HSM gives it. Raises HsmError."""
        data = message if self._edwards else sha256(message)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._sign, data)

    def _sign(self, data: bytes) -> bytes:
        import pkcs11

        try:
            signature: bytes = self._key.sign(data, mechanism=self._mechanism)
        except pkcs11.PKCS11Error as error:
            raise HsmError(f"the HSM does not sign ({type(error).__name__})") from error
        return signature

    async def signing_request(self, enrollment_id: str, hosts: Sequence[str] = ()) -> bytes:
        """Make a certificate signing request, PEM, for the key: what `CertificateAuthority.certify` takes.

        `enrollment_id` is its common name, `hosts` its subject alternative names. The public key must be in the HSM too,
        under the private key's id or label.

        Raises:
            HsmError: the HSM does not sign, or has no public key.
            CaRequestError: the id or a host cannot be in a request, or the key is no ECDSA key.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._request, enrollment_id, hosts)

    def _request(self, enrollment_id: str, hosts: Sequence[str]) -> bytes:
        import pkcs11
        from pkcs11.util.ec import encode_ec_public_key

        from sovchain.client.ca.request import signing_request

        if self._edwards:
            raise HsmError("Fabric CA certifies ECDSA keys: use a P-256 or P-384 key")
        named = {"id": self._key.id} if self._key.id else {"label": self._key.label}
        try:
            public = self._session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, **named)
        except pkcs11.PKCS11Error as error:
            raise HsmError(f"it holds no public key of the private one ({type(error).__name__})") from error
        key = load_der_public_key(encode_ec_public_key(public))
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise HsmError("the public key is no ECDSA key")
        return signing_request(enrollment_id, _KeyInHsm(self, key), hosts).encode()

    def identity(
        self, msp_id: str, certificate_pem: bytes | str, *, timeout_s: float = SIGN_TIMEOUT_S
    ) -> ExternalIdentity:
        """Return an identity that signs with the key. It can be used until the `async with` block of `open` ends.

        Each signature is brought to low s and checked against the certificate. Raises IdentityError.
        """
        return ExternalIdentity(msp_id, certificate_pem, self.sign, timeout_s=timeout_s)


class _KeyInHsm(ec.EllipticCurvePrivateKey):
    """What the signing of a request by `cryptography` asks of a private key, with the signature made in the HSM."""

    def __init__(self, key: HsmKey, public: ec.EllipticCurvePublicKey) -> None:
        self._held = key
        self._public = public

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        raw = self._held._sign(sha256(bytes(data)))
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        raise HsmError("a key in an HSM only signs here")

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise HsmError("a key in an HSM does not leave it")

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - cryptography's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        raise HsmError("a key in an HSM does not leave it")

    def __copy__(self) -> _KeyInHsm:
        return self

    def __deepcopy__(self, memo: object) -> _KeyInHsm:
        return self


def _opened(
    cls: type[HsmKey],
    executor: ThreadPoolExecutor,
    library: str,
    token_label: str,
    pin: str,
    key_label: str | None,
    key_id: bytes | None,
) -> HsmKey:
    try:
        import pkcs11
    except ImportError as error:
        raise HsmError("python-pkcs11 is not installed: install sovchain[hsm]") from error
    try:
        token = pkcs11.lib(library).get_token(token_label=token_label)
        session = token.open(user_pin=pin)
    except (pkcs11.PKCS11Error, OSError, RuntimeError) as error:
        raise HsmError(f"token {token_label!r} cannot be opened ({type(error).__name__}): {_HINT}") from error
    try:
        key = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=key_label, id=key_id)
    except pkcs11.PKCS11Error as error:
        session.close()
        raise HsmError(f"it holds no such private key, or several ({type(error).__name__})") from error
    return cls(executor, session, key)


_HINT = "check the library's path, the token's label and the PIN"
