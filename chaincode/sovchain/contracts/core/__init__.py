"""The sovereign core that every channel's chaincode holds.

General layout: `codes` are the code lists; `records` what is stored and exchanged; `store` the keys; `cedar` and
`lawtext` read and check laws; `engine` decides, purely; `ballots`, `registry`, `law`, `sharing`, `receipts` and `crossing`
are the contracts; `anchors` and `portable` belong to crossing; `assembly` puts them together for one channel's seats.
"""

from sovchain.contracts.core.assembly import core_contracts
from sovchain.contracts.core.ballots import Seats
from sovchain.contracts.core.crossing import Crossing
from sovchain.contracts.core.law import Laws
from sovchain.contracts.core.portable import Portable, Receivable
from sovchain.contracts.core.receipts import Decider, Receipts, recompute_receipt, request_of_receipt_key
from sovchain.contracts.core.registry import Registry
from sovchain.contracts.core.sharing import Sharing

__all__ = [
    "Crossing",
    "Decider",
    "Laws",
    "Portable",
    "Receipts",
    "Receivable",
    "Registry",
    "Seats",
    "Sharing",
    "core_contracts",
    "recompute_receipt",
    "request_of_receipt_key",
]
