"""Reading a CSV file that somebody wants to share: what it is, and whether it can be shared.

The file's bytes are shared as they are. They are looked at to describe them in the catalogue (names and types of the
columns, number of rows) and to refuse what nobody could use: an empty file, a binary one, rows of unequal length.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal

from sovchain.contracts.core.projection import Table
from sovchain.contracts.core.records import COLUMNS_MAX, PAYLOAD_MAX_BYTES, Column
from sovchain.sovereign.errors import (
    FileBinary,
    FileEmpty,
    FileEncodingError,
    FileMissing,
    FileTooLarge,
    FileUnreadable,
    TableError,
)

COLUMN_NAME_MAX: Final = 200
DELIMITERS: Final = (",", ";", "\t")
"""What may stand between the fields: the one that the header has most of."""

Encoding = Literal["utf-8", "gb18030"]
Kind = Literal["integer", "decimal", "boolean", "date", "datetime", "text", "empty"]

_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?", re.ASCII)
_BOOLEAN = frozenset({"true", "false", "True", "False", "TRUE", "FALSE"})
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_HEADER = re.compile(r'(?:[ \t]*\r?\n)*((?:"[^"]*"|[^"\r\n]+)*)')
"""The first line that is not blank. A quote within quotes is written twice, which reads as two quoted pieces."""
_QUOTED = re.compile(r'"[^"]*"')
_KINDS: Final[tuple[Kind, ...]] = ("integer", "decimal", "boolean", "date", "datetime")


@dataclass(frozen=True)
class DataFile:
    """A table's bytes, unchanged, and what its catalogue entry will say about them."""

    data: bytes
    encoding: Encoding
    columns: tuple[Column, ...]
    rows: int
    name: str = ""

    @property
    def media_type(self) -> str:
        """The media type with its character set."""
        return f"text/csv; charset={self.encoding}"


def read_data_file(source: Path | str | bytes) -> DataFile:
    """Read a table from a path or from bytes.

    Accepted are at most 16 MiB of UTF-8 (with or without byte order mark) or GB18030, which includes GBK and GB2312; fields
    separated by commas, semicolons or tabs, each at most 128 Ki
    characters; a header with one distinct name for each column, and at least one row.
    Raises FileMissing, FileUnreadable, FileTooLarge, FileEmpty, FileBinary, FileEncodingError, TableError.
    """
    data, name = (source, "") if isinstance(source, bytes) else (_read(Path(source)), Path(source).name)
    shown = "the data" if isinstance(source, bytes) else str(source)
    if len(data) > PAYLOAD_MAX_BYTES:
        raise _too_large(shown)
    text, encoding = _decode(data, shown)
    if not text.strip():
        raise FileEmpty(f"{shown} is empty", "it has no text", "choose a file with a header and rows", source=shown)
    columns, rows = _table(text, shown)
    return DataFile(data, encoding, columns, rows, name)


def read_table(data: bytes) -> Table:
    """The cells of a table that `read_data_file` takes, by column. Raises what that raises."""
    text, _ = _decode(data, "the data")
    _table(text, "the data")
    rows = _rows(_reader(text), "the data")
    names = tuple(next(rows)[1])
    cells: tuple[list[str], ...] = tuple([] for _ in names)
    for _, row in rows:
        for column, value in zip(cells, row, strict=True):
            column.append(value)
    return Table(names, cells)


def write_table(names: Sequence[str], columns: Sequence[Sequence[str]]) -> bytes:
    """A table as UTF-8 CSV, with commas, as `read_table` reads it."""
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return written.getvalue().encode()


