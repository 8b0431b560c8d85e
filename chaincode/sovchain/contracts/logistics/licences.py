"""Carriers' licences as this channel holds them: each by a proof from the government channel, the newest counts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ValidationError

from sovchain.chaincode import Context, Contract, query, record
from sovchain.contracts.core.crossing_records import Arrival
from sovchain.contracts.core.portable import Receivable
from sovchain.contracts.core.records import Hex32, Record, Timestamp
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.government.licences import CarrierId, CarrierLicence


@record(key="carrier")
class LicenceHere(Record):
    """A licence that was proved. Nobody writes it but the import of a proof."""

    carrier: CarrierId
    state: Literal["granted", "revoked"]
    valid_until: Timestamp
    version: int
    challenge: Hex32
    proof: Hex32
    imported_at: Timestamp


class Licences(Contract):
    """Reads what was imported."""

    @query
    async def read(self, ctx: Context, carrier: CarrierId) -> LicenceHere:
        """A carrier's licence as this channel knows it. Raises E_NOT_FOUND."""
        return await ctx.records(LicenceHere).require(carrier)


class LicencesIn(Receivable):
    """Licences that come from the government channel."""

    record_type: ClassVar[str] = "carrier-licence"
    sources: ClassVar[tuple[str, ...]] = ("government",)

    async def receive(self, ctx: Context, arrival: Arrival, content: str) -> None:
        """Take a licence in, unless a newer one is here. Raises E_FORM, E_STATE."""
        try:
            licence = CarrierLicence.model_validate_json(content)
        except ValidationError:
            raise refusal(
                "E_FORM", "the licence has another form", "its source speaks another version", "upgrade this channel"
            ) from None
        before = await ctx.records(LicenceHere).get(licence.carrier)
        if licence.carrier != arrival.record_id or (before is not None and before.version >= licence.version):
            raise refusal(
                "E_STATE", "this is no newer licence", "the one here has the same version or a later one, or another carrier",
                "ask the source again",
            )  # fmt: skip
        here = LicenceHere(
            carrier=licence.carrier, state=licence.state, valid_until=licence.valid_until, version=licence.version,
            challenge=arrival.challenge, proof=arrival.proof, imported_at=ctx.timestamp,
        )  # fmt: skip
        await ctx.records(LicenceHere).put(here)
