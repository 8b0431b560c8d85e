"""One-time sealing of what a query returns from a private collection.

A response travels to the client in clear inside TLS, but whoever submits the query as a transaction would put it into
a block. The caller therefore sends a fresh key in transient data, which no block holds, and the contract returns the
bytes sealed with it.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
_NONCE: Final = bytes(12)  # one key seals one response: every endorser must come to the same bytes, so no randomness


def seal(data: bytes, key: bytes) -> bytes:
    """AES-256-GCM with a key that is used once. Raises ValueError for a key of another length or one byte repeated."""
    if len(key) != KEY_BYTES or len(set(key)) == 1:
        raise ValueError(f"the key is not {KEY_BYTES} random bytes")
    return AESGCM(key).encrypt(_NONCE, data, None)


def unseal(sealed: bytes, key: bytes) -> bytes:
    """Open what `seal` closed. Raises ValueError for another key or altered bytes."""
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        raise ValueError("the bytes were sealed with another key or altered on their way") from None
