"""A law as text: a header in comments, then Cedar policies, each annotated with law, version and clause.

// law: GY-DS-2026
// version: 1
// title: Guiyang data sharing regulation
// level: city
// jurisdiction: CN-GZ-520100
// effective-from: 2026-01-01T00:00:00+08:00

@law("GY-DS-2026") @version("1") @clause("art. 7")
permit (principal, action == Action::"read", resource)
when { context.purpose == Purpose::"credit-assessment" };
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from sovchain.contracts.core.cedar import check_against_schema
from sovchain.contracts.core.cedartext import TEXT_MAX_BYTES, CedarTextError, PolicyText, parse_policies
from sovchain.contracts.core.obligations import ObligationError, parse_obligations
from sovchain.contracts.core.records import Clause, LawHeader

HEADER_FIELDS: Final = ("law", "version", "title", "level", "jurisdiction", "effective-from")
"""Names of the header's lines, each of which must occur once before the first policy."""

_HEADER_LINE = re.compile(r"//\s*([a-z-]+):\s*(.*?)\s*")


@dataclass(frozen=True)
class LawText:
    """A law that was read and found valid."""

    header: LawHeader
    clauses: tuple[Clause, ...]
    text: str
    text_hash: str


def clause_texts(text: str) -> dict[str, str]:
    """Each clause's policy as it stands in a law's text, from its first annotation to its semicolon. Raises CedarTextError."""
    found = {}
    for policy in parse_policies(text):
        first, last = policy.tokens[0], policy.tokens[-1]
        found[policy.clause] = text[first.start : last.end]
    return found


def text_hash(text: str) -> str:
    """Hex SHA-256 of the text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_law(text: str) -> LawText:
    """Read and check a law: header, syntax, annotations, schema, limits.

    Raises CedarTextError with line and column of the first fault.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise CedarTextError("the text holds half of a surrogate pair: save it as UTF-8", 1, 1) from None
    if size > TEXT_MAX_BYTES:
        raise CedarTextError(f"the text is longer than {TEXT_MAX_BYTES // 1024} KiB", 1, 1)
    header = _read_header(text)
    policies = parse_policies(text)
    if not policies:
        raise CedarTextError("the law has no policy: it would permit and forbid nothing", 1, 1)
    cited: dict[str, PolicyText] = {}
    for policy in policies:
        _check_annotations(header, policy)
        first = cited.setdefault(policy.clause, policy)
        if first is not policy:
            raise CedarTextError(
                f"another policy is cited as {policy.clause}, on line {first.line}: a receipt must name one of them",
                policy.line,
                policy.column,
                clause=policy.clause,
            )
    check_against_schema(text, policies)
    clauses = tuple(Clause(clause=policy.clause, effect=policy.effect, line=policy.line) for policy in policies)
    return LawText(header, clauses, text, text_hash(text))


def _read_header(text: str) -> LawHeader:
    found: dict[str, tuple[str, int]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("//"):
            break
        matched = _HEADER_LINE.fullmatch(stripped)
        if matched is None or matched[1] not in HEADER_FIELDS:
            continue
        if matched[1] in found:
            raise CedarTextError(f"the header has `{matched[1]}` twice", number, 1)
        found[matched[1]] = (matched[2], number)
    missing = [name for name in HEADER_FIELDS if name not in found]
    if missing:
        raise CedarTextError(f"the header lacks `// {missing[0]}:`: put it above the first policy", 1, 1)
    if re.fullmatch(r"[1-9][0-9]{0,5}", found["version"][0], re.ASCII) is None:
        raise CedarTextError("the header's version is no whole number from 1 to 999999", found["version"][1], 1)
    values = {name.replace("-", "_"): value for name, (value, _) in found.items()}
    try:
        return LawHeader.model_validate({**values, "version": int(values["version"])})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).replace("_", "-") if first["loc"] else "jurisdiction"
        reason = first["msg"].removeprefix("Value error, ")
        raise CedarTextError(f"the header's `{name}` is not acceptable: {reason}", found[name][1], 1) from None


def _check_annotations(header: LawHeader, policy: PolicyText) -> None:
    expected = {"law": header.law, "version": str(header.version)}
    for name in ("law", "version", "clause"):
        value = policy.annotations.get(name)
        problem = (
            f'the policy lacks @{name}("...")'
            if not value
            else f'@{name}("{value}") differs from the header\'s `{expected[name]}`'
            if value != expected.get(name, value)
            else ""
        )
        if problem:
            raise CedarTextError(problem, policy.line, policy.column, clause=policy.clause)
    stated = policy.annotations.get("obligations", "")
    try:
        problem = (
            "a forbid obliges to nothing: it cannot have obligations" if stated and policy.effect == "forbid" else ""
        )
        parse_obligations(stated)
    except ObligationError as error:
        problem = str(error)
    if problem:
        raise CedarTextError(problem, policy.line, policy.column, clause=policy.clause)
    if "\\" in policy.clause or len(policy.clause) > 100 or not policy.clause.isprintable():
        raise CedarTextError(
            "a clause is cited in plain characters, at most 100, without escapes", policy.line, policy.column
        )
