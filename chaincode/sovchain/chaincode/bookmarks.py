"""Bookmarks: where the next page of a listing starts.

A bookmark names its listing and the next key by the parts of the key, not by a peer's internal token, so that it stays good
across peers, restarts and upgrades of the chaincode. It is no secret and no capability: whoever may read the listing may
read every page of it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from sovchain.chaincode.errors import E_BOOKMARK, ContractError
from sovchain.protocol.canonical import canonical_json, parse_json
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.keys import composite_key, split_composite_key

MAX_BOOKMARK_LENGTH = 8192


@dataclass(frozen=True)
class Listing:
    """The composite keys of one object type under a prefix, in public state (`place` is empty) or a collection."""

    place: str
    kind: str
    prefix: Sequence[str]

    def bookmark(self, next_key: str) -> str:
        """The bookmark that leads to a key of the listing; empty for none."""
        if not next_key:
            return ""
        document = [self.place, self.kind, split_composite_key(next_key)[1]]
        return base64.urlsafe_b64encode(canonical_json(document)).decode().rstrip("=")

    def start(self, bookmark: str) -> str:
        """The key that a bookmark leads to; empty for none.

        Raises:
            ContractError: E_BOOKMARK, it does not belong to this listing.
        """
        if not bookmark:
            return ""
        parts = self._parts(bookmark)
        if parts is None or parts[: len(self.prefix)] != list(self.prefix):
            raise ContractError(
                E_BOOKMARK,
                "the bookmark does not belong to this listing: use the one that came with the page before, or none",
            )
        return composite_key(self.kind, parts)

    def _parts(self, bookmark: str) -> list[str] | None:
        if len(bookmark) > MAX_BOOKMARK_LENGTH:
            return None
        try:
            raw = base64.b64decode(bookmark + "=" * (-len(bookmark) % 4), altchars=b"-_", validate=True)
            document = parse_json(raw)
            if not isinstance(document, list) or len(document) != 3 or document[:2] != [self.place, self.kind]:
                return None
            parts = document[2]
            if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
                return None
            composite_key(self.kind, parts)
        except (ValueError, binascii.Error, ProtocolError):
            return None
        return parts
