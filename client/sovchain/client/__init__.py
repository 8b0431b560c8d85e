"""The client SDK: evaluate, submit and listen through the gateway of a Fabric peer.

General layout: `gateway` connects with a `profile` and an `identity`; `network` is a channel, `contract` a chaincode on
it; `transaction` holds the steps that a call consists of; `events`, `deliver` and `checkpoint` listen; `errors` draws
the tree of what can go wrong; `options` has deadlines and limits. Modules with an underscore are the wire below.
"""

from __future__ import annotations

from sovchain.client.checkpoint import Checkpointer, FileCheckpointer, MemoryCheckpointer, Position
from sovchain.client.contract import Contract
from sovchain.client.deliver import BlockStream
from sovchain.client.errors import (
    CertificateExpired,
    CheckpointError,
    CommitRejected,
    CommitStatusError,
    ConnectError,
    DeliverBadRequest,
    DeliverError,
    DeliverForbidden,
    DeliverNotFound,
    DeliverUnavailable,
    EndorseError,
    ErrorDetail,
    EvaluateError,
    EventsError,
    FabricError,
    GatewayClosed,
    GatewayError,
    IdentityError,
    IdentityNotFound,
    KeyMismatch,
    OutcomeUnknown,
    ProfileContentError,
    ProfileError,
    ProfileNotFound,
    ProfileSyntaxError,
    RpcFailure,
    SubmitError,
    UnexpectedReply,
)
from sovchain.client.events import ChaincodeEvent, ChaincodeEvents
from sovchain.client.gateway import Gateway
from sovchain.client.identity import SigningIdentity
from sovchain.client.network import ChainInfo, Network
from sovchain.client.options import MAX_IN_FLIGHT, MAX_MESSAGE_BYTES, Timeouts
from sovchain.client.profile import GatewayAddress, Profile
from sovchain.client.transaction import Commit, CommitStatus, PendingCommit, Proposal, Submitted, Transaction

__all__ = [
    "MAX_IN_FLIGHT",
    "MAX_MESSAGE_BYTES",
    "BlockStream",
    "CertificateExpired",
    "ChainInfo",
    "ChaincodeEvent",
    "ChaincodeEvents",
    "CheckpointError",
    "Checkpointer",
    "Commit",
    "CommitRejected",
    "CommitStatus",
    "CommitStatusError",
    "ConnectError",
    "Contract",
    "DeliverBadRequest",
    "DeliverError",
    "DeliverForbidden",
    "DeliverNotFound",
    "DeliverUnavailable",
    "EndorseError",
    "ErrorDetail",
    "EvaluateError",
    "EventsError",
    "FabricError",
    "FileCheckpointer",
    "Gateway",
    "GatewayAddress",
    "GatewayClosed",
    "GatewayError",
    "IdentityError",
    "IdentityNotFound",
    "KeyMismatch",
    "MemoryCheckpointer",
    "Network",
    "OutcomeUnknown",
    "PendingCommit",
    "Position",
    "Profile",
    "ProfileContentError",
    "ProfileError",
    "ProfileNotFound",
    "ProfileSyntaxError",
    "Proposal",
    "RpcFailure",
    "SigningIdentity",
    "SubmitError",
    "Submitted",
    "Timeouts",
    "Transaction",
    "UnexpectedReply",
]
