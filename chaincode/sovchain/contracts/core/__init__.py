"""The sovereign core that every channel's chaincode holds.

General layout: `codes` are the code lists; `records` and `order_records` what is stored and exchanged; `store` the keys;
`cedar` and `lawtext` read and check laws, `scopes` and `conflicts` compare them with each other and `lawreview` with those in force;
`facts` are what a decision depends on and `gathering` reads them; `engine` decides, purely, with `question`, `gates` and `obligations`;
`effects` is what follows. `ballots`, `registry`, `law`, `calendar`, `sharing`, `receipts`, `duties`, `grants`,
`orders`, `warrants`, `personal`, `rights` and `crossing` are the contracts, `standing` and `guarding` what they ask and protect; `anchors`
and `portable` belong to crossing; `projection` (with `merkle` and `masks`) proves parts of tables, `lineage` follows sources; `assembly` puts them together for one channel's seats.
"""

from sovchain.contracts.core.assembly import core_contracts
from sovchain.contracts.core.ballots import Seats
from sovchain.contracts.core.calendar import Calendars
from sovchain.contracts.core.crossing import Crossing
from sovchain.contracts.core.duties import Duties
from sovchain.contracts.core.grants import Grants
from sovchain.contracts.core.law import Laws
from sovchain.contracts.core.orders import Orders
from sovchain.contracts.core.personal import PersonalData
from sovchain.contracts.core.portable import Portable, Receivable
from sovchain.contracts.core.receipts import Decider, Receipts, recompute_receipt, request_of_receipt_key
from sovchain.contracts.core.registry import Registry
from sovchain.contracts.core.rights import Rights
from sovchain.contracts.core.sharing import Sharing
from sovchain.contracts.core.warrants import Warrants

__all__ = [
    "Calendars",
    "Crossing",
    "Decider",
    "Duties",
    "Grants",
    "Laws",
    "Orders",
    "PersonalData",
    "Portable",
    "Receipts",
    "Receivable",
    "Registry",
    "Rights",
    "Seats",
    "Sharing",
    "Warrants",
    "core_contracts",
    "recompute_receipt",
    "request_of_receipt_key",
]
