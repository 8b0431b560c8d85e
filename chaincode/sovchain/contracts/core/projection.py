"""Parts of a table that can be checked against the catalogue: some columns, some rows, some values masked.

The catalogue entry's `table_root` commits to every cell of the table:

    seed        the 32 bytes of salt in front of the payload, which stay with whoever has the whole
    column key  HMAC-SHA-256(seed, "sovchain/column/1" | index | name)
    cell salt   HMAC-SHA-256(column key, row), the first 16 bytes
    cell        a leaf of the column's tree: "sovchain/cell/1" | salt | value
    column      a leaf of the table's tree: canonical JSON of index, name, number of rows and the column's root

Trees are those of `merkle`. Whoever is granted whole columns gets their column keys; of other columns he sees a hash, and of
rows that he is not granted salted hashes, which tell nothing. A masked column comes with the leaves of its original cells:
the mask cannot be undone, and whoever may see the original later can tell whether it was applied to these very cells.

A projection is one document of canonical JSON. It says what it is a part of, and leads to the root by itself.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError, model_validator

from sovchain.contracts.core.masks import is_masked, masked
from sovchain.contracts.core.merkle import HASH_BYTES, Frontier, MerkleError, leaf_hash, rebuild, siblings
from sovchain.contracts.core.records import (
    COLUMNS_MAX,
    SALT_BYTES,
    Hex32,
    Mask,
    Publication,
    Receipt,
    Record,
    RowRule,
)
from sovchain.protocol.canonical import canonical_json

PROJECTION_MAX_BYTES: Final = 24 * 1024 * 1024
"""Longest projection that a private collection takes."""
CELLS_MAX: Final = 1_000_000
"""Most cells of a projection: a peer checks about 230,000 in a second, and ends a call after 30 seconds by default."""
CELL_SALT_BYTES: Final = 16
RANGES_MAX: Final = 1_000_000

_CELL: Final = b"sovchain/cell/1"
_COLUMN: Final = b"sovchain/column/1"
_MASK: Final = b"sovchain/mask/1"
Hexes = Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{2})*$")]
Index = Annotated[int, Field(ge=0, le=2**53 - 1)]


class ProjectionError(ValueError):
    """A document that is no projection of what it should be; the text says what is wrong."""


class ProjectedColumn(Record):
    """One column of a projection. Shown whole it has its `key`; with rows left out `salts` and `siblings`; masked, `leaves`
    instead of salts. All are hex, one after the other."""

    index: Annotated[int, Field(ge=0, lt=COLUMNS_MAX)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    values: tuple[str, ...]
    mask: Mask | None = None
    key: Hex32 | None = None
    salts: Hexes | None = None
    leaves: Hexes | None = None
    siblings: Hexes = ""

    @model_validator(mode="after")
    def _check(self) -> ProjectedColumn:
        given = [self.key is not None, self.salts is not None, self.leaves is not None]
        if sum(given) != 1 or (self.mask is not None) != given[2]:
            raise ValueError("a column has a key, or salts, or a mask with leaves")
        return self


class Projection(Record):
    """A part of a table. `rows` and `width` are those of the whole; `chosen` are ranges of rows, None for all; `paths` leads from
    the columns to `root`. `salt` hides the document's own hash."""

    format: Literal["sovchain-projection/1"] = "sovchain-projection/1"
    dataset: Hex32
    request: Hex32
    root: Hex32
    rows: Index
    width: Annotated[int, Field(ge=1, le=COLUMNS_MAX)]
    chosen: Annotated[tuple[tuple[Index, Index], ...], Field(max_length=RANGES_MAX)] | None = None
    columns: Annotated[tuple[ProjectedColumn, ...], Field(min_length=1, max_length=COLUMNS_MAX)]
    paths: Hexes = ""
    salt: Hex32

    @model_validator(mode="after")
    def _check(self) -> Projection:
        indices = [column.index for column in self.columns]
        if indices != sorted(set(indices)) or indices[-1] >= self.width:
            raise ValueError("the columns are not in order")
        last, count = -1, 0
        for start, end in self.chosen or ():
            if not last < start < end <= self.rows:
                raise ValueError("the rows are not in order")
            last, count = end, count + end - start
        # Counted before anything is spread out: a range costs a few bytes, whatever its length.
        if any(len(column.values) != (self.rows if self.chosen is None else count) for column in self.columns):
            raise ValueError("a column has another number of values than rows are chosen")
        return self

    def chosen_rows(self) -> Sequence[int]:
        """The rows' places in the whole table, from 0."""
        if self.chosen is None:
            return range(self.rows)
        return [row for start, end in self.chosen for row in range(start, end)]


