"""The client SDK: evaluate, submit and listen through the gateway of a Fabric peer.

General layout: `gateway` connects with a `profile` and an `identity`; `network` is a channel, `contract` a chaincode on
it; `proposal`, `transaction` and `commit` are the steps that a call consists of; `retry` and `journal` say what happens
when one fails; `trust` judges endorsements; `signers` and `hsm` sign elsewhere, `requests` and `offline` let a whole other
process do it; `events`, `deliver` and `checkpoint` listen; `wallet` keeps identities, `ca` gets them from a Fabric CA;
`observe` and `telemetry` watch; `errors` draws the tree of what can go wrong; `options` has deadlines and limits. Modules
with an underscore are the wire below.
"""

from __future__ import annotations

from sovchain.client.checkpoint import Checkpointer, FileCheckpointer, MemoryCheckpointer, Position
from sovchain.client.commit import Commit, CommitStatus, PendingCommit, Submitted, unfinished
from sovchain.client.contract import Contract
from sovchain.client.deliver import BlockAndPrivateData, BlockStream
from sovchain.client.errors import (
    CertificateExpired,
    CheckpointError,
    CheckpointGone,
    CommitRejected,
    CommitStatusError,
    ConnectError,
    DeliverBadRequest,
    DeliverError,
    DeliverForbidden,
    DeliverNotFound,
    DeliverUnavailable,
    EndorseError,
    EndorsementsInsufficient,
    ErrorDetail,
    EvaluateError,
    EventsError,
    FabricError,
    GatewayClosed,
    GatewayError,
    HsmError,
    IdempotencyKeyReused,
    IdentityError,
    IdentityNotFound,
    JournalError,
    KeyMismatch,
    MalformedStep,
    MetadataError,
    OutcomeUnknown,
    ProfileContentError,
    ProfileError,
    ProfileNotFound,
    ProfileSyntaxError,
    RpcFailure,
    SignatureMissing,
    SignatureRefused,
    SubmitError,
    TrustError,
    UnexpectedReply,
)
from sovchain.client.events import ChaincodeEvent, ChaincodeEvents
from sovchain.client.gateway import Gateway
from sovchain.client.identity import Identity, SigningIdentity
from sovchain.client.journal import Journal, JournalEntry, SqliteJournal
from sovchain.client.network import ChainInfo, Network
from sovchain.client.observe import Observation, Observer
from sovchain.client.options import MAX_IN_FLIGHT, MAX_MESSAGE_BYTES, Timeouts
from sovchain.client.profile import GatewayAddress, Profile
from sovchain.client.proposal import Proposal
from sovchain.client.requests import BlocksRequest, EventsRequest
from sovchain.client.retry import RetryPolicy
from sovchain.client.session import EndorsementCheck
from sovchain.client.signers import ExternalIdentity
from sovchain.client.transaction import Transaction
from sovchain.client.trust import ChannelTrust
from sovchain.client.wallet import (
    NotInWallet,
    StoredIdentity,
    Wallet,
    WalletDamaged,
    WalletError,
    WalletPassword,
    WalletPermissions,
)

__all__ = [
    "MAX_IN_FLIGHT",
    "MAX_MESSAGE_BYTES",
    "BlockAndPrivateData",
    "BlockStream",
    "BlocksRequest",
    "CertificateExpired",
    "ChainInfo",
    "ChaincodeEvent",
    "ChaincodeEvents",
    "ChannelTrust",
    "CheckpointError",
    "CheckpointGone",
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
    "EndorsementCheck",
    "EndorsementsInsufficient",
    "ErrorDetail",
    "EvaluateError",
    "EventsError",
    "EventsRequest",
    "ExternalIdentity",
    "FabricError",
    "FileCheckpointer",
    "Gateway",
    "GatewayAddress",
    "GatewayClosed",
    "GatewayError",
    "HsmError",
    "IdempotencyKeyReused",
    "Identity",
    "IdentityError",
    "IdentityNotFound",
    "Journal",
    "JournalEntry",
    "JournalError",
    "KeyMismatch",
    "MalformedStep",
    "MemoryCheckpointer",
    "MetadataError",
    "Network",
    "NotInWallet",
    "Observation",
    "Observer",
    "OutcomeUnknown",
    "PendingCommit",
    "Position",
    "Profile",
    "ProfileContentError",
    "ProfileError",
    "ProfileNotFound",
    "ProfileSyntaxError",
    "Proposal",
    "RetryPolicy",
    "RpcFailure",
    "SignatureMissing",
    "SignatureRefused",
    "SigningIdentity",
    "SqliteJournal",
    "StoredIdentity",
    "SubmitError",
    "Submitted",
    "Timeouts",
    "Transaction",
    "TrustError",
    "UnexpectedReply",
    "Wallet",
    "WalletDamaged",
    "WalletError",
    "WalletPassword",
    "WalletPermissions",
    "unfinished",
]
