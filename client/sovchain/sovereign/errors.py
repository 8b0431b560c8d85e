"""What can go wrong for people who share data under law. Each error says what happened, why, and what to do.

    SovereignError
    ├── DataFileError          the file to share
    │   ├── FileMissing
    │   ├── FileUnreadable
    │   ├── FileEmpty
    │   ├── FileTooLarge
    │   ├── FileBinary
    │   ├── FileEncodingError
    │   └── TableError         ragged rows, names of columns
    ├── LawTextError           with line and column
    ├── UnknownWord            a purpose, class, action or basis outside the code lists
    ├── InvalidInput           anything else that a caller wrote wrongly
    ├── ContractRefusal        the contract refused, with its code and fields
    │   └── NothingToOpen      nothing was delivered yet
    ├── StoreError             a store of sealed payloads cannot be used
    │   └── BlobMissing
    ├── SourceChanged          a file that is no longer what its sealing began with
    └── IntegrityError         bytes that do not match their commitment on the ledger
        ├── BlobAltered        a store gives other bytes than it was asked for
        └── SealBroken         a sealed file does not open: altered, cut, moved, another key

Errors of the network (not reachable, not endorsed, not committed, outcome unknown) are `sovchain.client` errors and
pass through as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SovereignError(Exception):
    """Base of this package's errors: `what` happened, `why`, and what to `do` next, each on one line."""

    def __init__(self, what: str, why: str, do: str) -> None:
        self.what: str = _one_line(what)
        self.why: str = _one_line(why)
        self.do: str = _one_line(do)
        super().__init__(f"{self.what}: {self.why}; {self.do}")


def _one_line(text: str) -> str:
    """The text with everything escaped that would break the line, steer a terminal or fail to be encoded.

    File names and other people's words stand in these texts.
    """
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


class DataFileError(SovereignError):
    """The file to share cannot be shared. `source` is its path, empty for bytes."""

    def __init__(self, what: str, why: str, do: str, *, source: str = "") -> None:
        super().__init__(what, why, do)
        self.source = source


class FileMissing(DataFileError):
    """There is no such file, or it is a directory."""


class FileUnreadable(DataFileError):
    """The operating system refuses to read the file."""


class FileEmpty(DataFileError):
    """The file has no bytes, or no row below its header."""


class FileTooLarge(DataFileError):
    """The file is larger than a private collection takes."""


class FileBinary(DataFileError):
    """The file is not text."""


class FileEncodingError(DataFileError):
    """The text is in no accepted encoding. `offset` is the position of the first byte that is not UTF-8."""

    def __init__(self, what: str, why: str, do: str, *, source: str = "", offset: int = 0) -> None:
        super().__init__(what, why, do, source=source)
        self.offset = offset


class TableError(DataFileError):
    """The text is not a table with one name for each column. `line` counts from 1."""

    def __init__(self, what: str, why: str, do: str, *, source: str = "", line: int = 0) -> None:
        super().__init__(what, why, do, source=source)
        self.line = line


class LawTextError(SovereignError):
    """A law's text is not valid. `line` and `column` count from 1, 0 where the whole text is meant."""

    def __init__(self, what: str, why: str, do: str, *, line: int = 0, column: int = 0, clause: str = "") -> None:
        super().__init__(what, why, do)
        self.line = line
        self.column = column
        self.clause = clause


class UnknownWord(SovereignError):
    """A word outside its code list. `kind` is the list, `known` its words."""

    def __init__(self, kind: str, word: str, known: tuple[str, ...]) -> None:
        super().__init__(f"unknown {kind} {word!r}", "it is not in the code list", f"use one of {', '.join(known)}")
        self.kind = kind
        self.word = word
        self.known = known


class InvalidInput(SovereignError):
    """A value that a caller gave is malformed, such as an id or a jurisdiction."""


class ContractRefusal(SovereignError):
    """The contract refused. `code` and `fields` are the contract's own."""

    def __init__(self, what: str, why: str, do: str, *, code: str, fields: Mapping[str, Any]) -> None:
        super().__init__(what, why, do)
        self.code = code
        self.fields: dict[str, Any] = dict(fields)


class NothingToOpen(ContractRefusal):
    """Nothing was delivered on this request."""


class IntegrityError(SovereignError):
    """Bytes from a private collection do not match the commitment in the catalogue."""


class StoreError(SovereignError):
    """A store of sealed payloads cannot be reached or refuses."""


class BlobMissing(StoreError):
    """The store has no blob at this address."""

    def __init__(self, what: str, why: str, do: str, *, address: str) -> None:
        super().__init__(what, why, do)
        self.address = address


class SourceChanged(SovereignError):
    """The file is no longer what its sealing began with: to go on would seal two texts with one key and nonce."""


class BlobAltered(IntegrityError):
    """The store gave bytes whose hash is not their address."""

    def __init__(self, what: str, why: str, do: str, *, address: str) -> None:
        super().__init__(what, why, do)
        self.address = address


class SealBroken(IntegrityError):
    """A sealed file does not open. `index` is the chunk that it fails at, None where the whole is meant."""

    def __init__(self, what: str, why: str, do: str, *, index: int | None = None) -> None:
        super().__init__(what, why, do)
        self.index = index
