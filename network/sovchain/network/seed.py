"""Keys, certificates and first blocks that come from a seed: the same in every directory, for golden tests only.

Whoever knows the seed has every key of the network. So only the embedded ledger takes one, the directory carries a file
that says so, and no other runtime starts on a directory with that file.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from sovchain.network.errors import SeedRefused
from sovchain.network.files import write_file

MARK: Final = "TEST-ONLY-KEYS-FROM-A-SEED"
"""File of a network's directory that says that its keys are known, and holds the seed."""
EPOCH: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""When certificates from a seed begin, and the time stamp of first blocks."""
VALID_DAYS: Final = 36_500
MAX_CHARACTERS: Final = 200
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NOTE: Final = "Every key in this directory comes from the seed below. Whoever reads it has them all: for tests only."


@dataclass(frozen=True)
class Seed:
    """What everything comes from that is random otherwise. Each thing has a label, so their order does not matter."""

    text: str = field(repr=False)

    def bytes(self, *label: str, size: int = 32) -> bytes:
        """Pseudo-random bytes for a label, at most 64."""
        message = b"".join(len(part).to_bytes(4, "big") + part.encode() for part in label)
        return hmac.digest(self.text.encode(), b"sovchain seed 1" + message, hashlib.sha512)[:size]

    def key(self, *label: str) -> ec.EllipticCurvePrivateKey:
        """A P-256 key."""
        number = int.from_bytes(self.bytes("key", *label, size=64), "big") % (_ORDER - 1) + 1
        return ec.derive_private_key(number, ec.SECP256R1())

    def serial_number(self, *label: str) -> int:
        """A positive serial number of 19 bytes."""
        return int.from_bytes(self.bytes("serial", *label, size=19), "big") | 1


_seed: ContextVar[Seed | None] = ContextVar("seed", default=None)


def current_seed() -> Seed | None:
    """The seed under which keys and certificates are made at present, None: they are random."""
    return _seed.get()


@contextmanager
def seeded(seed: Seed | None) -> Iterator[None]:
    """Make keys, certificates and first blocks from a seed for the length of the block."""
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


def seed_of(directory: Path) -> Seed | None:
    """The seed that a network's directory was made from. Raises SeedRefused for a file that holds none."""
    try:
        lines = (directory / MARK).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SeedRefused(
            "the seed of the network cannot be read",
            str(error),
            f"restore {directory / MARK}, or start in a new directory",
        ) from None
    if len(lines) < 2 or lines[0] != _NOTE:
        raise SeedRefused(
            "the seed of the network cannot be read", f"{MARK} does not hold one",
            f"restore {directory / MARK}, or start in a new directory",
        )  # fmt: skip
    return Seed(lines[1])


def take_seed(directory: Path, text: str | None, runtime: str, *, is_new: bool) -> Seed | None:
    """The seed of a network that is brought up: the one of its directory, which is written first in a new one.

    Raises SeedRefused for another runtime than the embedded ledger, and for a seed that the directory's keys do not
    come from.
    """
    if text is not None and not (0 < len(text) <= MAX_CHARACTERS and text.isprintable()):
        raise SeedRefused(
            "the seed cannot be used", f"it is empty, has more than {MAX_CHARACTERS} characters or unprintable ones",
            "take a short line of text",
        )  # fmt: skip
    stored = seed_of(directory)
    if (text is not None or stored is not None) and runtime != "embedded":
        raise SeedRefused(
            f"the {runtime} runtime takes no keys that come from a seed", "whoever knows the seed has every key",
            "bring the network up in a directory without a seed, or on the embedded ledger",
        )  # fmt: skip
    if text is None or (stored is not None and stored.text == text):
        return stored
    if stored is not None or not is_new:
        raise SeedRefused(
            "the seed does not fit the directory",
            "its keys come from another seed" if stored else "its keys are random ones",
            "give another directory, or leave the seed out",
        )
    write_file(directory / MARK, f"{_NOTE}\n{text}\n".encode())
    return Seed(text)
