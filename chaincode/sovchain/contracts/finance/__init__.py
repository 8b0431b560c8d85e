"""The finance channel's chaincode: the core, with Finance in the sector's seat."""

from sovchain.chaincode import Chaincode
from sovchain.contracts.core import Seats, core_contracts
from sovchain.contracts.core.promulgation import LawsIn

SEATS = Seats({"legislator": ("GovernmentMSP",), "regulator": ("SupervisorMSP",), "sector": ("FinanceMSP",)})
chaincode = Chaincode(core_contracts(SEATS, incoming=[LawsIn()]), name="finance")

__all__ = ["SEATS", "chaincode"]
