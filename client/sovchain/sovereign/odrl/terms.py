"""Which words of a law are which terms of ODRL 2.2 (W3C Recommendation of 15 February 2018), and the profile's own terms.

A condition has the same form on both sides: an attribute, an operator and values. What ODRL has no term for is a term of the
profile, written `sov:...`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

CONTEXT: Final = "http://www.w3.org/ns/odrl.jsonld"
PROFILE: Final = "urn:sovchain:odrl:1"
PREFIXES: Final = ("odrl:", "http://www.w3.org/ns/odrl/2/")
"""Ways to write a term of ODRL that a document may use instead of the bare word."""

Place = Literal["rule", "assignee", "target"]
"""Where a condition stands in a rule: among its constraints, or among the refinements of its assignee or target."""
Kind = Literal["word", "place", "number", "time", "text", "set"]

COLLECTIONS: Final[Mapping[Place, tuple[str, str]]] = {
    "assignee": ("PartyCollection", "urn:sovchain:organisations"),
    "target": ("AssetCollection", "urn:sovchain:datasets"),
}
"""Type and source of the collections that assignees and targets are refinements of."""


@dataclass(frozen=True)
class Attribute:
    """What a condition may be about.

    Attributes:
        path: how Cedar names it.
        place, operand: where ODRL has it, and the left operand.
        kind: what its values are.
        entity: Cedar's type of its values, empty where they are no entities.
        exact: for a place, what is compared when it must be this very one; empty when nothing can be.
    """

    path: str
    place: Place
    operand: str
    kind: Kind
    entity: str = ""
    exact: str = ""


ATTRIBUTES: Final = (
    Attribute("context.purpose", "rule", "purpose", "word", "Purpose"),
    Attribute("context.destination", "rule", "spatial", "place", "Jurisdiction", "context.destination"),
    Attribute("context.time", "rule", "dateTime", "time"),
    Attribute("context.legalBasis", "rule", "sov:legalBasis", "word", "LegalBasis"),
    Attribute("context.channel", "rule", "sov:channel", "text"),
    Attribute("principal", "assignee", "spatial", "place", "Jurisdiction"),
    Attribute("principal.organisation", "assignee", "sov:organisation", "word", "Organisation"),
    Attribute("principal.role", "assignee", "sov:role", "word", "Role"),
    Attribute("principal.clearance", "assignee", "sov:clearance", "word", "Class"),
    Attribute("resource", "target", "spatial", "place", "Jurisdiction", "resource.jurisdiction"),
    Attribute("resource.owner", "target", "sov:owner", "word", "Organisation"),
    Attribute("resource.class", "target", "sov:class", "word", "Class"),
    Attribute("resource.personal", "target", "sov:personal", "word", "Personal"),
    Attribute("resource.rows", "target", "count", "number"),
    Attribute("resource.residency", "target", "sov:residency", "set", "Jurisdiction"),
    Attribute("resource.purposes", "target", "sov:purposes", "set", "Purpose"),
)

OPERATORS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "word": ("eq", "neq", "isAnyOf", "isNoneOf"),
    "place": ("isPartOf", "sov:isNotPartOf", "eq", "neq"),
    "number": ("eq", "neq", "lt", "lteq", "gt", "gteq"),
    "time": ("eq", "neq", "lt", "lteq", "gt", "gteq"),
    "text": ("eq", "neq"),
    "set": ("hasPart",),
}
COMPARISONS: Final[Mapping[str, str]] = {"==": "eq", "!=": "neq", "<": "lt", "<=": "lteq", ">": "gt", ">=": "gteq"}
OPPOSITES: Final[Mapping[str, str]] = {
    "eq": "neq",
    "neq": "eq",
    "lt": "gteq",
    "gteq": "lt",
    "gt": "lteq",
    "lteq": "gt",
    "isAnyOf": "isNoneOf",
    "isPartOf": "sov:isNotPartOf",
}
"""What holds exactly when the other does not."""
LISTED: Final = frozenset({"isAnyOf", "isNoneOf"})
"""Operators with several values."""

ACTIONS: Final[Mapping[str, str]] = {"read": "read", "derive": "derive", "share": "distribute", "export": "sov:export"}
"""Actions of laws and ODRL's. A policy on every action is on `use`."""
EVERY_ACTION: Final = "use"

DUTIES: Final[Mapping[str, str]] = {
    "notify": "inform",
    "delete": "delete",
    "cosign": "obtainConsent",
    "report": "sov:report",
    "mask": "sov:suppress",
    "fields": "sov:fields",
    "rows": "sov:rows",
    "quota": "sov:quota",
    "expires": "sov:expires",
}
"""Obligations of laws and the actions of ODRL's duties."""
MASKS: Final[Mapping[str, str]] = {"truncate": "sov:truncate", "hash": "sov:hash", "generalise": "sov:generalise"}
"""Masks that leave something of a column, and the actions of their duties."""


@dataclass(frozen=True)
class Condition:
    """One constraint or refinement. Values are words, codes, whole numbers or moments (RFC 3339)."""

    attribute: Attribute
    operator: str
    values: tuple[str | int, ...]


_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:?\d\d)?)?", re.ASCII)


def moment(text: str) -> str | None:
    """A moment as both Cedar and XML Schema write it, in UTC and to the millisecond; None for a text that is none.

    A text without a zone is in UTC, as Cedar reads a date.
    """
    if _MOMENT.fullmatch(text) is None:
        return None
    try:
        read = datetime.fromisoformat(text)
        read = (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return read.isoformat(timespec="milliseconds" if read.microsecond else "seconds").replace("+00:00", "Z")


class OdrlError(ValueError):
    """What does not map. `path` is the JSON path (RFC 9535) of an ODRL document, or the line, column and clause of a law; `reason`
    says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
