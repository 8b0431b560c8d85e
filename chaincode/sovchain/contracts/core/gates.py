"""Gates that no law can open: what must hold besides the law's permit, judged on committed facts. Pure.

| gate | code | source |
|---|---|---|
| hold | E_HELD | an order holds the data set or its subject |
| residency | E_RESIDENCY | the entry; requester, destination and every processor must be within it |
| purpose, fields | E_PURPOSE, E_UNKNOWN_WORD | the entry |
| clearance | E_CLEARANCE | the lower of certificate and registry against the class |
| export | E_EXPORT | provisions on cross-border data of 22 March 2024: persons since 1 January; core data never |
| basis | E_BASIS | personal data need one of the bases of PIPL, article 13 |
| consent | E_CONSENT | PIPL, articles 14 to 16 |
| warrant, four eyes | E_WARRANT | issued by another person than asked for it, for this data set, purpose and action |
| emergency | E_EMERGENCY | declared by this identity, within its time of review or justified |
| co-signature | E_COSIGN | the regulator's from class important on; each joint owner's |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from sovchain.contracts.core.codes import (
    DATA_CLASSES,
    PERSONAL_KINDS,
    PURPOSES,
    class_rank,
    is_jurisdiction,
    is_within,
    jurisdiction_path,
)
from sovchain.contracts.core.facts import ConsentFacts, DecisionInput, Resource, Subject

EXPORT_PERSONS_MAX: Final = 1_000_000
"""Persons whose data one exporter may let out of the nation in a calendar year without a security assessment."""
EXPORT_SENSITIVE_MAX: Final = 10_000
"""The same for sensitive personal data."""
AGGREGATE_ROWS_MAX: Final = 1_000_000
"""Rows of personal data that one requester may have from one owner in a calendar year before all of it is important."""
DELEGATIONS_MAX: Final = 3
"""Longest chain of delegations."""

Fault = tuple[str, str, str]
"""A code, the engine's rule, and the detail."""


def gate_faults(request: DecisionInput, places: Mapping[str, str | None]) -> Iterable[Fault]:
    """Everything that stands against a request whatever the law says."""
    resource = request.resource
    if resource is None:
        return
    for order in request.evidence.holds:
        yield "E_HELD", "hold", f"order {order[:16]} holds the data set or a person that it is about"
    yield from _residency(resource, places)
    yield from _entry(request, resource)
    yield from _clearance(request, resource)
    if resource.personal not in PERSONAL_KINDS:
        yield "E_ATTRIBUTE", "personal", "the catalogue entry does not say whether the data are personal"
    yield from _export(request, resource, places)
    yield from _basis(request, resource)
    yield from _warrant(request, resource)
    yield from _emergency(request, resource)


def cosign_faults(request: DecisionInput, wanted_by_law: Iterable[str]) -> Iterable[Fault]:
    """Co-signatures that are missing: what the law's obligations want, and what no law can waive."""
    resource, evidence = request.resource, request.evidence
    if resource is None:
        return
    wanted = {*wanted_by_law, *resource.joint_owners}
    if class_rank(effective_class(request)) >= class_rank("important"):
        wanted.add("regulator")
    for who in sorted(wanted & evidence.cosign_refused):
        yield "E_COSIGN", "cosign-refused", f"{who} refused to co-sign"
    for who in sorted(wanted - evidence.cosigned - evidence.cosign_refused):
        yield "E_COSIGN", "cosign", f"the co-signature of {who} is missing"


def effective_class(request: DecisionInput) -> str | None:
    """The entry's class, raised to important once many small permits add up to a large collection about persons."""
    resource = request.resource
    if resource is None or resource.data_class not in DATA_CLASSES:
        return None
    total = request.evidence.received_rows + resource.rows
    if resource.personal != "none" and total > AGGREGATE_ROWS_MAX and resource.data_class == "general":
        return "important"
    return resource.data_class


