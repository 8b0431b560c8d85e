"""Carriers' licences, granted here and proved to the logistics channel, where no carrier signs without one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints

from sovchain.chaincode import (
    Context,
    Contract,
    Given,
    StateMachine,
    To,
    attribute,
    guard,
    msp,
    query,
    record,
    transaction,
)
from sovchain.contracts.core.codes import MSP_ID_PATTERN
from sovchain.contracts.core.crossing_records import Challenge
from sovchain.contracts.core.portable import Portable
from sovchain.contracts.core.records import Record, ShortText, Timestamp
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.scenario import Scenario, advance

OFFICE: Final = "GovernmentMSP"
"""Grants licences: its officers have `office=transport` in their certificates."""
PURPOSE: Final = "supervision"

CarrierId = Annotated[str, StringConstraints(pattern=rf"^{MSP_ID_PATTERN}/[a-z0-9][a-z0-9-]{{0,39}}$")]


@record(key="carrier")
class CarrierLicence(Record):
    """A carrier's licence. `version` counts its changes, so that no older proof undoes a newer one."""

    carrier: CarrierId
    certificate: ShortText
    state: Literal["granted", "revoked"]
    valid_until: Timestamp
    version: Annotated[int, Field(ge=1)]
    reason: str = ""


@guard("E_TIME", "it ends later than now")
def not_over(ctx: Context, licence: CarrierLicence | None, given: Given) -> bool:
    """A licence that is over licenses nothing."""
    return bool(given["valid_until"] > ctx.timestamp)


_TRANSPORT: Final = msp(OFFICE) & attribute("office", "transport")


class TransportLicences(Contract):
    """Licences by carrier."""

    life = StateMachine(
        CarrierLicence,
        {
            (None, "grant"): To("granted", _TRANSPORT, (not_over,)),
            ("granted", "renew"): To("granted", _TRANSPORT, (not_over,)),
            ("granted", "revoke"): To("revoked", _TRANSPORT, text="with the reason"),
            ("revoked", "renew"): To("granted", _TRANSPORT, (not_over,)),
        },
        title="carrier's licence",
    )

    @transaction
    async def grant(
        self, ctx: Context, carrier: CarrierId, certificate: ShortText, valid_until: Timestamp
    ) -> CarrierLicence:
        """License a carrier. Called by the transport office. Raises E_ACCESS, E_STATE, E_TIME, E_NOT_ADMITTED, E_SUSPENDED."""
        licence = CarrierLicence(
            carrier=carrier, certificate=certificate, state="granted", valid_until=valid_until, version=1
        )
        return await advance(ctx, self.life, licence, "grant", given={"valid_until": valid_until})

    @transaction
    async def renew(self, ctx: Context, carrier: CarrierId, valid_until: Timestamp) -> CarrierLicence:
        """Let it go on, or give it back. Called by the transport office. Raises E_NOT_FOUND, E_ACCESS, E_TIME."""
        found = await ctx.records(CarrierLicence).require(carrier)
        changes = {"valid_until": valid_until, "version": found.version + 1, "reason": ""}
        return await advance(ctx, self.life, found, "renew", changes, {"valid_until": valid_until})

    @transaction
    async def revoke(self, ctx: Context, carrier: CarrierId, reason: ShortText) -> CarrierLicence:
        """Take it away. Called by the transport office. Raises E_NOT_FOUND, E_ACCESS, E_STATE."""
        found = await ctx.records(CarrierLicence).require(carrier)
        return await advance(ctx, self.life, found, "revoke", {"version": found.version + 1, "reason": reason})

    @query
    async def read(self, ctx: Context, carrier: CarrierId) -> CarrierLicence:
        """A carrier's licence. Raises E_NOT_FOUND."""
        return await ctx.records(CarrierLicence).require(carrier)


class LicencesOut(Portable):
    """Licences that the logistics channel asks for; revoked ones too, so that it learns of it."""

    record_type: ClassVar[str] = "carrier-licence"

    async def send(self, ctx: Context, challenge: Challenge, destination: str) -> CarrierLicence:
        """The licence of the carrier `record_id` as it stands; anyone may have it sent. Raises E_NOT_FOUND, E_PURPOSE, E_ACTION."""
        if challenge.purpose != PURPOSE:
            raise refusal("E_PURPOSE", "the licence is not for this", f"it serves {PURPOSE}", "ask for that purpose")
        if challenge.action != "share":
            raise refusal("E_ACTION", "a licence does not move", "it stays with its office", "ask for a share")
        return await ctx.records(CarrierLicence).require(challenge.record_id)


SCENARIO: Final = Scenario(
    "digital-logistics",
    "Digital logistics",
    (TransportLicences(),),
    (TransportLicences.life,),
    outgoing=(LicencesOut(),),
)
