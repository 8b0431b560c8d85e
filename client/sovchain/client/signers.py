"""Identities whose key is somewhere else: in a key service, behind any function, or in an HSM (`hsm`)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sovchain.client.errors import IdentityError, SignatureRefused
from sovchain.client.identity import Identity
from sovchain.protocol.crypto import sha256

Sign = Callable[[bytes], Awaitable[bytes] | bytes]
"""Signs a message, or its digest: a coroutine function, or a plain function that returns at once."""

SIGN_TIMEOUT_S: Final = 10.0
"""How long a signer may take."""


class ExternalIdentity(Identity):
    """An identity that has its messages signed by a function of yours, such as a call to a key service.

    The signature may be DER or, for ECDSA, the raw r and s that key services and HSMs give. It is brought to low s, which
    Fabric asks for (bccsp/sw/ecdsa.go), and checked against the certificate before it is sent: a peer says only `access
    denied` to a wrong one.
    """

    can_sign = True

    def __init__(
        self,
        msp_id: str,
        certificate_pem: bytes | str,
        sign: Sign,
        *,
        digest: bool = False,
        timeout_s: float = SIGN_TIMEOUT_S,
    ) -> None:
        """Make the identity; the function is not called yet.

        Args:
            msp_id: the organisation's MSP id.
            certificate_pem: the certificate of the key.
            sign: signs what it is given.
            digest: whether it is given the SHA-256 of the message instead of the message. Not for Ed25519, which signs
                whole messages.
            timeout_s: how long one signature may take, in seconds.

        Raises:
            IdentityError: the certificate cannot be used, or `digest` is asked of an Ed25519 key.
        """
        super().__init__(msp_id, certificate_pem)
        if digest and isinstance(self.public_key, Ed25519PublicKey):
            raise IdentityError("an Ed25519 key signs whole messages: leave out digest=True")
        self._sign = sign
        self._digest = digest
        self._timeout_s = timeout_s

    async def sign_async(self, message: bytes) -> bytes:
        """Have a message signed. Raises SignatureRefused; an error of the function itself comes as its cause."""
        try:
            async with asyncio.timeout(self._timeout_s):
                made = self._sign(sha256(message) if self._digest else message)
                raw = await made if inspect.isawaitable(made) else made
        except TimeoutError as error:
            raise SignatureRefused(f"the signer gave no signature within {self._timeout_s:g} s") from error
        except Exception as error:
            raise SignatureRefused(f"the signer failed ({type(error).__name__})") from error
        return self.checked(message, raw)
