"""The embedded ledger: one process that speaks Fabric's wire protocol.

General layout, from the outside in:

- `node`: `EmbeddedLedger`, the servers of all peers and ordering nodes over one directory; `nodespec` says what a node
  is made from, `consenters` which ordering nodes are on a channel and run.
- `operations`: what administrators call over HTTPS: health, metrics, log levels, an ordering node's channels.
- Services: `gateway` (with `endorsing` and `endorsement_plan`), `endorser`, `deliver` (with `events`), `broadcast`;
  what they have in common is in `service`, `rpcstatus` and `tls`.
- A peer: `peer`, `simulation`, `difference`, `proposal_checks`, `access`, `definitions`, `package_store`, `registry`.
- Chaincode: `chaincode` (connections), `chaincode_stream` (protocol), `transaction_context` (requests), `connection`
  (connection.json), `collection_access`; the system chaincodes are `systemcc`, `lifecycle`, `collection_checks`.
- A channel: `channel`, with `chainview` for what a peer sees of it, and `orderer`, `committer`, `simulator`, `state`, `collections`, `storage`, `private_store`,
  `history` and `database`.
- `errors`: the tree of what is raised.
"""

from sovchain.ledger.errors import LedgerError
from sovchain.ledger.node import AddressInUseError, EmbeddedLedger
from sovchain.ledger.nodespec import NodeConfigurationError, NodeSpec
from sovchain.ledger.registry import SimulateTwice

__all__ = [
    "AddressInUseError",
    "EmbeddedLedger",
    "LedgerError",
    "NodeConfigurationError",
    "NodeSpec",
    "SimulateTwice",
]