def delegation_fault(subject: Subject, at: datetime) -> str | None:
    """Why a chain of delegations does not carry the subject's role to its organisation, None when it does."""
    chain, role = subject.delegations, subject.role
    if not chain:
        return "nobody delegated it"
    members = [chain[0].delegator, *(link.delegate for link in chain)]
    broken = any(link.delegator != before for link, before in zip(chain, members, strict=False))
    for wrong, fault in (
        (broken or members[-1] != subject.msp_id, "the chain of delegations is broken"),
        (len(set(members)) != len(members), "the delegations go in a circle"),
        (len(chain) > DELEGATIONS_MAX, f"the chain is longer than {DELEGATIONS_MAX}"),
        (any(link.role != role for link in chain), "another role was delegated"),
        (role not in chain[0].delegator_roles, f"the registry does not allow {chain[0].delegator!a} it either"),
        (any(link.revoked for link in chain), "a delegation was revoked"),
        (any(at >= link.expires_at for link in chain), "a delegation has expired"),
        (any(not link.delegator_active for link in chain), "a delegator is suspended"),
        (any(link.depth < len(chain) - step for step, link in enumerate(chain, 1)), "it was delegated too deep"),
    ):
        if wrong:
            return fault
    return None


def may_act_as(subject: Subject, at: datetime) -> bool:
    """Whether the registry allows the subject's organisation the role that it claims, or somebody lent it that role."""
    if subject.organisation is not None and subject.role in subject.organisation.roles:
        return True
    return delegation_fault(subject, at) is None


def leaves_the_nation(request: DecisionInput, places: Mapping[str, str | None]) -> bool:
    """Whether the data would go to another nation than that of their place: by requester, destination or a processor."""
    home = request.resource.jurisdiction if request.resource else None
    if home is None or not is_jurisdiction(home):
        return False
    nation = jurisdiction_path(home)[0]
    return any(
        place is not None and not is_within(place, nation)
        for role, place in places.items()
        if role in {"requester", "destination"} or role.startswith("processor")
    )


def is_counted_export(request: DecisionInput, places: Mapping[str, str | None]) -> bool:
    """Whether persons count towards the owner's year: personal data that did not come from abroad leave the nation."""
    resource = request.resource
    if resource is None or resource.personal not in {"personal", "sensitive"}:
        return False
    home = resource.jurisdiction
    foreign = resource.origin is not None and (home is None or not is_within(resource.origin, home.split("-")[0]))
    return not foreign and leaves_the_nation(request, places)


def _residency(resource: Resource, places: Mapping[str, str | None]) -> Iterable[Fault]:
    for role, place in places.items():
        if role != "requester" and role != "destination" and not role.startswith("processor"):
            continue
        if place is not None and not any(is_within(place, region) for region in resource.residency):
            allowed = ", ".join(sorted(resource.residency)) or "nowhere"
            yield "E_RESIDENCY", "residency", f"the {role} is in {place}, the data set may be in {allowed}"


def _entry(request: DecisionInput, resource: Resource) -> Iterable[Fault]:
    if request.purpose in PURPOSES and request.purpose not in resource.purposes:
        yield "E_PURPOSE", "purpose-limit", f"the catalogue entry does not offer the data for {request.purpose}"
    for name in sorted(set(request.fields or ()) - set(resource.columns)):
        yield "E_UNKNOWN_WORD", "unknown-field", f"the catalogue entry has no column {ascii(name)[:60]}"


def _clearance(request: DecisionInput, resource: Resource) -> Iterable[Fault]:
    organisation, data_class = request.subject.organisation, effective_class(request)
    if organisation is None or data_class is None:
        return
    held = min(class_rank(request.subject.clearance), class_rank(organisation.clearance))
    if held < class_rank(data_class):
        have = DATA_CLASSES[held] if held >= 0 else "none"
        grown = "" if data_class == resource.data_class else " together with what was received before"
        yield "E_CLEARANCE", "clearance", f"the data are {data_class}{grown}, the clearance is {have}"


