"""A request that everything permits, and shorthands to take one thing of it away."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sovchain.contracts.core.engine import Decision, decide
from sovchain.contracts.core.facts import (
    ConsentFacts,
    DecisionInput,
    DelegationLink,
    EmergencyFacts,
    Evidence,
    LawVersion,
    OrganisationFacts,
    Resource,
    Subject,
    WarrantFacts,
)
from sovchain.contracts.core.lawtext import text_hash

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CITY, PROVINCE, NATION = "CN-GZ-520100", "CN-GZ", "CN"
ME, SUBJECT = "1" * 64, "5" * 64


def law(policies: str, place: str = CITY, name: str = "", version: int = 1, **more: Any) -> LawVersion:
    """A law of a place. In `policies`, `@c("x")` stands for the clause's three annotations."""
    name = name or f"L-{place}"
    text = policies.replace("@c(", f'@law("{name}") @version("{version}") @clause(')
    return replace(LawVersion(name, version, place, NOW - 30 * DAY, None, text, text_hash(text)), **more)


PERMIT = '@c("1") permit (principal, action, resource);'
FORBID = '@c("1") forbid (principal, action, resource);'
ANALYST = OrganisationFacts("OrgMSP", CITY, frozenset({"analyst"}), "core", True)


def facts(
    laws: list[LawVersion] | None = None,
    *,
    organisation: dict[str, Any] | None = None,
    subject: dict[str, Any] | None = None,
    resource: dict[str, Any] | None = None,
    evidence: dict[str, Any] | None = None,
    **changes: Any,
) -> DecisionInput:
    """The request, with changes to each of its parts."""
    who = Subject("OrgMSP", ME, replace(ANALYST, **organisation or {}), "analyst", "core")
    what = Resource(
        "2" * 64,
        "OwnerMSP",
        CITY,
        "general",
        frozenset({"CN"}),
        frozenset({"statistics", "marketing", "emergency-response", "supervision"}),
        10,
        columns=("id", "name", "score"),
    )
    base = DecisionInput(
        subject=replace(who, **subject or {}),
        resource=replace(what, **resource or {}),
        action="read",
        purpose="statistics",
        legal_basis="unstated",
        destination=CITY,
        time=NOW,
        channel="finance",
        laws=[law(PERMIT)] if laws is None else laws,
        evidence=Evidence(**evidence or {}),
    )
    return replace(base, **changes)


def answer(*args: Any, **changes: Any) -> Decision:
    """The decision on `facts(...)`."""
    return decide(facts(*args, **changes))


def code(*args: Any, **changes: Any) -> str:
    """The code of the decision on `facts(...)`: empty for a permit."""
    decision = answer(*args, **changes)
    assert (decision.decision == "permit") == (decision.code == "")
    return decision.code


def rules(decision: Decision) -> set[str]:
    """The engine's rules among a decision's reasons."""
    return {reason.rule.removeprefix("engine:") for reason in decision.reasons if reason.rule}


def consent(**changes: Any) -> ConsentFacts:
    """A consent of SUBJECT that covers the request."""
    base = ConsentFacts(SUBJECT, "OrgMSP", frozenset({"statistics"}), None, NOW - DAY, NOW + DAY)
    return replace(base, **changes)


def by_consent(*consents: ConsentFacts, **changes: Any) -> Decision:
    """The decision on personal data of SUBJECT that are asked for by consent."""
    about = {"personal": "personal", "subjects": frozenset({SUBJECT})} | changes.pop("resource", {})
    return answer(legal_basis="consent", resource=about, evidence={"consents": consents}, **changes)


def link(delegator: str, delegate: str, depth: int = 0, **changes: Any) -> DelegationLink:
    """A step of a delegation of the role of carrier, whose delegator has it."""
    base = DelegationLink(delegator, delegate, "carrier", depth, NOW + DAY, False, True, frozenset({"carrier"}))
    return replace(base, **changes)


def by_delegation(*chain: DelegationLink) -> str:
    """The code of a request in a role that the organisation has by delegation only."""
    return code(subject={"role": "carrier", "delegations": chain})


def by_warrant(**changes: Any) -> Decision:
    """The decision on a request that rests on a warrant."""
    base = WarrantFacts("2" * 64, "OrgMSP", "statistics", frozenset({"read"}), True, NOW + DAY, 1, "a" * 64, "b" * 64)
    return answer(legal_basis="warrant", evidence={"warrant": replace(base, **changes)})


def by_emergency(**changes: Any) -> Decision:
    """The decision on a request that rests on a declared emergency."""
    base = EmergencyFacts("2" * 64, "OrgMSP", ME, NOW + DAY)
    emergency = replace(base, **changes)
    return answer(legal_basis="vital-interest", purpose="emergency-response", evidence={"emergency": emergency})
