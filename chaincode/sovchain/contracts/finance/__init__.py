"""The finance channel's chaincode: the core, with Finance in the sector's seat, and its scenarios.

General layout: `payouts` pays approvals that came from the government channel; `drafts` are promissory notes and commercial
drafts.
"""

from sovchain.contracts.core import Seats
from sovchain.contracts.core.promulgation import LawsIn
from sovchain.contracts.finance import drafts, payouts
from sovchain.contracts.scenario import channel_chaincode

SEATS = Seats({"legislator": ("GovernmentMSP",), "regulator": ("SupervisorMSP",), "sector": ("FinanceMSP",)})
SCENARIOS = (payouts.SCENARIO, drafts.SCENARIO)
chaincode = channel_chaincode("finance", SEATS, SCENARIOS, incoming=[LawsIn()])

__all__ = ["SCENARIOS", "SEATS", "chaincode"]
