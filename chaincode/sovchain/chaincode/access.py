"""Who may call an operation, declared next to it and decided by the caller's certificate.

    @transaction(requires=role("clerk") & msp("GovMSP"))
    async def register(self, ctx: Context, ...): ...

Requirements combine with `&`, `|` and `~`. They read the caller's MSP, the organisational units and the attributes that
its CA wrote into the certificate, never an argument. What no certificate says is not met, so that `~role("clerk")` also
admits callers without any role: put an `msp` or another role beside it where that matters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sovchain.chaincode.errors import AccessError, DefinitionError

if TYPE_CHECKING:
    from sovchain.chaincode.context import ClientIdentity

ROLE_ATTRIBUTE: Final = "role"
"""The attribute that `role` looks at."""


class Requirement(ABC):
    """What a caller must be. Made by `msp`, `role`, `attribute`, `unit` and `holder`, combined with `&`, `|`, `~`."""

    @abstractmethod
    def met_by(self, identity: ClientIdentity, record: object = None) -> bool:
        """Whether the caller meets it. `record` is what `holder` looks at; without one no `holder` is met."""

    @abstractmethod
    def __str__(self) -> str: ...

    def atoms(self) -> tuple[Requirement, ...]:
        """The single requirements that it is made of, each once, in order."""
        return (self,)

    def check(self, identity: ClientIdentity, what: str, record: object = None, *, code: str = "E_ACCESS") -> None:
        """Refuse a caller that does not meet it.

        Args:
            identity: the caller.
            what: what was to be done, such as the operation's name.
            record: what `holder` looks at.
            code: code of the refusal.

        Raises:
            AccessError: names what is required, and nothing of the caller.
        """
        if not self.met_by(identity, record):
            raise AccessError(what, str(self), code=code)

    def __and__(self, other: Requirement) -> Requirement:
        return _All(_flat(_All, self, other))

    def __or__(self, other: Requirement) -> Requirement:
        return _Any(_flat(_Any, self, other))

    def __invert__(self) -> Requirement:
        return self.part if isinstance(self, _Not) else _Not(self)

    def __bool__(self) -> bool:
        raise TypeError("requirements combine with &, | and ~, not with and, or, not")

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lstrip('_').lower()} {self}>"


@dataclass(frozen=True, slots=True, repr=False)
class Msp(Requirement):
    """What `msp` makes."""

    names: tuple[str, ...]

    def met_by(self, identity: ClientIdentity, record: object = None) -> bool:
        return identity.msp_id in self.names

    def __str__(self) -> str:
        return f"msp({', '.join(self.names)})"


@dataclass(frozen=True, slots=True, repr=False)
class Attribute(Requirement):
    """What `attribute` and `role` make."""

    name: str
    values: tuple[str, ...]

    def met_by(self, identity: ClientIdentity, record: object = None) -> bool:
        found = identity.attributes.get(self.name)
        return found is not None and (not self.values or found in self.values)

    def __str__(self) -> str:
        if self.name == ROLE_ATTRIBUTE and self.values:
            return f"role({', '.join(self.values)})"
        return f"attribute({', '.join((self.name, *self.values))})"


@dataclass(frozen=True, slots=True, repr=False)
class Unit(Requirement):
    """What `unit` makes."""

    names: tuple[str, ...]

    def met_by(self, identity: ClientIdentity, record: object = None) -> bool:
        return any(name in self.names for name in identity.organizational_units)

    def __str__(self) -> str:
        return f"unit({', '.join(self.names)})"


@dataclass(frozen=True, slots=True, repr=False)
class Holder(Requirement):
    """What `holder` makes."""

    field: str
    within: str = ""

    def met_by(self, identity: ClientIdentity, record: object = None) -> bool:
        found = getattr(record, self.field, None)
        return isinstance(found, str) and found == self.of(identity)

    def of(self, identity: ClientIdentity) -> str | None:
        """What the field says of this caller; None if its certificate lacks the attribute."""
        if not self.within:
            return identity.msp_id
        part = identity.attributes.get(self.within)
        return f"{identity.msp_id}/{part}" if part else None

    def __str__(self) -> str:
        return f"holder({', '.join(filter(None, (self.field, self.within)))})"


@dataclass(frozen=True, slots=True, repr=False)
class _All(Requirement):
    parts: tuple[Requirement, ...]

    def met_by(self, identity: ClientIdentity, record: object = None) -> bool:
        return all(part.met_by(identity, record) for part in self.parts)

    def atoms(self) -> tuple[Requirement, ...]:
        return _atoms(self.parts)

    def __str__(self) -> str:
        return " & ".join(f"({part})" if isinstance(part, _Any) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True, repr=False)
class _Any(Requirement):
    parts: tuple[Requirement, ...]

    def met_by(self, identity: ClientIdentity, record: object = None) -> bool:
        return any(part.met_by(identity, record) for part in self.parts)

    def atoms(self) -> tuple[Requirement, ...]:
        return _atoms(self.parts)

    def __str__(self) -> str:
        return " | ".join(str(part) for part in self.parts)


@dataclass(frozen=True, slots=True, repr=False)
class _Not(Requirement):
    part: Requirement

    def met_by(self, identity: ClientIdentity, record: object = None) -> bool:
        return not self.part.met_by(identity, record)

    def atoms(self) -> tuple[Requirement, ...]:
        return self.part.atoms()

    def __str__(self) -> str:
        return f"~({self.part})" if isinstance(self.part, _All | _Any) else f"~{self.part}"


def msp(*names: str) -> Requirement:
    """The caller's MSP is one of these."""
    return Msp(_words("msp", names))


def role(*names: str) -> Requirement:
    """The attribute `role` of the caller's certificate is one of these."""
    return Attribute(ROLE_ATTRIBUTE, _words("role", names))


def attribute(name: str, *values: str) -> Requirement:
    """The caller's certificate has this attribute, with one of these values if any are given."""
    _words("attribute", (name,))
    return Attribute(name, _words("attribute", values) if values else ())


def unit(*names: str) -> Requirement:
    """The subject of the caller's certificate has one of these organisational units, such as `admin` or `client`."""
    return Unit(_words("unit", names))


def holder(field: str, *, within: str = "") -> Requirement:
    """The caller's MSP is the one in this field of the record: for the tables of state machines.

    With `within`, the field is `MSP/VALUE`, and the caller's certificate must have that value in this attribute too: for
    records of an organisation's customers or officers, of whom each may only do what is theirs.
    """
    return Holder(_words("holder", (field,))[0], _words("holder", (within,))[0] if within else "")


def _words(what: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or not all(isinstance(name, str) and name and name.isprintable() for name in names):
        raise DefinitionError(f"{what} takes at least one name, and every name is printable text")
    return tuple(dict.fromkeys(names))


def _flat(kind: type[_All | _Any], *parts: Requirement) -> tuple[Requirement, ...]:
    found: list[Requirement] = []
    for part in parts:
        if not isinstance(part, Requirement):
            raise DefinitionError(f"a requirement combines with another one, not with {type(part).__name__}")
        found.extend(part.parts if isinstance(part, kind) else (part,))
    return tuple(dict.fromkeys(found))


def _atoms(parts: tuple[Requirement, ...]) -> tuple[Requirement, ...]:
    return tuple(dict.fromkeys(atom for part in parts for atom in part.atoms()))
