"""The logistics channel's chaincode: the core with Logistics in the sector's seat, and waybills.

General layout: `waybills` holds the consignment notes.
"""

from sovchain.chaincode import Chaincode
from sovchain.contracts.core import Seats, core_contracts
from sovchain.contracts.core.promulgation import LawsIn
from sovchain.contracts.logistics.waybills import ConsignmentNote, DeliveryProof, WaybillReceipt, Waybills

SEATS = Seats({"legislator": ("GovernmentMSP",), "regulator": ("SupervisorMSP",), "sector": ("LogisticsMSP",)})
chaincode = Chaincode([*core_contracts(SEATS, incoming=[LawsIn()]), Waybills()], name="logistics")

__all__ = ["SEATS", "ConsignmentNote", "DeliveryProof", "WaybillReceipt", "Waybills", "chaincode"]
