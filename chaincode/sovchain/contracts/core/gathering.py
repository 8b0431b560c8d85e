"""What a decision depends on, read from committed public state: the one way in which contract and auditor come to it.

Each read is a point or a whole prefix, so that it stands in the transaction's read set: a consent that is revoked, a hold that
is placed or a counter that rises in the same block makes the decision conflict (MVCC), never pass unseen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from sovchain.contracts.core import store
from sovchain.contracts.core.codes import is_jurisdiction, jurisdiction_path
from sovchain.contracts.core.engine import laws_in_force
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
from sovchain.contracts.core.gates import DELEGATIONS_MAX
from sovchain.contracts.core.lawreview import law_version
from sovchain.contracts.core.lineage import ancestors, out_of_circulation
from sovchain.contracts.core.order_records import (
    Consent,
    Cosignature,
    Delegation,
    Emergency,
    Tally,
    Usage,
    Wallet,
    Warrant,
)
from sovchain.contracts.core.records import (
    DataSet,
    EnactedLaw,
    LawBody,
    Period,
    RegisteredOrganisation,
    Request,
    SuspendedIdentity,
    format_time,
)
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import suspended_place
from sovchain.contracts.core.standing import holds_on, latest_emergency, suspends
from sovchain.contracts.core.store import StateView

_MISSING_TEXT = "the text is not in state"  # no Cedar, so that a law without its text denies


async def gather(view: StateView, request: Request, *, timestamp: datetime, channel: str) -> DecisionInput:
    """Read what a decision on `request` depends on from committed public state.

    Raises ContractError E_TIME when `timestamp` lies before a record that it reads: a decision cannot be back-dated to
    before the facts that it rests on.
    """
    reader = _Reader(view, request, timestamp)
    subject, home = await reader.subject()
    dataset = await store.read(view, DataSet, store.DATASET, request.dataset)
    destination = request.destination if request.destination is not None else home
    processors = request.processors or ()
    resource = await reader.resource(dataset) if dataset is not None else None
    places = {home, destination, *processors}
    if resource is not None:
        places |= {resource.jurisdiction, *resource.joint_places}
    enacted = await _enacted_on_paths(view, {place for place in places if place is not None and is_jurisdiction(place)})
    reader.moments += [law.enacted_at for law in enacted]
    evidence = await reader.evidence(dataset)
    _check_not_back_dated(timestamp, reader.moments)
    return DecisionInput(
        subject=subject,
        resource=resource,
        action=request.action,
        purpose=request.purpose,
        legal_basis=request.legal_basis,
        destination=destination,
        time=timestamp,
        channel=channel,
        laws=await _with_texts(view, laws_in_force((law_version(law) for law in enacted), timestamp)),
        fields=request.fields,
        processors=processors,
        rows=request.rows,
        evidence=evidence,
    )


async def consents_on(view: StateView, subjects: Iterable[str]) -> tuple[list[ConsentFacts], list[datetime]]:
    """The consents of persons as facts, and the moments of what they rest on. Death ends what the living allowed."""
    found, moments = [], []
    for subject in subjects:
        wallet = await store.read(view, Wallet, store.WALLET, subject)
        died_at = wallet.died_at if wallet is not None else None
        moments += [wallet.changed_at] if wallet is not None else []
        for consent in await store.scan(view, Consent, store.CONSENT, subject):
            ends = [consent.authority_until, died_at if consent.given_by != "heir" else None]
            found.append(
                ConsentFacts(
                    subject=subject,
                    grantee=consent.terms.grantee,
                    purposes=frozenset(consent.terms.purposes),
                    fields=None if consent.terms.fields is None else frozenset(consent.terms.fields),
                    valid_from=consent.terms.valid_from,
                    valid_until=consent.terms.valid_until,
                    revoked=consent.revoked_at is not None,
                    authority_until=min((end for end in ends if end is not None), default=None),
                )
            )
            moments.append(consent.revoked_at or consent.given_at)
    return found, moments


class _Reader:
    """One request's facts. `moments` are the times of the records read: no decision is dated before one of them."""

    def __init__(self, view: StateView, request: Request, at: datetime) -> None:
        self._view, self._request, self._at = view, request, at
        self.moments = [request.filed_at]

    async def subject(self) -> tuple[Subject, str | None]:
        request, view = self._request, self._view
        entry = await self._organisation(request.msp_id)
        suspended = await store.read(
            view, SuspendedIdentity, store.SUSPENDED_IDENTITY, request.msp_id, request.identity
        )
        emergency = await latest_emergency(view, request.msp_id, request.identity)
        self.moments += [suspended.suspended_at] if suspended else []
        self.moments += [emergency.reviewed_at or emergency.declared_at] if emergency else []
        facts = await self._facts(entry)
        lacks = facts is not None and request.role is not None and request.role not in facts.roles
        subject = Subject(
            msp_id=request.msp_id,
            identity=request.identity,
            organisation=facts,
            role=request.role,
            clearance=request.clearance,
            identity_suspended=suspended is not None or suspends(emergency, self._at),
            delegations=await self._delegations(request.msp_id, str(request.role)) if lacks else (),
        )
        return subject, facts.jurisdiction if facts else None

    async def _organisation(self, msp_id: str) -> RegisteredOrganisation | None:
        entry = await store.read(self._view, RegisteredOrganisation, store.ORGANISATION, msp_id)
        self.moments += [entry.changed_at] if entry else []
        return entry

    async def _facts(self, entry: RegisteredOrganisation | None) -> OrganisationFacts | None:
        if entry is None:
            return None
        organisation = entry.organisation
        place = await suspended_place(self._view, organisation.jurisdiction)
        self.moments += [place.changed_at] if place else []
        return OrganisationFacts(
            msp_id=organisation.msp_id,
            jurisdiction=organisation.jurisdiction,
            roles=frozenset(organisation.roles),
            clearance=organisation.clearance,
            active=entry.status == "active" and place is None,
        )

    async def _delegations(self, msp_id: str, role: str) -> tuple[DelegationLink, ...]:
        """The chain that leads to an organisation, root first, one step longer than may be at most."""
        chain: list[DelegationLink] = []
        while len(chain) <= DELEGATIONS_MAX:
            found = await store.read(self._view, Delegation, store.DELEGATION, msp_id, role)
            if found is None:
                break
            delegator = await self._facts(await self._organisation(found.delegator))
            roles = delegator.roles if delegator else frozenset[str]()
            self.moments.append(found.revoked_at or found.delegated_at)
            chain.append(
                DelegationLink(
                    delegator=found.delegator,
                    delegate=found.delegate,
                    role=found.role,
                    depth=found.depth,
                    expires_at=found.expires_at,
                    revoked=found.revoked_at is not None,
                    delegator_active=delegator is not None and delegator.active,
                    delegator_roles=roles,
                )
            )
            if role in roles:
                break
            msp_id = found.delegator
        return tuple(reversed(chain))

    async def resource(self, dataset: DataSet) -> Resource:
        entry = dataset.entry
        self.moments.append(dataset.changed_at)
        sources = await ancestors(self._view, entry.sources)
        self.moments += [source.changed_at for source in sources]
        joint = [await self._facts(await self._organisation(owner)) for owner in entry.joint_owners]
        return Resource(
            id=dataset.id,
            owner=dataset.owner,
            jurisdiction=entry.jurisdiction,
            data_class=entry.data_class,
            residency=frozenset(entry.residency),
            purposes=frozenset(entry.purposes),
            rows=entry.rows,
            published=dataset.state == "published",
            columns=tuple(column.name for column in entry.columns),
            personal=entry.personal,
            subjects=frozenset(dataset.subjects),
            origin=entry.origin,
            joint_owners=frozenset(entry.joint_owners),
            joint_places=tuple(facts.jurisdiction if facts else None for facts in joint),
            withdrawn_source=out_of_circulation(sources),
        )

    async def evidence(self, dataset: DataSet | None) -> Evidence:
        request, view = self._request, self._view
        subjects = dataset.subjects if dataset else ()
        holds = await holds_on(view, request.dataset, *subjects)
        signatures = await store.scan(view, Cosignature, store.COSIGNATURE, request.id)
        self.moments += [hold.placed_at for hold in holds] + [one.signed_at for one in signatures]
        consents: list[ConsentFacts] = []
        if request.legal_basis == "consent":
            consents, moments = await consents_on(view, subjects)
            self.moments += moments
        tallies = await self._tallies(dataset)
        return Evidence(
            holds=tuple(hold.id for hold in holds),
            cosigned=frozenset(one.who for one in signatures if one.approve),
            cosign_refused=frozenset(one.who for one in signatures if not one.approve),
            consents=tuple(consents),
            own_data=await self._own_data(subjects),
            warrant=await self._warrant() if request.legal_basis == "warrant" else None,
            emergency=await self._emergency(),
            exported_persons=tallies[0].persons,
            exported_sensitive=tallies[0].sensitive,
            received_rows=tallies[1].rows,
            used_rows=await self._used_rows(),
        )

    async def _own_data(self, subjects: tuple[str, ...]) -> bool:
        if len(subjects) != 1:
            return False
        wallet = await store.read(self._view, Wallet, store.WALLET, subjects[0])
        request = self._request
        return wallet is not None and (wallet.msp_id, wallet.identity) == (request.msp_id, request.identity)

    async def _warrant(self) -> WarrantFacts | None:
        if self._request.reference is None:
            return None
        found = await store.read(self._view, Warrant, store.WARRANT, self._request.reference)
        if found is None:
            return None
        self.moments.append(found.issued_at or found.requested_at)
        return WarrantFacts(
            dataset=found.dataset,
            grantee=found.grantee,
            purpose=found.purpose,
            actions=frozenset(found.actions),
            issued=found.issued_at is not None,
            expires_at=found.expires_at or found.requested_at,
            uses_left=found.uses_max - found.used,
            requester_person=found.requester_person,
            issuer_person=found.issuer_person,
        )

    async def _emergency(self) -> EmergencyFacts | None:
        if self._request.reference is None or self._request.legal_basis == "warrant":
            return None
        found = await store.read(self._view, Emergency, store.EMERGENCY, self._request.reference)
        if found is None:
            return None
        self.moments.append(found.reviewed_at or found.declared_at)
        return EmergencyFacts(
            dataset=found.dataset,
            grantee=found.msp_id,
            identity=found.identity,
            review_by=found.review_by,
            review=found.review,
        )

    async def _used_rows(self) -> dict[Period, int]:
        request = self._request
        usage = await store.read(self._view, Usage, store.USAGE, request.dataset, request.msp_id)
        return usage.rows(usage_day(self._at)) if usage is not None else {}

    async def _tallies(self, dataset: DataSet | None) -> tuple[Tally, Tally]:
        """The owner's exports and the requester's receipts of this year; read for personal data only."""
        if dataset is None or dataset.entry.personal == "none":
            return Tally(), Tally()
        year = tally_year(self._at)
        exported = await store.read(self._view, Tally, store.EXPORTED, dataset.owner, year)
        received = await store.read(self._view, Tally, store.RECEIVED, self._request.msp_id, dataset.owner, year)
        return exported or Tally(), received or Tally()


