"""Permits in use: revocation, use reports, how a permit stands, and what was made from a data set."""

from __future__ import annotations

import hashlib
import secrets

from sovchain.client import Network
from sovchain.contracts.core import Grants, Sharing
from sovchain.contracts.core.order_records import GrantState, Revocation, UseReport
from sovchain.contracts.core.records import SALT_BYTES
from sovchain.contracts.core.sealing import KEY_BYTES, unseal
from sovchain.sovereign.desk import Desk
from sovchain.sovereign.errors import IntegrityError
from sovchain.sovereign.results import Recorded


class GrantDesk(Desk):
    """The permits of one channel, for owners and grantees."""

    def __init__(self, network: Network, chaincode: str | None = None) -> None:
        super().__init__(network, chaincode)
        self._msp_id = network.identity.msp_id

    async def revoke(self, request: str, reason: str) -> Recorded[Revocation]:
        """As the owner, a judge or a supervisor: end a permit at once; what was delivered must be deleted."""
        return await self._record(Grants.revoke, request, reason)

    async def state(self, request: str) -> GrantState:
        """What stands against a release on a permit, and what the grantee owes."""
        return await self._calls.evaluate(Grants.state, request)

    async def products(self, dataset: str) -> list[str]:
        """The data sets that name this one as their source."""
        return await self._calls.evaluate(Grants.products, dataset)

    async def report(self, request: str, text: bytes) -> Recorded[UseReport]:
        """As the grantee: report the use to the owner, privately, and put its salted hash on record. Two transactions."""
        report = secrets.token_bytes(SALT_BYTES) + text
        filed = await self._calls.evaluate(Sharing.request, request)
        owner = (await self._calls.evaluate(Sharing.dataset, filed.dataset)).owner
        await self._told(owner, Grants.send_report, request, report)
        for_record = hashlib.sha256(report).hexdigest()
        return await self._record(Grants.file_report, request, for_record)

    async def read_report(self, request: str) -> bytes:
        """As the owner: the report on a permit's use. Raises IntegrityError when it is not the one on record."""
        key = secrets.token_bytes(KEY_BYTES)
        sealed = await self._calls.at(self._msp_id).evaluate(Grants.read_report, request, key)
        try:
            report = unseal(sealed, key)
        except ValueError as error:
            raise IntegrityError("the report cannot be unsealed", str(error), "ask another peer") from None
        return report[SALT_BYTES:]
