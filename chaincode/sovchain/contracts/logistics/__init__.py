"""The logistics channel's chaincode: the core with Logistics in the sector's seat, and its scenarios.

General layout: `waybills` are plain consignment notes, the smallest scenario there is; `consignments` is digital logistics as a
whole, with `consignment_records`, `tracks`, `positions` and the imported `licences`.
"""

from sovchain.contracts.core import Seats
from sovchain.contracts.core.promulgation import LawsIn
from sovchain.contracts.logistics import consignments, waybills
from sovchain.contracts.logistics.waybills import ConsignmentNote, DeliveryProof, WaybillReceipt, Waybills
from sovchain.contracts.scenario import channel_chaincode

SEATS = Seats({"legislator": ("GovernmentMSP",), "regulator": ("SupervisorMSP",), "sector": ("LogisticsMSP",)})
SCENARIOS = (waybills.SCENARIO, consignments.SCENARIO)
chaincode = channel_chaincode("logistics", SEATS, SCENARIOS, incoming=[LawsIn()])

__all__ = ["SCENARIOS", "SEATS", "ConsignmentNote", "DeliveryProof", "WaybillReceipt", "Waybills", "chaincode"]
