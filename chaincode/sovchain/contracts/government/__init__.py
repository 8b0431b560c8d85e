"""The government channel's chaincode: the core, with either sector organisation in the sector's seat, and its scenarios.

General layout: `catalogue`, `exchange` and `corrections` are the sharing of government data; `relief` holds programmes of
poverty relief and their cases; `licences` are those of carriers.
"""

from sovchain.contracts.core import Seats
from sovchain.contracts.core.promulgation import LawsOut
from sovchain.contracts.government import corrections, licences, relief
from sovchain.contracts.scenario import channel_chaincode

SEATS = Seats(
    {
        "legislator": ("GovernmentMSP",),
        "regulator": ("SupervisorMSP",),
        "sector": ("FinanceMSP", "LogisticsMSP"),
    }
)
SCENARIOS = (relief.SCENARIO, corrections.SCENARIO, licences.SCENARIO)
chaincode = channel_chaincode("government", SEATS, SCENARIOS, outgoing=[LawsOut()])

__all__ = ["SCENARIOS", "SEATS", "chaincode"]