def read_text_file(path: Path, limit_bytes: int) -> str:
    """Read a UTF-8 text such as a law. Raises FileMissing, FileUnreadable, FileTooLarge, FileEncodingError."""
    data = _read(path, limit_bytes)
    if len(data) > limit_bytes:
        raise _too_large(str(path), limit_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileEncodingError(
            f"{path} is not UTF-8 text",
            f"its byte at offset {error.start} is none",
            "save the file as UTF-8",
            source=str(path),
            offset=error.start,
        ) from None


def _read(path: Path, limit_bytes: int = PAYLOAD_MAX_BYTES) -> bytes:
    """The file's bytes, and one more than the limit of a file that is too large."""
    shown = str(path)
    try:
        if not path.is_file():
            why = (
                "it is a directory"
                if path.is_dir()
                else "it is no regular file"
                if path.exists()
                else "nothing of that name exists"
            )
            raise FileMissing(f"there is no file {shown}", why, "check the path", source=shown)
        if path.stat().st_size > limit_bytes:
            raise _too_large(shown, limit_bytes)
        with path.open("rb") as file:
            return file.read(limit_bytes + 1)
    except OSError as error:
        why = error.strerror or "the system refuses"
        raise FileUnreadable(
            f"{shown!a} cannot be read", why.lower(), "check the path and its permissions", source=shown
        ) from None


def _too_large(shown: str, limit_bytes: int = PAYLOAD_MAX_BYTES) -> FileTooLarge:
    limit = f"{limit_bytes // 1024 // 1024} MiB" if limit_bytes >= 1024 * 1024 else f"{limit_bytes // 1024} KiB"
    return FileTooLarge(f"{shown} is too large", f"at most {limit} are taken", "share it in parts", source=shown)


def _decode(data: bytes, shown: str) -> tuple[str, Encoding]:
    if data.startswith(_UTF16_MARKS):
        raise FileEncodingError(
            f"{shown} is UTF-16 text", "only UTF-8 and GB18030 are taken", "save it as UTF-8", source=shown
        )
    if b"\x00" in data:
        raise FileBinary(f"{shown} is not text", "it has null bytes", "export the table as CSV", source=shown)
    try:
        text, encoding = data.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        text, encoding = _decode_gb18030(data, shown, error.start), "gb18030"
    if _CONTROL.search(text):
        raise FileBinary(f"{shown} is not text", "it has control characters", "export the table as CSV", source=shown)
    return text, "utf-8" if encoding == "utf-8" else "gb18030"


def _decode_gb18030(data: bytes, shown: str, offset: int) -> str:
    """GB18030 gives almost any bytes a meaning, so that a text with unassigned or private characters is not taken for one."""
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        text = ""
    if not text or any(unicodedata.category(character) in {"Cn", "Co", "Cs"} for character in set(text)):
        if _mostly_unprintable(data):
            raise FileBinary(
                f"{shown} is not text", "its bytes are text in no encoding", "export the table as CSV", source=shown
            )
        raise FileEncodingError(
            f"{shown} is neither UTF-8 nor GB18030",
            f"the byte at offset {offset} begins no character",
            "save it as UTF-8",
            source=shown,
            offset=offset,
        )
    return text


def _mostly_unprintable(data: bytes) -> bool:
    sample = data[:4096]
    return sum((byte < 0x20 and byte not in b"\t\r\n") or byte == 0x7F for byte in sample) * 50 > len(sample)


def _table(text: str, shown: str) -> tuple[tuple[Column, ...], int]:
    rows = _rows(_reader(text), shown)
    names = next(rows, (0, [""]))[1]  # a file of blanks has a header of blanks
    _check_names(names, shown)
    kinds = [_KindOf() for _ in names]
    count = 0
    for line, row in rows:
        if len(row) != len(names):
            raise TableError(
                f"{shown} is not a table",
                f"line {line} has {len(row)} fields, the header has {len(names)}",
                "correct the line, or quote fields that hold the separator",
                source=shown,
                line=line,
            )
        count += 1
        for kind, value in zip(kinds, row, strict=True):
            kind.see(value)
    if count == 0:
        raise FileEmpty(f"{shown} has no rows", "there is only a header", "choose a file with data", source=shown)
    return tuple(Column(name=name, type=kind.kind) for name, kind in zip(names, kinds, strict=True)), count


def _reader(text: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)


def _delimiter(text: str) -> str:
    """The separator that the header has most of outside quotes; a comma where it has none."""
    found = _HEADER.match(text)
    assert found is not None  # the pattern fits an empty text too
    return max(DELIMITERS, key=_QUOTED.sub("", found[1]).count)


def _rows(reader: Iterator[list[str]], shown: str) -> Iterator[tuple[int, list[str]]]:
    """The rows with the line on which each ends; blank lines are none."""
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            line = reader.line_num  # type: ignore[attr-defined]  # csv's reader has it, its annotation has not
            raise TableError(
                f"{shown} is not a table", f"line {line}: {error}", "correct the line", source=shown, line=line
            ) from None
        if row is None:
            return
        if len(row) > 1 or (row and (not row[0] or row[0].strip())):  # a quoted empty field is a value
            yield reader.line_num, row  # type: ignore[attr-defined]  # as above


def _check_names(names: Iterable[str], shown: str) -> None:
    listed = list(names)
    repeated = next((name for name in listed if listed.count(name) > 1), None) if len(listed) <= COLUMNS_MAX else None
    problem = (
        f"it has {len(listed)} columns, at most {COLUMNS_MAX} are taken"
        if len(listed) > COLUMNS_MAX
        else f"column {[bool(name.strip()) for name in listed].index(False) + 1} has no name"
        if not all(name.strip() for name in listed)
        else f"the name of a column is longer than {COLUMN_NAME_MAX} characters"
        if any(len(name) > COLUMN_NAME_MAX for name in listed)
        else f"two columns are named {repeated!r}"
        if repeated is not None
        else ""
    )
    if problem:
        raise TableError(
            f"{shown} is not a table",
            problem,
            "give every column one name of its own in the first line",
            source=shown,
            line=1,
        )


class _KindOf:
    """The narrowest kind that all values of a column so far belong to."""

    def __init__(self) -> None:
        self._open: tuple[Kind, ...] = _KINDS
        self._seen = False

    def see(self, value: str) -> None:
        if value:
            self._seen = True
            if self._open:
                self._open = tuple(kind for kind in self._open if _belongs(value, kind))

    @property
    def kind(self) -> Kind:
        if not self._seen:
            return "empty"
        return self._open[0] if self._open else "text"


def _belongs(value: str, kind: Kind) -> bool:
    if kind == "integer":
        return _INTEGER.fullmatch(value) is not None
    if kind == "decimal":
        return _DECIMAL.fullmatch(value) is not None
    if kind == "boolean":
        return value in _BOOLEAN
    try:
        if kind == "date":
            return len(value) == 10 and date.fromisoformat(value) is not None
        return len(value) > 10 and datetime.fromisoformat(value) is not None
    except ValueError:
        return False
