"""The finance channel's chaincode: the core, with Finance in the sector's seat, and payouts.

General layout: `payouts` pays approvals that came from the government channel.
"""

from sovchain.chaincode import Chaincode
from sovchain.contracts.core import Seats, core_contracts
from sovchain.contracts.core.promulgation import LawsIn
from sovchain.contracts.finance.payouts import ApprovalsIn, Payouts

SEATS = Seats({"legislator": ("GovernmentMSP",), "regulator": ("SupervisorMSP",), "sector": ("FinanceMSP",)})
chaincode = Chaincode([*core_contracts(SEATS, incoming=[LawsIn(), ApprovalsIn()]), Payouts()], name="finance")

__all__ = ["SEATS", "chaincode"]
