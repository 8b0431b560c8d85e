"""The government channel's chaincode: the core, with either sector organisation filling the sector's seat, and relief.

General layout: `relief` holds programmes of poverty relief and their cases.
"""

from sovchain.chaincode import Chaincode
from sovchain.contracts.core import Seats, core_contracts
from sovchain.contracts.core.promulgation import LawsOut
from sovchain.contracts.government.relief import ApprovalsOut, Relief

SEATS = Seats(
    {
        "legislator": ("GovernmentMSP",),
        "regulator": ("SupervisorMSP",),
        "sector": ("FinanceMSP", "LogisticsMSP"),
    }
)
chaincode = Chaincode([*core_contracts(SEATS, outgoing=[LawsOut(), ApprovalsOut()]), Relief()], name="government")

__all__ = ["SEATS", "chaincode"]
