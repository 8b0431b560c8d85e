"""Who may act, and facts about persons: what the contracts on orders, duties and persons ask first."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sovchain.chaincode import Context
from sovchain.contracts.core import store
from sovchain.contracts.core.order_records import Emergency, Hold, OpenEmergency, Person
from sovchain.contracts.core.records import DataSet
from sovchain.contracts.core.refusal import refusal
from sovchain.contracts.core.registry import require_active_caller
from sovchain.contracts.core.store import StateView, identity_hash

ISSUERS: Final = ("judge", "supervisor")
"""Roles that make orders."""


async def require_role(ctx: Context, view: StateView, *roles: str) -> str:
    """The caller's role, if its certificate claims one of `roles` and the registry allows it. Raises E_ROLE,
    E_NOT_ADMITTED, E_SUSPENDED."""
    entry = await require_active_caller(ctx, view)
    claimed = ctx.identity.attributes.get("role")
    if claimed not in roles or claimed not in entry.organisation.roles:
        raise refusal(
            "E_ROLE",
            f"only a {' or a '.join(roles)} may do this",
            f"the caller's certificate and the registry together allow {ctx.identity.msp_id} no such role",
            "use an identity with that role",
            msp_id=ctx.identity.msp_id,
        )
    return str(claimed)


def require_owner(ctx: Context, found: DataSet) -> None:
    """Go on only when the caller's organisation owns the data set. Raises E_NOT_OWNER."""
    if found.owner != ctx.identity.msp_id:
        raise refusal(
            "E_NOT_OWNER",
            f"{ctx.identity.msp_id} may not do this",
            f"the data set belongs to {found.owner}",
            "ask the owner",
            dataset=found.id,
            owner=found.owner,
        )


async def person_of(view: StateView, msp_id: str, identity: str) -> str | None:
    """The pseudonym of the person behind an identity, None when the registry does not know."""
    found = await store.read(view, Person, store.PERSON, msp_id, identity)
    return None if found is None else found.person


async def own_person(ctx: Context, view: StateView) -> str:
    """The caller's person. Raises E_FOUR_EYES when the registry binds the caller's identity to none."""
    found = await person_of(view, ctx.identity.msp_id, identity_hash(ctx.identity.id))
    if found is None:
        raise _not_four_eyes("the caller's identity is bound to no person")
    return found


async def require_other_person(ctx: Context, view: StateView, other: str | None) -> str:
    """The caller's person, which must not be `other`. Raises E_FOUR_EYES; also for persons that are not known."""
    own = await own_person(ctx, view)
    if other is None:
        raise _not_four_eyes("the other identity is bound to no person")
    if own == other:
        raise _not_four_eyes("both identities belong to one person")
    return own


def _not_four_eyes(why: str) -> Exception:
    return refusal(
        "E_FOUR_EYES",
        "this takes two persons",
        why,
        "have another person do it, whose identity the registry binds",
    )


async def holds_on(view: StateView, *targets: str) -> list[Hold]:
    """The holds in force on data sets and persons."""
    return [hold for target in targets for hold in await store.scan(view, Hold, store.HOLD, target)]


async def require_no_hold(view: StateView, *targets: str) -> None:
    """Raise E_HELD for a target under a hold."""
    for hold in await holds_on(view, *targets):
        raise refusal(
            "E_HELD",
            "an order holds this",
            f"{hold.issuer} ordered it as {hold.reason}",
            f"ask {hold.issuer} to lift order {hold.id[:16]}",
            order=hold.id,
            issuer=hold.issuer,
        )


async def latest_emergency(view: StateView, msp_id: str, identity: str) -> Emergency | None:
    """The latest emergency that an identity declared."""
    latest = await store.read(view, OpenEmergency, store.OPEN_EMERGENCY, msp_id, identity)
    return None if latest is None else await store.require(view, Emergency, store.EMERGENCY, latest.emergency)


def suspends(emergency: Emergency | None, at: datetime) -> bool:
    """Whether an emergency suspends whoever declared it: found an abuse, or not reviewed in time."""
    if emergency is None:
        return False
    return emergency.review == "abuse" or (emergency.review is None and at >= emergency.review_by)