@dataclass(frozen=True)
class Grant:
    """What of a table was granted: columns in their order, their masks, and the rules for its rows."""

    fields: tuple[str, ...]
    masks: Mapping[str, Mask]
    rules: tuple[RowRule, ...]
    whole: bool

    @classmethod
    def of(cls, receipt: Receipt, entry: Publication) -> Grant:
        """What a permit grants of the table that an entry describes."""
        names = tuple(column.name for column in entry.columns)
        fields = names if receipt.fields is None else receipt.fields
        whole = set(fields) == set(names) and not receipt.masks and not receipt.rows
        return cls(fields, {mask.column: mask for mask in receipt.masks or ()}, receipt.rows or (), whole)


@dataclass(frozen=True)
class Table:
    """A table in memory: names of its columns, and the cells of each."""

    names: tuple[str, ...]
    cells: tuple[Sequence[str], ...]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.cells[0]) if self.cells else 0


class TableCommitment:
    """The root of a table that is read row by row, in memory that does not grow with it."""

    def __init__(self, seed: bytes, names: Sequence[str]) -> None:
        self._names = names
        self._keys = [_column_key(seed, index, name) for index, name in enumerate(names)]
        self._trees = [Frontier() for _ in names]
        self._rows = 0

    def add(self, row: Sequence[str]) -> None:
        """The next row: one value for each column."""
        for key, tree, value in zip(self._keys, self._trees, row, strict=True):
            tree.add(_cell(_cell_salt(key, self._rows), value))
        self._rows += 1

    def root(self) -> str:
        """The table's root, in hex."""
        table = Frontier()
        for index, (name, tree) in enumerate(zip(self._names, self._trees, strict=True)):
            table.add(_column_leaf(index, name, self._rows, tree.root()))
        return table.root().hex()


def table_root(seed: bytes, table: Table) -> str:
    """The root that the catalogue entry of a table states, in hex."""
    commitment = TableCommitment(seed, table.names)
    for row in zip(*table.cells, strict=True):
        commitment.add(row)
    return commitment.root()


def project(table: Table, seed: bytes, grant: Grant, *, dataset: str, request: str, salt: bytes) -> Projection:
    """The part of a table that is granted, with what it takes to check it. `salt` are 32 random bytes."""
    place = {name: index for index, name in enumerate(table.names)}
    rules = [(table.cells[place[rule.column]], frozenset(rule.values)) for rule in grant.rules]
    kept = [row for row in range(table.rows) if all(cells[row] in allowed for cells, allowed in rules)]
    every = len(kept) == table.rows
    chosen = range(table.rows) if every else kept
    shown = [place[name] for name in table.names if name in grant.fields]
    mask_key = hmac.digest(seed, _MASK + request.encode(), "sha256")
    keys = [_column_key(seed, index, name) for index, name in enumerate(table.names)]

    hashes = [_column_hash(table, index, key) for index, key in enumerate(keys)]
    whole = Frontier()
    for one in hashes:
        whole.add(one)
    columns = tuple(_project_column(table, index, keys[index], chosen, grant, mask_key) for index in shown)
    return Projection(
        dataset=dataset,
        request=request,
        root=whole.root().hex(),
        rows=table.rows,
        width=len(table.names),
        chosen=None if every else _ranges(kept),
        columns=columns,
        paths=b"".join(siblings(len(table.names), shown, hashes.__getitem__)).hex(),
        salt=salt.hex(),
    )


