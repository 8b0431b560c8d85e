"""What the engine must answer, said a second time: without Cedar, codes or reasons, and with nothing of the engine's own.

`specified` answers a request on laws in an abstract form; `Fuzz` draws requests with everything that can be wrong with them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from typing import Any

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

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PLACES = ("CN", "CN-GZ", "CN-GZ-520100", "CN-GD", "SG")
ACTIONS = ("read", "export")
PURPOSES = ("statistics", "marketing", "emergency-response")
RANK = {"general": 0, "important": 1, "core": 2}
COLUMNS = ("id", "name", "score")
ME, PERSON = "1" * 64, "5" * 64


@dataclass(frozen=True)
class Rule:
    """One policy, in words that both Cedar and the specification can be made of."""

    effect: str
    action: str | None = None
    purpose: str | None = None
    fails: bool = False
    mask: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    report_days: int = 0
    cosign: bool = False
    unknown: bool = False

    def cedar(self, law: str, number: int) -> str:
        """The policy in Cedar."""
        action = f'action == Action::"{self.action}"' if self.action else "action"
        conditions = [f'context.purpose == Purpose::"{self.purpose}"'] if self.purpose else []
        conditions += ["resource.nosuch == 1"] if self.fails else []
        stated = [f"mask({', '.join(self.mask)})"] if self.mask else []
        stated += [f"fields({', '.join(self.only)})"] if self.only else []
        stated += [f"report(P{self.report_days}D)"] if self.report_days else []
        stated += ["cosign(regulator)"] if self.cosign else []
        stated += ["forget(P1D)"] if self.unknown else []
        noted = f' @obligations("{"; ".join(stated)}")' if stated else ""
        when = f" when {{ {' && '.join(conditions)} }}" if conditions else ""
        cited = f'@law("{law}") @version("1") @clause("art. {number}"){noted}'
        return f"{cited}\n{self.effect} (principal, {action}, resource){when};\n"


AbstractLaw = tuple[str, tuple[Rule, ...]]


def in_cedar(laws: list[AbstractLaw], *, first: int = 0) -> list[LawVersion]:
    """Abstract laws as the engine takes them, all in force."""
    found = []
    for number, (place, rules) in enumerate(laws, first):
        text = "".join(rule.cedar(f"L-{number}", clause) for clause, rule in enumerate(rules, 1))
        digest = hashlib.sha256(text.encode()).hexdigest()
        found.append(LawVersion(f"L-{number}", 1, place, NOW - 30 * DAY, None, text, digest))
    return found


def _path(place: str | None) -> list[str] | None:
    if place not in PLACES:
        return None
    parts = place.split("-")
    return ["-".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _lent(subject: Subject, at: datetime) -> bool:
    """Whether a role came to an organisation by an unbroken, short, living chain from someone who has it."""
    chain = subject.delegations
    if not 1 <= len(chain) <= 3 or subject.role not in chain[0].delegator_roles:
        return False
    reached = [chain[0].delegator]
    for step, one in enumerate(chain):
        left = len(chain) - 1 - step
        sound = one.delegator == reached[-1] and one.role == subject.role and one.depth >= left
        if not sound or one.revoked or not one.delegator_active or at >= one.expires_at or one.delegate in reached:
            return False
        reached.append(one.delegate)
    return reached[-1] == subject.msp_id


def specified(case: DecisionInput, laws: list[AbstractLaw]) -> tuple[Any, ...] | None:
    """None for a denial; for a permit the columns (None: all) and the days to report within (0: no duty)."""
    subject, resource, evidence = case.subject, case.resource, case.evidence
    organisation = subject.organisation
    if organisation is None or resource is None or organisation.msp_id != subject.msp_id:
        return None
    going = [organisation.jurisdiction, case.destination, *case.processors]
    paths = [_path(place) for place in (resource.jurisdiction, *going, *resource.joint_places)]
    if any(path is None for path in paths):
        return None
    known = [path for path in paths if path is not None]
    asked = {place for path in known for place in path}
    if case.action not in ACTIONS or case.purpose not in PURPOSES:
        return None
    applying = [
        (place, rule)
        for place, rules in laws
        if place in asked
        for rule in rules
        if rule.action in (None, case.action) and rule.purpose in (None, case.purpose)
    ]
    if any(rule.fails or rule.effect == "forbid" for _, rule in applying):
        return None
    speaking = {p for p, rules in laws for r in rules if r.effect == "permit" and r.action in (None, case.action)}
    permitting = {place for place, _ in applying}
    for path in known:
        levels = speaking & set(path)
        if not levels or not levels <= permitting:
            return None
    granted = [rule for _, rule in applying]
    if any(rule.unknown for rule in granted) or not _open(case, resource, organisation, going):
        return None
    columns = [
        name
        for name in COLUMNS
        if (case.fields is None or name in case.fields)
        and all(name not in rule.mask and (not rule.only or name in rule.only) for rule in granted)
    ]
    narrowed = case.fields is not None or any(rule.mask or rule.only for rule in granted)
    if narrowed and not columns:
        return None
    wanted = set(resource.joint_owners)
    if any(rule.cosign for rule in granted) or RANK[_class(case, resource)] >= 1:
        wanted.add("regulator")
    if not wanted <= evidence.cosigned or wanted & evidence.cosign_refused:
        return None
    days = min((rule.report_days for rule in granted if rule.report_days), default=0)
    return (tuple(columns) if narrowed else None), days


def _class(case: DecisionInput, resource: Resource) -> str:
    grown = resource.personal != "none" and case.evidence.received_rows + resource.rows > 1_000_000
    stated = str(resource.data_class)
    return "important" if grown and stated == "general" else stated


def _open(case: DecisionInput, resource: Resource, organisation: OrganisationFacts, going: list[str | None]) -> bool:
    """Everything besides law, columns and co-signatures."""
    subject, evidence = case.subject, case.evidence
    if resource.data_class not in RANK or subject.clearance not in RANK or organisation.clearance not in RANK:
        return False
    if resource.personal not in ("none", "personal", "sensitive"):
        return False
    held = min(RANK[str(subject.clearance)], RANK[str(organisation.clearance)])
    inside = all(set(_path(place) or ()) & resource.residency for place in going)
    out = any(not str(place).startswith("CN") for place in going) and str(resource.jurisdiction).startswith("CN")
    out |= any(place != "SG" for place in going) and resource.jurisdiction == "SG"
    return (
        organisation.active
        and not subject.identity_suspended
        and subject.role is not None
        and (subject.role in organisation.roles or _lent(subject, case.time))
        and resource.published
        and not evidence.holds
        and case.purpose in resource.purposes
        and set(case.fields or ()) <= set(COLUMNS)
        and held >= RANK[_class(case, resource)]
        and inside
        and not (resource.data_class == "core" and out)
        and _countable(resource, evidence, out)
        and _based(case, resource)
    )


def _countable(resource: Resource, evidence: Evidence, out: bool) -> bool:
    nation = str(resource.jurisdiction)[:2]
    if not out or resource.personal == "none" or (resource.origin is not None and resource.origin[:2] != nation):
        return True
    if evidence.exported_persons + resource.rows > 1_000_000:
        return False
    return resource.personal != "sensitive" or evidence.exported_sensitive + resource.rows <= 10_000


def _based(case: DecisionInput, resource: Resource) -> bool:
    evidence, basis = case.evidence, case.legal_basis
    if basis not in ("unstated", "contract", "consent", "warrant", "vital-interest"):
        return False
    if resource.personal != "none" and not evidence.own_data:
        if basis == "unstated":
            return False
        if basis == "consent" and not (
            resource.subjects and all(_consents(case, resource, subject) for subject in resource.subjects)
        ):
            return False
    warrant, emergency = evidence.warrant, evidence.emergency
    if basis == "warrant" and not (
        warrant is not None
        and warrant.issued
        and (warrant.dataset, warrant.grantee, warrant.purpose) == (resource.id, case.subject.msp_id, case.purpose)
        and case.action in warrant.actions
        and case.time < warrant.expires_at
        and warrant.uses_left > 0
        and warrant.requester_person not in (None, warrant.issuer_person)
        and warrant.issuer_person is not None
    ):
        return False
    if basis != "vital-interest" and case.purpose != "emergency-response":
        return True
    return (
        emergency is not None
        and (emergency.dataset, emergency.grantee, emergency.identity) == (resource.id, case.subject.msp_id, ME)
        and (emergency.review == "justified" or (emergency.review is None and case.time < emergency.review_by))
    )


def _consents(case: DecisionInput, resource: Resource, subject: str) -> bool:
    asked = set(COLUMNS if case.fields is None else case.fields)
    return any(
        one.subject == subject
        and one.grantee == case.subject.msp_id
        and case.purpose in one.purposes
        and (one.fields is None or asked <= one.fields)
        and one.valid_from <= case.time < one.valid_until
        and not one.revoked
        and (one.authority_until is None or case.time < one.authority_until)
        for one in case.evidence.consents
    )


class Fuzz:
    """Draws requests, mostly almost good ones: each fact is wrong now and then."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def pick(self, good: Any, *bad: Any, often: int = 12) -> Any:
        """The good value, or now and then another one."""
        return good if self.random.randrange(often) else self.random.choice(bad)

    def rule(self, effect: str | None = None) -> Rule:
        """A rule that mostly permits."""
        one = self.pick
        return Rule(
            effect or one("permit", "forbid", often=8),
            one(None, *ACTIONS, often=3),
            one(None, *PURPOSES, often=3),
            one(False, True, often=25),
            one((), ("name",), ("id", "score"), often=5),
            one((), ("id",), ("id", "name"), often=6),
            one(0, 10, 30, often=4),
            one(False, True, often=12),
            one(False, True, often=40),
        )

    def laws(self) -> list[AbstractLaw]:
        """A law set whose nation mostly permits."""
        base: list[AbstractLaw] = [("CN", (Rule("permit"),)), ("SG", (Rule("permit"),))]
        places = [self.random.choice(PLACES) for _ in range(self.random.randrange(4))]
        more = [(place, tuple(self.rule() for _ in range(self.random.randint(1, 3)))) for place in places]
        return (base if self.random.randrange(6) else []) + more

    def case(self, laws: list[LawVersion]) -> DecisionInput:
        """A request under these laws."""
        one = self.pick
        basis = one("contract", "unstated", "consent", "warrant", "vital-interest", "because", often=2)
        return DecisionInput(
            subject=self.subject(),
            resource=one(self.resource(), None, often=60),
            action=one("read", "export", "steal", None, often=6),
            purpose=one("statistics", "marketing", "emergency-response", "gossip", None, often=5),
            legal_basis=basis,
            destination=one("CN-GZ-520100", "SG", "CN-GD", None, "cn", often=5),
            time=NOW,
            channel="finance",
            laws=laws,
            fields=one(None, ("id",), ("name",), ("id", "score"), ("secret",), often=3),
            processors=one((), ("CN-GD",), ("SG",), ("XX",), often=6),
            evidence=self.evidence(),
        )

    def subject(self) -> Subject:
        """Somebody."""
        one = self.pick
        organisation = OrganisationFacts(
            one("OrgMSP", "OtherMSP", often=60),
            one("CN-GZ-520100", "SG", "CN-GD", None, "CN-GΖ", often=8),
            one(frozenset({"analyst"}), frozenset()),
            one("core", "important", "general", None, often=5),
            one(True, False, often=20),
        )
        return Subject(
            "OrgMSP",
            ME,
            one(organisation, None, often=40),
            one("analyst", "carrier", "carrier", "carrier", None, often=4),
            one("core", "important", "general", None, often=5),
            one(False, True, often=30),
            self.chain(),
        )

    def chain(self) -> tuple[DelegationLink, ...]:
        """A chain that leads to the organisation, mostly."""
        one, count = self.pick, self.random.randrange(5)
        members = [f"D{number}MSP" for number in range(count)] + ["OrgMSP"]
        if count > 1:
            members[0] = one(members[0], "OrgMSP", members[1])
        return tuple(
            DelegationLink(
                one(delegator, "XMSP", often=40),
                delegate,
                one("carrier", "analyst", often=30),
                one(count - 1 - step, 0, 3, often=6),
                one(NOW + DAY, NOW, NOW - DAY, often=20),
                one(False, True, often=25),
                one(True, False, often=25),
                one(frozenset({"carrier"}), frozenset(), often=12),
            )
            for step, (delegator, delegate) in enumerate(pairwise(members))
        )

    def resource(self) -> Resource:
        """A data set."""
        one = self.pick
        return Resource(
            "2" * 64,
            "OwnerMSP",
            one("CN-GZ-520100", "SG", None, often=15),
            one("general", "important", "core", None, often=3),
            one(frozenset({"CN", "SG"}), frozenset({"CN"}), frozenset(), frozenset({"CN-G"}), often=5),
            one(frozenset(PURPOSES), frozenset({"statistics"}), frozenset()),
            one(10, 10_000, 10_001, 1_000_000, 1_000_001, often=3),
            one(True, False, often=20),
            COLUMNS,
            one("none", "personal", "sensitive", "sensitive", None, often=2),
            one(frozenset({PERSON}), frozenset(), frozenset({PERSON, "6" * 64}), often=4),
            one(None, "SG", "CN-GD", often=4),
            one(frozenset(), frozenset({"PartnerMSP"}), often=10),
            one((), ("CN-GD",), ("SG",), (None,), often=12),
        )

    def evidence(self) -> Evidence:
        """What is on record, mostly enough."""
        one = self.pick
        both = frozenset({"regulator", "PartnerMSP"})
        return Evidence(
            holds=one((), ("7" * 64,), often=20),
            cosigned=one(both, frozenset(), frozenset({"regulator"}), frozenset({"PartnerMSP"}), often=3),
            cosign_refused=one(frozenset(), frozenset({"regulator"}), frozenset({"PartnerMSP"}), often=15),
            consents=tuple(self.consent() for _ in range(self.random.randrange(3))),
            own_data=one(False, True, often=10),
            warrant=one(self.warrant(), None, often=8),
            emergency=one(self.emergency(), None, often=8),
            exported_persons=one(0, 999_990, 999_991, often=3),
            exported_sensitive=one(0, 9_990, 9_991, often=3),
            received_rows=one(0, 999_990, 999_991, often=4),
        )

    def consent(self) -> ConsentFacts:
        """A consent that mostly covers."""
        one = self.pick
        return ConsentFacts(
            one(PERSON, "6" * 64, often=4),
            one("OrgMSP", "OtherMSP"),
            one(frozenset(PURPOSES), frozenset({"marketing"})),
            one(None, frozenset({"id"}), frozenset({"id", "score"}), often=4),
            one(NOW, NOW - DAY, NOW + DAY, often=3),
            one(NOW + DAY, NOW, NOW - DAY),
            one(False, True),
            one(None, NOW, NOW + DAY, often=4),
        )

    def warrant(self) -> WarrantFacts:
        """A warrant that mostly covers."""
        one = self.pick
        return WarrantFacts(
            one("2" * 64, "3" * 64),
            one("OrgMSP", "OtherMSP"),
            one("statistics", "marketing"),
            one(frozenset(ACTIONS), frozenset({"export"}), frozenset()),
            one(True, False),
            one(NOW + DAY, NOW),
            one(1, 0, -1),
            one("a" * 64, "b" * 64, None),
            one("b" * 64, None),
        )

    def emergency(self) -> EmergencyFacts:
        """An emergency that mostly carries."""
        one = self.pick
        return EmergencyFacts(
            one("2" * 64, "3" * 64),
            one("OrgMSP", "OtherMSP"),
            one(ME, "9" * 64),
            one(NOW + DAY, NOW, often=4),
            one(None, "justified", "abuse", often=3),
        )

    def weaker(self, case: DecisionInput) -> DecisionInput:
        """The same request with one fact missing."""
        subject, resource, organisation = case.subject, case.resource, case.subject.organisation
        options: list[DecisionInput] = [
            replace(case, purpose=None),
            replace(case, action=None),
            replace(case, destination=None),
            replace(case, legal_basis=None),
            replace(case, subject=replace(subject, role=None)),
            replace(case, subject=replace(subject, clearance=None)),
            replace(case, subject=replace(subject, organisation=None)),
            replace(case, evidence=Evidence(holds=case.evidence.holds, exported_persons=case.evidence.exported_persons,
                                            exported_sensitive=case.evidence.exported_sensitive,
                                            received_rows=case.evidence.received_rows,
                                            cosign_refused=case.evidence.cosign_refused)),
        ]  # fmt: skip
        if organisation is not None:
            options += [
                replace(case, subject=replace(subject, organisation=replace(organisation, jurisdiction=None))),
                replace(
                    case,
                    subject=replace(subject, organisation=replace(organisation, roles=frozenset()), delegations=()),
                ),
                replace(case, subject=replace(subject, organisation=replace(organisation, clearance=None))),
            ]
        if resource is not None:
            options += [
                replace(case, resource=None),
                replace(case, resource=replace(resource, data_class=None)),
                replace(case, resource=replace(resource, jurisdiction=None)),
                replace(case, resource=replace(resource, personal=None)),
                replace(case, resource=replace(resource, residency=frozenset())),
                replace(case, resource=replace(resource, purposes=frozenset())),
            ]
        return self.random.choice(options)
