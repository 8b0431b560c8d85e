"""The wrapper that a program works with: one object for one channel, seen by one identity."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from sovchain.client import Network
from sovchain.contracts.core import Calendars, Crossing, Laws, Receipts, Registry, Sharing
from sovchain.contracts.core.calendar import Calendar
from sovchain.contracts.core.cedartext import TEXT_MAX_BYTES, CedarTextError
from sovchain.contracts.core.codes import ACTIONS, DATA_CLASSES, LEGAL_BASES, PURPOSES, is_jurisdiction
from sovchain.contracts.core.crossing_records import Anchor, AnchorStatement
from sovchain.contracts.core.lawtext import LawText, read_law
from sovchain.contracts.core.projection import (
    Grant,
    Projection,
    ProjectionError,
    check_projection,
    encode_projection,
    project,
    read_projection,
    table_root,
)
from sovchain.contracts.core.records import (
    SALT_BYTES,
    Access,
    AccessFilter,
    BallotView,
    DataSet,
    LawFinding,
    LawView,
    Organisation,
    Publication,
    Receipt,
    RegisteredOrganisation,
    Request,
    RowRule,
    parse_time,
)
from sovchain.contracts.core.sealing import KEY_BYTES, unseal
from sovchain.sovereign.calls import Calls, all_pages, committed
from sovchain.sovereign.datafile import DataFile, read_data_file, read_table, read_text_file, write_table
from sovchain.sovereign.errors import ContractRefusal, IntegrityError, InvalidInput, LawTextError, UnknownWord
from sovchain.sovereign.results import (
    About,
    Acknowledged,
    Answer,
    Committed,
    Filed,
    Proposed,
    ProposedLaw,
    Released,
    Shared,
    Voted,
)

_VOTES: Final = {
    "admission": Registry.vote,
    "law": Laws.vote,
    "repeal": Laws.vote,
    "anchor": Crossing.vote,
    "calendar": Calendars.vote,
}


class Sovereign:
    """Law, registry and sharing on one channel, as the identity behind `network` may use them.

    `chaincode` is the name of the channel's chaincode, by default the channel's own name. Besides what a method names it
    may raise `ContractRefusal`, `InvalidInput` for a malformed id, and the client's `FabricError`s.
    """

    def __init__(self, network: Network, chaincode: str | None = None) -> None:
        self._network = network
        self._calls = Calls(network.contract(chaincode or network.name))
        self._msp_id = network.identity.msp_id
        self._channel = network.name

    @property
    def msp_id(self) -> str:
        """The organisation on whose behalf this object acts."""
        return self._msp_id

    @property
    def channel(self) -> str:
        """The channel that this object works on."""
        return self._channel

    async def reached(self, committed: Committed, *, timeout_s: float = 30.0) -> None:
        """Wait until this organisation's peer has a transaction that another organisation has committed.

        Peers commit the same block at different moments. What was told over another way than the ledger, such as the id of
        a request, can be looked up here only then. Raises TimeoutError after `timeout_s` seconds, and the client's errors.
        """
        await self._network.reached(committed.block_number, timeout_s=timeout_s)

    # -- registry ------------------------------------------------------------------------------------------------------

    async def propose_admission(self, organisations: Sequence[Organisation]) -> Proposed:
        """As an admin of a seat: put the admission of organisations to the vote."""
        done = await self._calls.submit(Registry.propose_admission, list(organisations))
        return Proposed(ballot=done.result, committed=committed(done))

    async def suspend(self, msp_id: str, reason: str) -> Committed:
        """As an admin of the legislator or the regulator: suspend an organisation at once."""
        return committed(await self._calls.submit(Registry.suspend, msp_id, reason))

    async def suspend_identity(self, msp_id: str, identity: str, reason: str) -> Committed:
        """As an admin: suspend one identity, named as requests and receipts name it."""
        return committed(await self._calls.submit(Registry.suspend_identity, msp_id, identity, reason))

    async def organisations(self) -> list[RegisteredOrganisation]:
        """All organisations in the registry."""
        return await all_pages(lambda bookmark: self._calls.evaluate(Registry.organisations, bookmark))

    async def organisation(self, msp_id: str) -> RegisteredOrganisation:
        """One organisation in the registry."""
        return await self._calls.evaluate(Registry.organisation, msp_id)

    async def seats(self) -> Mapping[str, Sequence[str]]:
        """The classes of seat on this channel and the organisations that fill each."""
        return await self._calls.evaluate(Registry.seats)

    async def vote(self, ballot: str) -> Voted:
        """As an admin of a seat: vote for a ballot, whatever it is about."""
        subject = (await self.ballot(ballot)).ballot.subject
        done = await self._calls.submit_after_own(_VOTES[subject], ballot)
        return Voted(view=done.result, committed=committed(done))

    async def ballot(self, ballot: str) -> BallotView:
        """How a ballot stands."""
        return await self._calls.evaluate(Registry.ballot, ballot)

    async def propose_calendar(self, calendar: Calendar) -> Proposed:
        """As an admin of a seat: put a year's working-day calendar to the vote."""
        done = await self._calls.submit(Calendars.propose, calendar)
        return Proposed(ballot=done.result, committed=committed(done))

    async def propose_anchor(self, statement: AnchorStatement, view: bytes = b"") -> Proposed:
        """As an admin of a seat: put to the vote what is pinned of a channel; from its second epoch on with its own view."""
        done = await self._calls.submit(Crossing.propose_anchor, statement, view)
        return Proposed(ballot=done.result, committed=committed(done))

    async def anchor(self, channel: str) -> Anchor:
        """What this channel has pinned of another one."""
        return await self._calls.evaluate(Crossing.anchor, channel)

    # -- law -----------------------------------------------------------------------------------------------------------

    async def propose_law(self, text: str | Path) -> ProposedLaw:
        """As an admin of a seat: put a law to the vote. A path is read as UTF-8, a string is the text itself.

        Raises LawTextError with line and column before anything is sent, DataFileError for a path that cannot be read.
        """
        source = await asyncio.to_thread(read_text_file, text, TEXT_MAX_BYTES) if isinstance(text, Path) else text
        check_law(source)
        done = await self._calls.submit(Laws.propose, source)
        return ProposedLaw(ballot=done.result.ballot, committed=committed(done), draft=done.result)

    async def propose_repeal(self, law: str, effective_from: datetime | str) -> Proposed:
        """As an admin of a seat: put the end of a law to the vote, from a time with its zone (RFC 3339) on."""
        done = await self._calls.submit(Laws.propose_repeal, law, _moment(effective_from))
        return Proposed(ballot=done.result, committed=committed(done))

    async def review_law(self, text: str) -> list[LawFinding]:
        """What a law would conflict with or change if it were enacted now. Raises LawTextError for an invalid text."""
        check_law(text)
        return await self._calls.evaluate(Laws.review, text)

    async def review_repeal(self, law: str, effective_from: datetime | str) -> list[LawFinding]:
        """What the end of a law from a time with its zone on would leave without effect or without a law."""
        return await self._calls.evaluate(Laws.review_repeal, law, _moment(effective_from))

    async def laws(self) -> list[LawView]:
        """All laws and drafts with their states, by id and version."""
        found = await all_pages(lambda bookmark: self._calls.evaluate(Laws.listing, bookmark))
        return sorted(found, key=lambda law: (law.header.law, law.header.version, law.ballot))

    async def law_text(self, text_hash: str) -> str:
        """The text of a law by its hash."""
        return await self._calls.evaluate(Laws.text, text_hash)

    # -- sharing -------------------------------------------------------------------------------------------------------

    async def share(
        self,
        source: Path | str | bytes,
        *,
        purposes: Collection[str],
        name: str | None = None,
        data_class: str = "general",
        jurisdiction: str | None = None,
        residency: Collection[str] | None = None,
        about: About | None = None,
    ) -> Shared:
        """Deposit a CSV file in this organisation's private collection and publish its catalogue entry.

        `source` is a path, or the bytes themselves; UTF-8 (with or without byte order mark) and GB18030 are accepted and
        kept as they are. `name` defaults to the file's name; `jurisdiction` to the organisation's in the registry;
        `residency` to that jurisdiction alone, and an empty one is nowhere; `about` says whom the data are about and where they
        came from, if about anybody or from elsewhere. The salt comes from the system's secure
        randomness. Raises DataFileError, UnknownWord.
        """
        check_word("data class", data_class, DATA_CLASSES)
        for purpose in purposes:
            check_word("purpose", purpose, PURPOSES)
        table = await asyncio.to_thread(read_data_file, source)
        home = (await self.organisation(self._msp_id)).organisation.jurisdiction
        place = home if jurisdiction is None else jurisdiction
        salt = secrets.token_bytes(SALT_BYTES)
        root = await asyncio.to_thread(lambda: table_root(salt, read_table(table.data)))
        places = (place,) if residency is None else residency
        entry = _publication(table, name, data_class, place, places, purposes, about or About(), root)
        return await self.deposit(salt + table.data, entry)

    async def deposit(self, payload: bytes, entry: Publication) -> Shared:
        """Deposit salt and bytes in this organisation's private collection and publish the entry that describes them.

        `share` and `SealedData.seal` do it for a file: this is what they have in common.
        """
        deposited = await self._calls.at(self._msp_id).submit(Sharing.deposit, payload)
        commitment = hashlib.sha256(payload).hexdigest()
        published = await self._calls.submit_after_own(Sharing.publish, deposited.result, commitment, entry)
        return Shared(dataset=published.result, deposited=committed(deposited), published=committed(published))

    async def withdraw(self, dataset: str, reason: str) -> Committed:
        """As the owner: take a data set out of circulation."""
        return committed(await self._calls.submit(Sharing.withdraw, dataset, reason))

    async def catalogue(self) -> list[DataSet]:
        """All catalogue entries, oldest first."""
        found = await all_pages(lambda bookmark: self._calls.evaluate(Sharing.datasets, bookmark))
        return sorted(found, key=lambda dataset: (dataset.published_at, dataset.id))

    async def dataset(self, dataset: str) -> DataSet:
        """One catalogue entry."""
        return await self._calls.evaluate(Sharing.dataset, dataset)

    async def request(
        self,
        dataset: str,
        purpose: str,
        *,
        action: str = "read",
        legal_basis: str = "unstated",
        destination: str | None = None,
        fields: Sequence[str] | None = None,
        rows: Mapping[str, Collection[str]] | None = None,
        processors: Sequence[str] = (),
        reference: str | None = None,
    ) -> Answer:
        """File a request and have it decided: two committed transactions. A denial is an answer, not an error.

        Arguments as for `file_request`. A request that waits for a co-signature stays on file and is refused with E_PENDING:
        file it with `file_request`, and `decide` it once it is co-signed. Raises UnknownWord before anything is sent for a word
        outside the code lists.
        """
        filed = await self.file_request(
            dataset,
            purpose,
            action=action,
            legal_basis=legal_basis,
            destination=destination,
            fields=fields,
            rows=rows,
            processors=processors,
            reference=reference,
        )
        return await self.decide(filed)

    async def file_request(
        self,
        dataset: str,
        purpose: str,
        *,
        action: str = "read",
        legal_basis: str = "unstated",
        destination: str | None = None,
        fields: Sequence[str] | None = None,
        rows: Mapping[str, Collection[str]] | None = None,
        processors: Sequence[str] = (),
        reference: str | None = None,
    ) -> Filed:
        """Put a request on file without having it decided. Raises UnknownWord.

        `fields` are the columns that are asked for, None all; `rows` the values that chosen columns must have in the rows that
        are asked for (everyone on the channel reads them: never ask by what identifies a person), None all; `processors` the jurisdictions where others process the data;
        `reference` the warrant or emergency that the legal basis rests on.
        """
        check_word("purpose", purpose, PURPOSES)
        check_word("action", action, ACTIONS)
        check_word("legal basis", legal_basis, LEGAL_BASES)
        if destination is not None:
            check_jurisdiction("destination", destination)
        for place in processors:
            check_jurisdiction("processor", place)
        salt = secrets.token_hex(SALT_BYTES)
        done = await self._calls.submit(
            Sharing.file_request,
            dataset,
            purpose,
            salt,
            action,
            legal_basis,
            destination,
            None if fields is None else tuple(fields),
            tuple(processors) or None,
            reference,
            _row_rules(rows),
        )
        return Filed(request=done.result, committed=committed(done))

    async def decide(self, filed: Filed) -> Answer:
        """Have a request on file decided."""
        done = await self._calls.submit_after_own(Sharing.decide, filed.request)
        return Answer(**dict(done.result), filed=filed.committed, decided=committed(done))

    async def filed(self, request: str) -> Request:
        """One request on file."""
        return await self._calls.evaluate(Sharing.request, request)

    async def requests(self) -> list[Request]:
        """All requests on file, decided or not, oldest first."""
        found = await all_pages(lambda bookmark: self._calls.evaluate(Sharing.requests, bookmark))
        return sorted(found, key=lambda request: (request.filed_at, request.id))

    async def release(self, request: str) -> Released:
        """As the owner: deliver to the requester of a permitted request what was permitted of the data set.

        The bytes go from the own private collection, through this process, to the grantee's peer, which alone endorses; and
        only after the own peer found the permit committed. Of a permit for some columns or rows, or with masks, just that part
        is delivered, which the grantee's peer checks against the catalogue. Raises IntegrityError.
        """
        filed, dataset, grant = await self._grant(request)
        key = secrets.token_bytes(KEY_BYTES)
        sealed = await self._calls.at(self._msp_id).evaluate(Sharing.read_for_release, request, key)
        payload = _whole(_unsealed(sealed, key), dataset)
        if not grant.whole:
            payload = await asyncio.to_thread(_part, payload, grant, dataset.id, request)
        done = await self._calls.at(filed.msp_id).submit_after_own(Sharing.deliver, request, payload)
        return Released(request=request, grantee=filed.msp_id, committed=committed(done))

    async def open(self, request: str) -> bytes:
        """As the grantee: the delivered bytes, after they were checked against the catalogue entry.

        Of a part of a table: the part as UTF-8 CSV; `open_part` gives it with its proof. Raises NothingToOpen, IntegrityError.
        """
        payload, dataset, grant = await self._delivered(request)
        if dataset.entry.sealed is not None:
            raise InvalidInput(
                "the data set lies sealed in a store",
                "what was delivered is the key that opens it",
                "fetch it (sovchain data fetch)",
            )
        if grant.whole:
            return (await asyncio.to_thread(_checked_table, payload, dataset))[SALT_BYTES:]
        part = await asyncio.to_thread(_checked_part, payload, dataset, request, grant)
        return write_table([column.name for column in part.columns], [column.values for column in part.columns])

    async def open_part(self, request: str) -> bytes:
        """As the grantee: the delivered part of a table as the document that proves it (see `contracts.core.projection`), checked.

        Raises NothingToOpen, IntegrityError, InvalidInput where the whole was delivered.
        """
        payload, dataset, grant = await self._delivered(request)
        if grant.whole:
            raise InvalidInput("the whole data set was delivered", "its salted hash proves it", "open it")
        await asyncio.to_thread(_checked_part, payload, dataset, request, grant)
        return payload

    async def opener(self, request: str) -> tuple[bytes, DataSet]:
        """As the grantee: what opens a sealed data set, checked, and the data set; for `SealedData.fetch`.

        Raises NothingToOpen, IntegrityError, InvalidInput where the data set is not sealed.
        """
        payload, dataset, _ = await self._delivered(request)
        if dataset.entry.sealed is None:
            raise InvalidInput("the data set is not sealed", "it was delivered itself", "open it (sovchain open)")
        return _whole(payload, dataset)[SALT_BYTES:], dataset

    async def _delivered(self, request: str) -> tuple[bytes, DataSet, Grant]:
        key = secrets.token_bytes(KEY_BYTES)
        sealed = await self._calls.at(self._msp_id).evaluate(Sharing.open, request, key)
        _, dataset, grant = await self._grant(request)
        return _unsealed(sealed, key), dataset, grant

    async def _grant(self, request: str) -> tuple[Request, DataSet, Grant]:
        """A request, its data set, and what of it was permitted."""
        filed = await self._calls.evaluate(Sharing.request, request)
        dataset = await self._calls.evaluate(Sharing.dataset, filed.dataset)
        try:
            receipt = await self._calls.evaluate(Receipts.read, request)
        except ContractRefusal as error:
            raise ContractRefusal(
                "the request is not decided yet",
                "data move only after a committed permit",
                "have it decided first",
                code="E_NOT_PERMITTED",
                fields=error.fields,
            ) from None
        return filed, dataset, Grant.of(receipt, dataset.entry)

    async def acknowledge(self, request: str) -> Acknowledged:
        """As the grantee: confirm the delivery in public. Raises NothingToOpen."""
        done = await self._calls.submit(Sharing.acknowledge, request)
        return Acknowledged(acknowledgement=done.result, committed=committed(done))

    # -- evidence ------------------------------------------------------------------------------------------------------

    async def receipt(self, request: str) -> Receipt:
        """The receipt on a request."""
        return await self._calls.evaluate(Receipts.read, request)

    async def receipts(
        self,
        *,
        dataset: str | None = None,
        msp_id: str | None = None,
        decision: Literal["permit", "deny"] | None = None,
    ) -> list[Receipt]:
        """All receipts that match, in the order of their decisions."""
        chosen = _filter(dataset, msp_id, decision)
        return await all_pages(lambda bookmark: self._calls.evaluate(Receipts.listing, chosen, bookmark))

    async def who_saw(
        self,
        dataset: str | None = None,
        *,
        msp_id: str | None = None,
        decision: Literal["permit", "deny"] | None = None,
    ) -> list[Access]:
        """Who asked for what, under which law it was decided, and what came of it, in the order of the decisions."""
        chosen = _filter(dataset, msp_id, decision)
        return await all_pages(lambda bookmark: self._calls.evaluate(Receipts.who_saw, chosen, bookmark))


