"""A file that can be shared is described as it is; one that cannot is refused with what, why and what to do."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovchain.contracts.core.records import COLUMNS_MAX, PAYLOAD_MAX_BYTES
from sovchain.sovereign import (
    DataFileError,
    FileBinary,
    FileEmpty,
    FileEncodingError,
    FileMissing,
    FileTooLarge,
    FileUnreadable,
    SovereignError,
    TableError,
    read_data_file,
    read_text_file,
)


def told(error: SovereignError) -> str:
    """The error's text, after it was found to be three lines that a terminal can show."""
    for part in (error.what, error.why, error.do):
        assert part
        assert part.isprintable()
        part.encode()
    return str(error)


def fault(kind: type[DataFileError], source: Path | str | bytes) -> DataFileError:
    with pytest.raises(DataFileError) as caught:
        read_data_file(source)
    assert type(caught.value) is kind, told(caught.value)
    told(caught.value)
    return caught.value


# Tables --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "encoding", "names", "rows"),
    [
        (b"a,b\n1,2\n", "utf-8", ["a", "b"], 1),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n", "utf-8", ["a", "b"], 1),
        (b"a\n1\n2", "utf-8", ["a"], 2),
        ("名称;数量\n煤;3\n".encode(), "utf-8", ["名称", "数量"], 1),
        ("名称,数量\n煤,3\n".encode("gb18030"), "gb18030", ["名称", "数量"], 1),
        ("名称\t数量\n𠮷\t3\n".encode("gb18030"), "gb18030", ["名称", "数量"], 1),
        (b'a,b\n"x\ny",2\n"say ""no"", please",3\n', "utf-8", ["a", "b"], 2),
        (b'"a\nname",b\n1,2\n', "utf-8", ["a\nname", "b"], 1),
        (b'"a\nname";b\n1;2\n', "utf-8", ["a\nname", "b"], 1),
        (b'"a,b,c";d\n1;2\n', "utf-8", ["a,b,c", "d"], 1),
        (b"\n\na,b\n\n1,2\n\n", "utf-8", ["a", "b"], 1),
        (b"  \na,b\n1,2\n", "utf-8", ["a", "b"], 1),
        (b"a,b\n,\n", "utf-8", ["a", "b"], 1),
        (b'a\n""\n \n1\n', "utf-8", ["a"], 2),
        (b'"say ""a;b;c""\tx",b\n1,2\n', "utf-8", ['say "a;b;c"\tx', "b"], 1),
        (b"a,b\n1,\xc2\x85\n", "utf-8", ["a", "b"], 1),
    ],
)
def test_a_table_is_described_and_its_bytes_are_kept(data: bytes, encoding: str, names: list[str], rows: int) -> None:
    table = read_data_file(data)
    assert table.data == data
    assert (table.encoding, [column.name for column in table.columns], table.rows) == (encoding, names, rows)
    assert table.media_type == f"text/csv; charset={encoding}"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "0"], "integer"),
        (["1", "2.5"], "decimal"),
        (["007"], "text"),
        (["1e5"], "text"),
        (["１"], "text"),
        (["true", "False"], "boolean"),
        (["2026-01-01", ""], "date"),
        (["2026-01-01T00:00:00Z"], "datetime"),
        (["2026-02-30"], "text"),
        (["1", "x"], "text"),
        (["", ""], "empty"),
        (["NaN"], "text"),
    ],
)
def test_a_column_is_of_the_narrowest_kind_that_holds_all_its_values(values: list[str], kind: str) -> None:
    table = read_data_file(("a,b\n" + "".join(f"{value},x\n" for value in values)).encode())
    assert table.columns[0].type == kind


@pytest.mark.parametrize(
    ("data", "kind", "word"),
    [
        (b"", FileEmpty, "no text"),
        (b" \r\n\t\n", FileEmpty, "no text"),
        (b"\xef\xbb\xbf", FileEmpty, "no text"),
        (b"a,b\n", FileEmpty, "only a header"),
        (b"a,b\n\n\n", FileEmpty, "only a header"),
        (b"\x7fELF\x00\x01", FileBinary, "null bytes"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(1, 64)) * 4, FileBinary, "not text"),
        (b"a,b\n1,\x1b[2J\n", FileBinary, "control characters"),
        ("a,b\n1,2\n".encode("utf-16"), FileEncodingError, "UTF-16"),
        ("a,b\n1,2\n".encode("utf-16-le"), FileBinary, "null bytes"),
        (b"a,b\n1,\xff\n", FileEncodingError, "offset 6"),
        (b"a,b\n1,\x80\n", FileEncodingError, "offset 6"),
        (b"a,b\n1,2\n3\n", TableError, "line 3 has 1 fields, the header has 2"),
        (b"a,b\n1,2,3\n", TableError, "line 2 has 3 fields"),
        (b'a,b\n"x\ny",2\n3\n', TableError, "line 4"),
        (b'a,b\n"1,2\n', TableError, "line"),
        (b'a,b\n"1"x,2\n', TableError, "line 2"),
        (b"a,a\n1,2\n", TableError, "two columns are named 'a'"),
        (b"a,\n1,2\n", TableError, "column 2 has no name"),
        (b"a, \n1,2\n", TableError, "column 2 has no name"),
        (b",,\n1,2,3\n", TableError, "column 1 has no name"),
        (b"x" * 201 + b"\n1\n", TableError, "longer than 200"),
        (b",".join(b"%d" % n for n in range(COLUMNS_MAX + 1)) + b"\n1\n", TableError, str(COLUMNS_MAX)),
        (b"a,b\n1," + b"x" * 200_000 + b"\n", TableError, "line 2"),
        (b'"a\n\x1fb","a\n\x1fb"\n1,2\n', FileBinary, "control characters"),
        (b'"a\nb","a\nb"\n1,2\n', TableError, "two columns"),
    ],
)
def test_what_is_no_table_is_refused_with_its_reason(data: bytes, kind: type[DataFileError], word: str) -> None:
    assert word in str(fault(kind, data))


