"""The code lists that laws, catalogue entries and requests are written in, and jurisdiction codes.

Every word that a decision depends on comes from one of these lists. A word outside its list denies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

PURPOSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "credit-assessment": "judge the creditworthiness of an enterprise or person that applies for credit",
        "poverty-relief": "find and support households that are entitled to relief",
        "statistics": "make aggregates from which nobody can be identified",
        "fraud-prevention": "detect or prevent fraud against the data holder or the requester",
        "marketing": "offer goods or services",
        "route-planning": "plan and improve transport",
        "customs-clearance": "declare goods at a border",
        "supervision": "oversee the conduct of those under supervision",
        "public-service": "handle an application to a public body",
        "tax-administration": "assess and collect taxes",
        "healthcare": "treat a patient or settle the cost of treatment",
        "scientific-research": "research under a plan that was approved",
        "emergency-response": "act in a declared emergency",
    }
)
"""Purpose codes and what each covers."""

DATA_CLASSES: Final = ("general", "important", "core")
"""Classes of data and of clearance, lowest first (Data Security Law, article 21)."""

ROLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "official": "acts for a public body",
        "analyst": "assesses data for an enterprise",
        "operator": "runs transport or warehouses",
        "carrier": "carries goods for others",
        "supervisor": "supervises on behalf of the state",
        "judge": "issues warrants and orders",
        "auditor": "checks decisions and evidence",
        "caseworker": "decides on applications of persons",
    }
)
"""Roles that a certificate may claim and the registry may allow."""

RESERVED_ROLES: Final = frozenset({"supervisor", "judge"})
"""Roles that only the organisations of the seats of legislator and regulator may have: they make orders."""

PERSONAL_KINDS: Final = ("none", "personal", "sensitive")
"""What data say about persons (PIPL, articles 4 and 28)."""

ACTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "read": "receive the data set and use it as it is",
        "derive": "receive the data set and make products from it",
        "share": "receive the data set and pass it on to named others",
        "export": "receive the data set and take it out of its jurisdiction",
    }
)
"""What a requester may ask to do with a data set."""

LEGAL_BASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unstated": "the requester states no basis",
        "consent": "the data subjects consented",
        "contract": "needed for a contract with the data subject",
        "statutory-duty": "a law obliges the requester",
        "public-task": "a task in the public interest",
        "vital-interest": "protects somebody's life, in an emergency that was declared on record",
        "warrant": "a judge allowed it",
    }
)
"""The basis that a requester states. Consent, vital interest and warrant are checked against what is on record; the others
are claims, which a law may demand, never proven facts."""

LEVELS: Final = ("nation", "province", "city")
"""Levels of law, highest first. A jurisdiction code has one component for each level down to its own."""

CLASSES_OF_SEAT: Final = ("legislator", "regulator", "sector")
"""Classes of organisation whose votes a ballot needs, one of each."""

JURISDICTION_PATTERN: Final = r"[A-Z]{2}(?:-[A-Z0-9]{1,8}){0,2}"
MSP_ID_PATTERN: Final = r"[A-Za-z][A-Za-z0-9.-]{0,63}"
TRANSACTION_ID_PATTERN: Final = r"[0-9a-f]{64}"
WORD_PATTERN: Final = r"[a-z][a-z0-9-]{0,39}"

_JURISDICTION = re.compile(JURISDICTION_PATTERN, re.ASCII)


def is_jurisdiction(code: str) -> bool:
    """Whether `code` is written as a jurisdiction code: ASCII capitals and digits, one to three components.

    Look-alike letters of other alphabets, lower case and surrounding blanks are not.
    """
    return _JURISDICTION.fullmatch(code) is not None


def jurisdiction_path(code: str) -> tuple[str, ...]:
    """The jurisdictions that contain `code`, highest first, itself last: CN, CN-GZ, CN-GZ-520100.

    Raises ValueError for a code that is not well formed.
    """
    if not is_jurisdiction(code):
        raise ValueError(f"{code!r} is not a jurisdiction code such as CN, CN-GZ or CN-GZ-520100")
    parts = code.split("-")
    return tuple("-".join(parts[: index + 1]) for index in range(len(parts)))


def is_within(place: str, region: str) -> bool:
    """Whether `place` is `region` or lies in it. Components are compared whole: CN-GZ does not lie in CN-G.

    A malformed code lies nowhere and contains nothing.
    """
    return is_jurisdiction(place) and is_jurisdiction(region) and region in jurisdiction_path(place)


def level_of(code: str) -> str:
    """The level of law of a jurisdiction: `nation`, `province` or `city`. Raises ValueError for a malformed code."""
    return LEVELS[len(jurisdiction_path(code)) - 1]


def class_rank(data_class: str | None) -> int:
    """The position of a class in `DATA_CLASSES`, and -1 for an unknown or missing one."""
    return DATA_CLASSES.index(data_class) if data_class in DATA_CLASSES else -1