def check_word(kind: str, word: str, known: Collection[str]) -> None:
    """Raise UnknownWord for a word outside its code list."""
    if word not in known:
        raise UnknownWord(kind, word, tuple(known))


def check_jurisdiction(kind: str, code: str) -> None:
    """Raise InvalidInput for a jurisdiction that is not well formed."""
    if not is_jurisdiction(code):
        raise InvalidInput(
            f"the {kind} {code!a} is no jurisdiction",
            "a code has one to three components of ASCII capitals and digits",
            "write it as CN, CN-GZ or CN-GZ-520100",
        )


def check_law(text: str) -> LawText:
    """Read a law as the contract would before it takes it to the vote. Raises LawTextError."""
    try:
        return read_law(text)
    except CedarTextError as error:
        where = f"line {error.line}, column {error.column}" + (f", {error.clause}" if error.clause else "")
        raise LawTextError(
            "the law is not valid",
            f"{where}: {error.message}",
            "correct the text",
            line=error.line,
            column=error.column,
            clause=error.clause,
        ) from None


def _publication(
    table: DataFile,
    name: str | None,
    data_class: str,
    jurisdiction: str,
    residency: Collection[str],
    purposes: Collection[str],
    about: About,
    root: str,
) -> Publication:
    for kind, code in [("jurisdiction", jurisdiction), *(("residency", place) for place in residency)]:
        check_jurisdiction(kind, code)
    return entry_of(
        {
            "name": name or table.name,
            "data_class": data_class,
            "jurisdiction": jurisdiction,
            "residency": tuple(sorted(set(residency))),
            "purposes": tuple(sorted(set(purposes))),
            "columns": table.columns,
            "rows": table.rows,
            "size_bytes": len(table.data),
            "media_type": table.media_type,
            "table_root": root,
            **about.model_dump(),
        }
    )


