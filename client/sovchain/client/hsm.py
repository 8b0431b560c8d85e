"""Keys that never leave an HSM, reached through PKCS#11. Needs the extra `sovchain[hsm]` and the HSM's library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

    def identity(
        self, msp_id: str, certificate_pem: bytes | str, *, timeout_s: float = SIGN_TIMEOUT_S
    ) -> ExternalIdentity:
        """Return an identity that signs with the key. It can be used until the `async with` block of `open` ends.

        Each signature is brought to low s and checked against the certificate. Raises IdentityError.
        """
        return ExternalIdentity(msp_id, certificate_pem, self.sign, timeout_s=timeout_s)


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