def test_the_most_columns_and_the_largest_file_are_taken() -> None:
    header = ",".join(f"c{n}" for n in range(COLUMNS_MAX))
    assert len(read_data_file(f"{header}\n{header}\n".encode()).columns) == COLUMNS_MAX
    rows = b"a\n" + b"x" * 1023 + b"\n"
    data = rows + (b"y" * 1023 + b"\n") * ((PAYLOAD_MAX_BYTES - len(rows)) // 1024)
    data += b"z" * (PAYLOAD_MAX_BYTES - len(data))
    assert len(read_data_file(data).data) == PAYLOAD_MAX_BYTES
    assert "16 MiB" in str(fault(FileTooLarge, data + b"z"))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='ab,;\t"\n\r \ufeff市', max_size=40).map(str.encode)))
def test_any_bytes_are_a_table_or_a_refusal(data: bytes) -> None:
    try:
        table = read_data_file(data)
    except DataFileError as error:
        told(error)
    else:
        assert table.rows >= 1
        assert len({column.name for column in table.columns}) == len(table.columns)


# Paths ---------------------------------------------------------------------------------------------------------------


def test_a_files_name_becomes_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "sme.csv"
    path.write_bytes(b"a\n1\n")
    assert read_data_file(path) == read_data_file(str(path))
    assert read_data_file(path).name == "sme.csv"
    assert read_data_file(b"a\n1\n").name == ""


@pytest.mark.parametrize(
    ("make", "kind", "word"),
    [
        (lambda path: None, FileMissing, "nothing of that name"),
        (lambda path: path.mkdir(), FileMissing, "directory"),
        (os.mkfifo, FileMissing, "no regular file"),
        (lambda path: path.symlink_to(path), FileMissing, "nothing of that name"),
        (lambda path: path.symlink_to("/dev/zero"), FileMissing, "no regular file"),
        (lambda path: path.touch(), FileEmpty, "no text"),
    ],
)
@pytest.mark.timeout(5)
def test_a_path_that_leads_to_no_file_is_refused_and_nothing_hangs(
    tmp_path: Path, make: Callable[[Path], None], kind: type[DataFileError], word: str
) -> None:
    path = tmp_path / "data.csv"
    make(path)
    error = fault(kind, path)
    assert word in str(error)
    assert error.source == str(path)


def test_a_file_over_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of hole
    fault(FileTooLarge, path)


def test_a_path_that_the_system_refuses_is_unreadable() -> None:
    fault(FileUnreadable, "x" * 5000)
    fault(FileMissing, "a\x00b")


def test_a_file_without_permission_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"a\n1\n")
    path.chmod(0)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):  # pytest's own folders are closed to others
        if os.geteuid() == 0 and folder.stat().st_uid == 0:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        error = fault(FileUnreadable, path)
    finally:
        os.seteuid(was)
    assert "permission denied" in error.why


@pytest.mark.parametrize("name", ["two\nlines.csv", "\x1b[2Jclear.csv", "\u202evsc.csv", os.fsdecode(b"\xff.csv")])
def test_a_name_that_would_break_a_line_or_steer_a_terminal_is_shown_escaped(tmp_path: Path, name: str) -> None:
    fault(FileMissing, tmp_path / name)
    (tmp_path / name).touch()
    fault(FileEmpty, tmp_path / name)


def test_a_text_is_read_with_its_mark_left_out_and_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "law.cedar"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert read_text_file(path, 6) == "abc"
    with pytest.raises(FileTooLarge):
        read_text_file(path, 5)
    path.write_bytes("市".encode("gb18030"))
    with pytest.raises(FileEncodingError) as caught:
        read_text_file(path, 100)
    assert caught.value.offset == 0
    told(caught.value)