def entry_of(stated: Mapping[str, object]) -> Publication:
    """A catalogue entry. Raises InvalidInput that names what is wrong."""
    try:
        return Publication.model_validate(stated)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "entry"
        raise InvalidInput(f"the catalogue entry's {where} is not acceptable", first["msg"], "correct it") from None


def _row_rules(rows: Mapping[str, Collection[str]] | None) -> tuple[RowRule, ...] | None:
    try:
        return (
            tuple(
                RowRule(column=column, values=tuple(sorted(set(values))))
                for column, values in sorted((rows or {}).items())
            )
            or None
        )
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise InvalidInput("the rules for rows are malformed", said, "give each column at least one value") from None


def _unsealed(sealed: bytes, key: bytes) -> bytes:
    try:
        return unseal(sealed, key)
    except ValueError as error:
        raise IntegrityError("the bytes cannot be unsealed", str(error), "ask another peer") from None


def _whole(payload: bytes, dataset: DataSet) -> bytes:
    """Salt and bytes, checked against the commitment in the catalogue."""
    found = hashlib.sha256(payload).hexdigest()
    if not secrets.compare_digest(found, dataset.commitment):
        raise IntegrityError(
            "the bytes are not what was published",
            f"their salted hash is {found}, the catalogue says {dataset.commitment}",
            "do not use them and tell the owner",
        )
    return payload