def _column_hash(table: Table, index: int, key: bytes) -> bytes:
    tree = Frontier()
    for row, value in enumerate(table.cells[index]):
        tree.add(_cell(_cell_salt(key, row), value))
    return _column_leaf(index, table.names[index], table.rows, tree.root())


def _project_column(
    table: Table, index: int, key: bytes, chosen: Sequence[int], grant: Grant, mask_key: bytes
) -> ProjectedColumn:
    name, cells = table.names[index], table.cells[index]
    mask = grant.masks.get(name)
    values = tuple(cells[row] for row in chosen)

    def leaf(row: int) -> bytes:
        return _cell(_cell_salt(key, row), cells[row])

    others = b"".join(siblings(table.rows, chosen, leaf)).hex()
    if mask is not None:
        shown = tuple(masked(mask, value, mask_key) for value in values)
        leaves = b"".join(leaf(row) for row in chosen).hex()
        return ProjectedColumn(index=index, name=name, values=shown, mask=mask, leaves=leaves, siblings=others)
    if len(chosen) == table.rows:
        return ProjectedColumn(index=index, name=name, values=values, key=key.hex())
    salts = b"".join(_cell_salt(key, row) for row in chosen).hex()
    return ProjectedColumn(index=index, name=name, values=values, salts=salts, siblings=others)


def encode_projection(projection: Projection) -> bytes:
    """The document, as canonical JSON."""
    return canonical_json(projection.model_dump(mode="json", exclude_none=True))


