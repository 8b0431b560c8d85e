"""Which peers must endorse a change of one key: the owner's and a guardian's together, whatever the chaincode's policy is.

A key's own policy replaces the chaincode's (core/common/validation/statebased/v20.go), so that one that names the owner alone
would let the owner's peer write anything.
"""

from __future__ import annotations

from fabric_protos.common import policies_pb2

from sovchain.chaincode import Context
from sovchain.contracts.core.ballots import Seats
from sovchain.protocol import policydsl


async def guard_key(ctx: Context, key: str, owner: str, seats: Seats) -> None:
    """Let only `owner` and the regulator together change a key; for the regulator's own, it and the legislator."""
    await ctx.stub.set_validation_parameter(key, owner_and_guardian(owner, seats))


def owner_and_guardian(owner: str, seats: Seats) -> bytes:
    """The policy of a key: a peer of the owner and one of a guardian that is not the owner, as Fabric keeps it."""
    regulators, legislators = seats.members["regulator"], seats.members["legislator"]
    guardians = legislators if owner in regulators else regulators
    either = ", ".join(f"'{msp_id}.peer'" for msp_id in guardians)
    policy = policydsl.parse(f"AND('{owner}.peer', OR({either}))")
    return policies_pb2.SignaturePolicyEnvelope.SerializeToString(policy, deterministic=True)
