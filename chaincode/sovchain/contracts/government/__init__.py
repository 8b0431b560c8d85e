"""The government channel's chaincode: the core, with either sector organisation filling the sector's seat."""

from sovchain.chaincode import Chaincode
from sovchain.contracts.core import Seats, core_contracts
from sovchain.contracts.core.promulgation import LawsOut

SEATS = Seats(
    {
        "legislator": ("GovernmentMSP",),
        "regulator": ("SupervisorMSP",),
        "sector": ("FinanceMSP", "LogisticsMSP"),
    }
)
chaincode = Chaincode(core_contracts(SEATS, outgoing=[LawsOut()]), name="government")

__all__ = ["SEATS", "chaincode"]