def read_projection(document: bytes) -> Projection:
    """Read a document and check that it leads to the root that it states. Raises ProjectionError."""
    if len(document) > PROJECTION_MAX_BYTES:
        raise ProjectionError(f"it has {len(document)} bytes, at most {PROJECTION_MAX_BYTES} are taken")
    try:
        found = Projection.model_validate_json(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise ProjectionError(f"{where} is malformed ({first['msg']})") from None
    cells = sum(len(column.values) for column in found.columns)
    if cells > CELLS_MAX:
        raise ProjectionError(f"it has {cells} cells, at most {CELLS_MAX} are checked: ask for fewer rows or columns")
    if encode_projection(found) != document:
        raise ProjectionError("it is not in canonical form")
    try:
        root = _root_of(found)
    except MerkleError as error:
        raise ProjectionError(str(error)) from None
    if root.hex() != found.root:
        raise ProjectionError("its values do not lead to the root that it states")
    return found


def check_projection(found: Projection, *, dataset: str, request: str, entry: Publication, grant: Grant) -> None:
    """Delivered within granted within catalogue. Raises ProjectionError that says what is outside.

    What masks made of values is checked by its form only, without the original.
    """
    if (found.dataset, found.request) != (dataset, request):
        raise ProjectionError("it was made for another request")
    names = [column.name for column in entry.columns]
    if (found.root, found.rows, found.width) != (entry.table_root, entry.rows, len(names)):
        raise ProjectionError("it is a part of another table than the catalogue's")
    for column in found.columns:
        if names[column.index] != column.name:
            raise ProjectionError(f"the catalogue has no column {ascii(column.name)[:60]} at that place")
        if column.name not in grant.fields:
            raise ProjectionError(f"column {ascii(column.name)[:60]} is not granted")
        mask = grant.masks.get(column.name)
        if column.mask != mask:
            raise ProjectionError(f"column {ascii(column.name)[:60]} is not masked as granted")
        if mask is not None and not all(is_masked(mask, value) for value in column.values):
            raise ProjectionError(f"a value of column {ascii(column.name)[:60]} is not masked")
    shown = {column.name: column.values for column in found.columns}
    for rule in grant.rules:
        allowed = frozenset(rule.values)
        if rule.column not in shown or not all(value in allowed for value in shown[rule.column]):
            raise ProjectionError(f"it has rows that are not granted by column {ascii(rule.column)[:60]}")


def check_masks(found: Projection, seed: bytes, table: Table) -> None:
    """Whether each masked value is what its mask makes of the original. Raises ProjectionError; for who may see the original."""
    mask_key = hmac.digest(seed, _MASK + found.request.encode(), "sha256")
    if table_root(seed, table) != found.root:
        raise ProjectionError("the original is another table")
    for column in found.columns:
        if column.mask is None:
            continue
        cells = table.cells[column.index]
        if any(
            masked(column.mask, cells[row], mask_key) != value
            for row, value in zip(found.chosen_rows(), column.values, strict=True)
        ):
            raise ProjectionError(f"column {ascii(column.name)[:60]} holds other values than its mask makes")


def _root_of(found: Projection) -> bytes:
    chosen = found.chosen_rows()
    leaves = {column.index: _rebuilt_column(found, column, chosen) for column in found.columns}
    return rebuild(found.width, sorted(leaves), leaves.__getitem__, _split_hashes(found.paths))


def _rebuilt_column(found: Projection, column: ProjectedColumn, chosen: Sequence[int]) -> bytes:
    tree = rebuild(found.rows, chosen, _leaves_of(column, chosen, found.rows), _split_hashes(column.siblings))
    return _column_leaf(column.index, column.name, found.rows, tree)


def _leaves_of(column: ProjectedColumn, chosen: Sequence[int], rows: int) -> Callable[[int], bytes]:
    """The hash of each chosen cell, by its place in the whole table. They are asked for in order, each once."""
    ordered = iter(_leaves_in_order(column, chosen, rows))
    return lambda _: next(ordered)


def _leaves_in_order(column: ProjectedColumn, chosen: Sequence[int], rows: int) -> Iterator[bytes]:
    if column.leaves is not None:
        given = bytes.fromhex(column.leaves)
        if len(given) != HASH_BYTES * len(chosen):
            raise MerkleError("a masked column has another number of leaves than rows")
        return (given[at : at + HASH_BYTES] for at in range(0, len(given), HASH_BYTES))
    if column.salts is not None:
        salts = bytes.fromhex(column.salts)
        if len(salts) != CELL_SALT_BYTES * len(chosen):
            raise MerkleError("a column has another number of salts than rows")
        return (
            _cell(salts[place * CELL_SALT_BYTES : (place + 1) * CELL_SALT_BYTES], value)
            for place, value in enumerate(column.values)
        )
    if len(chosen) != rows:
        raise MerkleError("a column's key would disclose rows that are left out")
    key = bytes.fromhex(column.key or "")
    return (_cell(_cell_salt(key, row), value) for row, value in enumerate(column.values))


def _split_hashes(joined: str) -> Iterator[bytes]:
    given = bytes.fromhex(joined)
    if len(given) % HASH_BYTES:
        raise MerkleError("a hash is cut")
    return (given[at : at + HASH_BYTES] for at in range(0, len(given), HASH_BYTES))


def _ranges(rows: Sequence[int]) -> tuple[tuple[int, int], ...]:
    found: list[list[int]] = []
    for row in rows:
        if found and found[-1][1] == row:
            found[-1][1] = row + 1
        else:
            found.append([row, row + 1])
    return tuple((start, end) for start, end in found)


def _column_key(seed: bytes, index: int, name: str) -> bytes:
    if len(seed) != SALT_BYTES:
        raise ValueError(f"the seed has {len(seed)} bytes, not {SALT_BYTES}")
    return hmac.digest(seed, _COLUMN + index.to_bytes(4, "big") + name.encode(), "sha256")


def _cell_salt(key: bytes, row: int) -> bytes:
    return hmac.digest(key, row.to_bytes(8, "big"), "sha256")[:CELL_SALT_BYTES]


def _cell(salt: bytes, value: str) -> bytes:
    return leaf_hash(_CELL + salt + value.encode())


def _column_leaf(index: int, name: str, rows: int, root: bytes) -> bytes:
    stated = canonical_json({"index": index, "name": name, "root": root.hex(), "rows": rows})
    return leaf_hash(_COLUMN + stated)