def tally_year(at: datetime) -> str:
    """The calendar year (UTC) that a permit counts in."""
    return f"{at.astimezone(UTC).year:04d}"


def usage_day(at: datetime) -> str:
    """The calendar day (UTC) that a quota counts on."""
    return at.astimezone(UTC).date().isoformat()


async def _enacted_on_paths(view: StateView, places: Iterable[str]) -> list[EnactedLaw]:
    nodes = sorted({node for place in places for node in jurisdiction_path(place)})
    return [law for node in nodes for law in await store.scan(view, EnactedLaw, store.ENACTED, node)]


async def _with_texts(view: StateView, laws: Iterable[LawVersion]) -> tuple[LawVersion, ...]:
    found = []
    for law in laws:
        body = await store.read(view, LawBody, store.LAW_TEXT, law.text_hash)
        found.append(replace(law, text=body.text if body else _MISSING_TEXT))
    return tuple(found)


def _check_not_back_dated(timestamp: datetime, facts: Iterable[datetime]) -> None:
    newest = max(facts)
    if timestamp < newest:
        raise refusal(
            "E_TIME",
            f"the transaction is dated {format_time(timestamp)}, a record that it rests on {format_time(newest)}",
            "a decision cannot be back-dated",
            "check the client's clock and decide again",
            newest=format_time(newest),
        )