def _checked_table(payload: bytes, dataset: DataSet) -> bytes:
    """Whoever has the whole can tell whether the catalogue's root is that of the table: those who get parts rely on it."""
    _whole(payload, dataset)
    stated = dataset.entry.table_root
    if stated is not None and table_root(payload[:SALT_BYTES], read_table(payload[SALT_BYTES:])) != stated:
        raise IntegrityError(
            "the catalogue's table root is not that of the table",
            "parts of it would be checked against another table",
            "do not use it and tell the owner",
        )
    return payload


def _part(payload: bytes, grant: Grant, dataset: str, request: str) -> bytes:
    """What a permit grants of an own table, as the document that is delivered."""
    seed, table = payload[:SALT_BYTES], read_table(payload[SALT_BYTES:])
    part = project(table, seed, grant, dataset=dataset, request=request, salt=secrets.token_bytes(SALT_BYTES))
    return encode_projection(part)


def _checked_part(document: bytes, dataset: DataSet, request: str, grant: Grant) -> Projection:
    try:
        part = read_projection(document)
        check_projection(part, dataset=dataset.id, request=request, entry=dataset.entry, grant=grant)
    except ProjectionError as error:
        raise IntegrityError(
            "the part is not what was granted of the catalogue's table", str(error), "do not use it and tell the owner"
        ) from None
    return part


def _moment(value: datetime | str) -> datetime:
    try:
        moment = parse_time(value)
    except ValueError as error:
        raise InvalidInput("the time is malformed", str(error), "write it as 2026-03-01T00:00:00Z") from None
    assert isinstance(moment, datetime)  # a string or a datetime went in
    return moment


def _filter(dataset: str | None, msp_id: str | None, decision: Literal["permit", "deny"] | None) -> AccessFilter:
    try:
        return AccessFilter(dataset=dataset, msp_id=msp_id, decision=decision)
    except ValidationError as error:
        field = error.errors(include_url=False, include_input=False)[0]["loc"][0]
        raise InvalidInput(f"the {field} is malformed", "no record has such a value", "correct it") from None