def _export(request: DecisionInput, resource: Resource, places: Mapping[str, str | None]) -> Iterable[Fault]:
    if resource.data_class == "core" and leaves_the_nation(request, places):
        yield "E_EXPORT", "export-core", "core data do not leave the nation"
    if not is_counted_export(request, places):
        return
    evidence = request.evidence
    for kind, before, limit in (
        ("personal", evidence.exported_persons, EXPORT_PERSONS_MAX),
        ("sensitive", evidence.exported_sensitive, EXPORT_SENSITIVE_MAX),
    ):
        adds = resource.rows if kind == "personal" or resource.personal == "sensitive" else 0
        if adds and before + adds > limit:
            detail = f"{before + adds} persons since 1 January, {limit} may be without a security assessment"
            yield "E_EXPORT", f"export-{kind}", detail


def _basis(request: DecisionInput, resource: Resource) -> Iterable[Fault]:
    if resource.personal == "none" or request.evidence.own_data:
        return
    if request.legal_basis == "unstated":
        yield "E_BASIS", "legal-basis", "personal data are asked for without a legal basis"
    if request.legal_basis != "consent":
        return
    if not resource.subjects:
        yield "E_CONSENT", "consent", "the catalogue entry names no person whose consent could be checked"
    for subject in sorted(resource.subjects):
        if not any(_covers(consent, request, subject) for consent in request.evidence.consents):
            yield "E_CONSENT", "consent", f"no consent of {subject[:16]} covers this grantee, purpose, fields and time"


def _covers(consent: ConsentFacts, request: DecisionInput, subject: str) -> bool:
    resource = request.resource
    assert resource is not None  # the caller has one
    asked = set(resource.columns if request.fields is None else request.fields)
    return (
        consent.subject == subject
        and consent.grantee == request.subject.msp_id
        and request.purpose in consent.purposes
        and (consent.fields is None or asked <= consent.fields)
        and consent.valid_from <= request.time < consent.valid_until
        and not consent.revoked
        and (consent.authority_until is None or request.time < consent.authority_until)
    )


def _warrant(request: DecisionInput, resource: Resource) -> Iterable[Fault]:
    if request.legal_basis != "warrant":
        return
    warrant = request.evidence.warrant
    if warrant is None:
        yield "E_WARRANT", "warrant", "the request refers to no warrant on record"
        return
    persons = (warrant.requester_person, warrant.issuer_person)
    for wrong, fault in (
        (not warrant.issued, "no judge has issued it"),
        (warrant.dataset != resource.id, "it is for another data set"),
        (warrant.grantee != request.subject.msp_id, "it is for another organisation"),
        (warrant.purpose != request.purpose or request.action not in warrant.actions, "it is for another use"),
        (request.time >= warrant.expires_at, "it has expired"),
        (warrant.uses_left < 1, "it is used up"),
        (None in persons or persons[0] == persons[1], "who asked for it and who issued it are not surely two persons"),
    ):
        if wrong:
            yield "E_WARRANT", "warrant", fault


def _emergency(request: DecisionInput, resource: Resource) -> Iterable[Fault]:
    if request.legal_basis != "vital-interest" and request.purpose != "emergency-response":
        return
    emergency = request.evidence.emergency
    if emergency is None:
        yield "E_EMERGENCY", "emergency", "the request refers to no declared emergency"
        return
    for wrong, fault in (
        (emergency.dataset != resource.id, "it is for another data set"),
        (
            (emergency.grantee, emergency.identity) != (request.subject.msp_id, request.subject.identity),
            "somebody else declared it",
        ),
        (emergency.review == "abuse", "its review found abuse"),
        (emergency.review is None and request.time >= emergency.review_by, "it was not reviewed in time"),
    ):
        if wrong:
            yield "E_EMERGENCY", "emergency", fault
