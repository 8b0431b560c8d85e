"""The code lists that laws, catalogue entries and requests are written in, and jurisdiction codes.

Every word that a decision depends on comes from one of these lists. A word outside its list denies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
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

NATIONS: Final = frozenset(
    [
        "AD",
        "AE",
        "AF",
        "AG",
        "AI",
        "AL",
        "AM",
        "AO",
        "AQ",
        "AR",
        "AS",
        "AT",
        "AU",
        "AW",
        "AX",
        "AZ",
        "BA",
        "BB",
        "BD",
        "BE",
        "BF",
        "BG",
        "BH",
        "BI",
        "BJ",
        "BL",
        "BM",
        "BN",
        "BO",
        "BQ",
        "BR",
        "BS",
        "BT",
        "BV",
        "BW",
        "BY",
        "BZ",
        "CA",
        "CC",
        "CD",
        "CF",
        "CG",
        "CH",
        "CI",
        "CK",
        "CL",
        "CM",
        "CN",
        "CO",
        "CR",
        "CU",
        "CV",
        "CW",
        "CX",
        "CY",
        "CZ",
        "DE",
        "DJ",
        "DK",
        "DM",
        "DO",
        "DZ",
        "EC",
        "EE",
        "EG",
        "EH",
        "ER",
        "ES",
        "ET",
        "FI",
        "FJ",
        "FK",
        "FM",
        "FO",
        "FR",
        "GA",
        "GB",
        "GD",
        "GE",
        "GF",
        "GG",
        "GH",
        "GI",
        "GL",
        "GM",
        "GN",
        "GP",
        "GQ",
        "GR",
        "GS",
        "GT",
        "GU",
        "GW",
        "GY",
        "HK",
        "HM",
        "HN",
        "HR",
        "HT",
        "HU",
        "ID",
        "IE",
        "IL",
        "IM",
        "IN",
        "IO",
        "IQ",
        "IR",
        "IS",
        "IT",
        "JE",
        "JM",
        "JO",
        "JP",
        "KE",
        "KG",
        "KH",
        "KI",
        "KM",
        "KN",
        "KP",
        "KR",
        "KW",
        "KY",
        "KZ",
        "LA",
        "LB",
        "LC",
        "LI",
        "LK",
        "LR",
        "LS",
        "LT",
        "LU",
        "LV",
        "LY",
        "MA",
        "MC",
        "MD",
        "ME",
        "MF",
        "MG",
        "MH",
        "MK",
        "ML",
        "MM",
        "MN",
        "MO",
        "MP",
        "MQ",
        "MR",
        "MS",
        "MT",
        "MU",
        "MV",
        "MW",
        "MX",
        "MY",
        "MZ",
        "NA",
        "NC",
        "NE",
        "NF",
        "NG",
        "NI",
        "NL",
        "NO",
        "NP",
        "NR",
        "NU",
        "NZ",
        "OM",
        "PA",
        "PE",
        "PF",
        "PG",
        "PH",
        "PK",
        "PL",
        "PM",
        "PN",
        "PR",
        "PS",
        "PT",
        "PW",
        "PY",
        "QA",
        "RE",
        "RO",
        "RS",
        "RU",
        "RW",
        "SA",
        "SB",
        "SC",
        "SD",
        "SE",
        "SG",
        "SH",
        "SI",
        "SJ",
        "SK",
        "SL",
        "SM",
        "SN",
        "SO",
        "SR",
        "SS",
        "ST",
        "SV",
        "SX",
        "SY",
        "SZ",
        "TC",
        "TD",
        "TF",
        "TG",
        "TH",
        "TJ",
        "TK",
        "TL",
        "TM",
        "TN",
        "TO",
        "TR",
        "TT",
        "TV",
        "TW",
        "TZ",
        "UA",
        "UG",
        "UM",
        "US",
        "UY",
        "UZ",
        "VA",
        "VC",
        "VE",
        "VG",
        "VI",
        "VN",
        "VU",
        "WF",
        "WS",
        "YE",
        "YT",
        "ZA",
        "ZM",
        "ZW",
    ]
)
"""The officially assigned codes of ISO 3166-1 alpha-2."""

PROVINCES_OF_CHINA: Final = frozenset(
    [
        "AH",
        "BJ",
        "CQ",
        "FJ",
        "GD",
        "GS",
        "GX",
        "GZ",
        "HA",
        "HB",
        "HE",
        "HI",
        "HK",
        "HL",
        "HN",
        "JL",
        "JS",
        "JX",
        "LN",
        "MO",
        "NM",
        "NX",
        "QH",
        "SC",
        "SD",
        "SH",
        "SN",
        "SX",
        "TJ",
        "TW",
        "XJ",
        "XZ",
        "YN",
        "ZJ",
    ]
)
"""The subdivisions of ISO 3166-2:CN. Of other nations the form alone is checked; a city of China has the six digits of
GB/T 2260."""

_PART = re.compile(r"[A-Z0-9]{1,3}", re.ASCII)
_CITY_OF_CHINA = re.compile(r"[0-9]{6}", re.ASCII)
_JURISDICTION = re.compile(JURISDICTION_PATTERN, re.ASCII)


@lru_cache(maxsize=4096)
def is_jurisdiction(code: str) -> bool:
    """Whether `code` is a jurisdiction code: a nation of ISO 3166-1, a subdivision of ISO 3166-2, a city within it.

    Look-alike letters of other alphabets, lower case, surrounding blanks and codes that nobody was assigned are not.
    """
    if _JURISDICTION.fullmatch(code) is None:
        return False
    nation, *parts = code.split("-")
    if nation != "CN":
        return nation in NATIONS and (not parts or _PART.fullmatch(parts[0]) is not None)
    province, city = parts[:1], parts[1:]
    return set(province) <= PROVINCES_OF_CHINA and all(_CITY_OF_CHINA.fullmatch(one) for one in city)


@lru_cache(maxsize=4096)
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
