"""The finance channel's chaincode with everybody admitted, on the contract harness and on the embedded ledger.

A test that needs time to pass, or two transactions in one block, asks for `harness_world`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from engine_facts import CITY
from memory_ledger import law as law_text

from sovchain.chaincode import Operation
from sovchain.client import CommitRejected
from sovchain.contracts.core import Duties, Laws, Orders, PersonalData, Registry, Sharing, Warrants
from sovchain.contracts.core.order_records import ConsentTerms, WarrantScope
from sovchain.contracts.core.records import Column, Organisation, Publication, Receipt
from sovchain.testing import ContractHarness, ContractSpec, ContractWorld
from sovchain.testing.worlds import NetworkWorld

SPEC = ContractSpec(
    "sovchain.contracts.finance:chaincode",
    organizations=("Government", "Finance", "Supervisor", "Logistics", "Overseas"),
    endorsement_policy="AND('SupervisorMSP.peer', OR('GovernmentMSP.peer', 'FinanceMSP.peer', 'LogisticsMSP.peer'))",
)
HOMES = {"Government": CITY, "Finance": CITY, "Supervisor": "CN-GZ", "Logistics": CITY, "Overseas": "SG"}
ROLES = {
    "Government": ("official", "caseworker"),
    "Finance": ("analyst",),
    "Supervisor": ("supervisor", "judge"),
    "Logistics": ("operator",),
    "Overseas": ("carrier",),
}
SUBJECT = "5e" * 32
BYTES = bytes(range(32)) + b"id,name,score\n1,marker-a7c3,9\n"
OPEN = '@c("1") permit (principal, action, resource);'


def organisation(name: str, **changes: Any) -> Organisation:
    """An entry of the registry."""
    stated = {
        "msp_id": f"{name}MSP",
        "legal_id": f"91520100{name.upper():0<10.10}",
        "name": name,
        "jurisdiction": HOMES[name],
        "roles": ROLES[name],
        "clearance": "core" if name != "Overseas" else "general",
    }
    return Organisation.model_validate(stated | changes)


@dataclass
class LawWorld:
    """One channel. Names such as `Finance`, `Finance/admin`, `Finance/client/Wang` say who acts."""

    world: ContractWorld
    apart: bool = False
    """Whether its peers commit a block at different moments, as real ones do."""

    @property
    def harness(self) -> ContractHarness:
        """The harness, for tests that need it."""
        assert isinstance(self.world, ContractHarness)
        return self.world

    @property
    def now(self) -> datetime:
        """The time of the last transaction; on a network, of the system."""
        return self.world.now if isinstance(self.world, ContractHarness) else datetime.now(UTC)

    def caller(self, who: str, endorsers: Sequence[str] | None = None, **claims: str | None) -> Any:
        """Whoever `who` names, with role and clearance of its organisation unless claimed otherwise (None: not at all)."""
        name, _, rest = who.partition("/")
        unit, _, user = rest.partition("/")
        default = {"role": ROLES[name][-1] if name == "Supervisor" else ROLES[name][0], "clearance": "core"}
        claimed = {key: value for key, value in {**default, **claims}.items() if value is not None}
        unit = unit or "client"
        user = user or ("Admin" if unit == "admin" else "User1")
        return self.world.caller(name, user, attributes=claimed, unit=unit, endorsers=endorsers)

    async def submit(self, who: str, operation: Operation[..., Any], *args: Any, **more: Any) -> Any:
        """Commit and return the result; `endorsers` and claims of the certificate may follow."""
        endorsers, claims = more.pop("endorsers", None), more.pop("claims", {})
        chosen = endorsers or ("Supervisor", "Government")
        done = await self.caller(who, chosen, **claims).submit(operation, *args, **more)
        if self.apart and isinstance(self.world, NetworkWorld):
            await self.world.settled(done.block_number)
        return done.result

    async def evaluate(self, who: str, operation: Operation[..., Any], *args: Any, **more: Any) -> Any:
        """Evaluate on the caller's own peer."""
        claims = more.pop("claims", {})
        return await self.caller(who, None, **claims).evaluate(operation, *args, **more)

    # -- what tests begin with -----------------------------------------------------------------------------------------

    async def admit(self, *organisations: Organisation) -> None:
        """Admit by ballot."""
        ballot = await self.submit("Government/admin", Registry.propose_admission, list(organisations))
        for name in ("Government", "Supervisor", "Finance"):
            await self.submit(f"{name}/admin", Registry.vote, ballot)

    async def enact(
        self, policies: str = OPEN, jurisdiction: str = "CN", law_id: str = "OPEN-1", version: int = 1
    ) -> str:
        """Enact a law by ballot."""
        text = law_text(policies, law_id=law_id, version=version, jurisdiction=jurisdiction)
        draft = await self.submit("Government/admin", Laws.propose, text)
        for name in ("Government", "Supervisor", "Finance"):
            await self.submit(f"{name}/admin", Laws.vote, draft.ballot)
        return str(draft.ballot)

    async def found(self) -> LawWorld:
        """Admit everybody and let the nation's law permit everything: what is refused then, the engine refuses."""
        await self.admit(*(organisation(name) for name in HOMES))
        await self.enact()
        return self

    async def share(self, owner: str = "Government", **changes: Any) -> str:
        """Deposit and publish; the data set's id."""
        dataset = await self.submit(owner, Sharing.deposit, BYTES, endorsers=[owner])
        stated = {
            "name": "people.csv",
            "data_class": "general",
            "jurisdiction": HOMES[owner],
            "residency": ("CN", "SG"),
            "purposes": ("statistics", "credit-assessment", "emergency-response", "supervision", "marketing"),
            "columns": tuple(Column(name=name, type="text") for name in ("id", "name", "score")),
            "rows": 10,
            "size_bytes": len(BYTES) - 32,
        }
        entry = Publication.model_validate(stated | changes)
        await self.submit(owner, Sharing.publish, dataset, hashlib.sha256(BYTES).hexdigest(), entry)
        return str(dataset)

    async def file(self, who: str, dataset: str, purpose: str = "statistics", **more: Any) -> str:
        """File a request; its id. `claims` are the certificate's."""
        return str(await self.submit(who, Sharing.file_request, dataset, purpose, "5a" * 32, **more))

    async def decide(self, request: str, who: str = "Finance") -> Receipt:
        """Decide a request on file."""
        receipt = await self.submit(who, Sharing.decide, request)
        assert isinstance(receipt, Receipt)
        return receipt

    async def ask(self, who: str, dataset: str, purpose: str = "statistics", **more: Any) -> Receipt:
        """File a request and decide it."""
        return await self.decide(await self.file(who, dataset, purpose, **more))

    async def deliver(self, request: str, grantee: str, owner: str = "Government") -> None:
        """Deliver on a request."""
        await self.submit(owner, Sharing.deliver, request, BYTES, endorsers=[grantee])

    async def identity(self, who: str, **claims: str | None) -> str:
        """How the ledger names somebody."""
        return str((await self.evaluate(who, Registry.whoami, claims=claims)).identity)

    async def bind(self, who: str, person: str, **claims: str | None) -> None:
        """Bind somebody's identity to a person."""
        name = who.partition("/")[0]
        await self.submit(f"{name}/admin", Registry.bind_person, await self.identity(who, **claims), person)

    async def bind_two(self) -> None:
        """Finance's user and Supervisor's are two persons."""
        await self.bind("Finance", "f1" * 32)
        await self.bind("Supervisor", "50" * 32)

    async def wallet(self, who: str = "Logistics") -> str:
        """A wallet for SUBJECT that `who` acts for; the pseudonym."""
        name = who.partition("/")[0]
        await self.submit("Government", PersonalData.open_wallet, SUBJECT, f"{name}MSP", await self.identity(who))
        return SUBJECT

    def terms(self, **changes: Any) -> ConsentTerms:
        """A consent of the subject's for Finance and statistics."""
        stated = {
            "grantee": "FinanceMSP",
            "purposes": ("statistics",),
            "valid_from": self.now - timedelta(days=1),
            "valid_until": self.now + timedelta(days=30),
        }
        return ConsentTerms.model_validate(stated | changes)

    async def warrant(self, dataset: str, uses: int = 1, **more: Any) -> str:
        """A warrant that Finance's user asked for and Supervisor's judge issued; its id."""
        scope = WarrantScope(dataset=dataset, purpose="supervision", actions=("read",))
        asked = await self.submit("Finance", Warrants.request, scope, "case 7")
        expires_at = more.pop("expires_at", self.now + timedelta(days=7))
        await self.submit("Supervisor", Warrants.issue, asked.id, uses, expires_at, **more)
        return str(asked.id)

    async def together(self, *calls: tuple[str, Operation[..., Any], Sequence[Any]]) -> list[str]:
        """Endorse calls on one state and commit them in this order, on the harness in one block: "" or Fabric's code for each."""
        if not isinstance(self.world, ContractHarness):
            return await self._sent_in_order(calls)
        endorsed = [
            await self.caller(who, endorsers_of(operation)).endorse(operation, *args) for who, operation, args in calls
        ]
        done = self.harness.commit(endorsed)
        return [one.code_name if isinstance(one, CommitRejected) else "" for one in done]

    async def _sent_in_order(self, calls: Sequence[tuple[str, Operation[..., Any], Sequence[Any]]]) -> list[str]:
        """Real peers: all are endorsed before the first is sent, so that none has seen another; the orderer keeps no order of
        what is sent at once, so each is committed before the next is sent."""
        codes = []
        async with AsyncExitStack() as stack:
            endorsed = []
            for who, operation, args in calls:
                contract = await self.caller(who, endorsers_of(operation)).contract(stack)
                endorsed.append(await contract.proposal(operation, *args).endorse())
            for one in endorsed:
                try:
                    await (await one.submit()).committed()
                    codes.append("")
                except CommitRejected as error:
                    codes.append(error.code_name)
        return codes


def endorsers_of(operation: Operation[..., Any]) -> list[str]:
    """Who endorses a call in `together`: a delivery goes to the grantee alone."""
    return ["Finance"] if operation is Sharing.deliver else ["Supervisor", "Government"]


__all__ = ["BYTES", "OPEN", "SPEC", "SUBJECT", "Duties", "LawWorld", "Orders", "organisation"]
