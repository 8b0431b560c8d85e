"""A chaincode with its state in memory: the real dispatch and codecs, without a peer, an orderer or conflicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sovchain.chaincode import Chaincode, ContractError, Items, KeyValue, Operation, Page, Stub
from sovchain.contracts.core import Laws, Registry
from sovchain.contracts.core.records import Organisation
from sovchain.protocol.identity import ATTRIBUTES_OID, serialize_identity
from sovchain.protocol.keys import partial_composite_range

EXAMPLES = Path(__file__).parents[2] / "examples"
LAW = (EXAMPLES / "laws" / "guiyang-data-sharing.cedar").read_text()
START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
CITY = "CN-GZ-520100"


def organisation(name: str, jurisdiction: str, role: str, clearance: str) -> Organisation:
    return Organisation(
        msp_id=f"{name}MSP",
        legal_id=f"91520100{name.upper():0<10.10}",
        name=name,
        jurisdiction=jurisdiction,
        roles=(role,),
        clearance=clearance,  # type: ignore[arg-type]  # a literal of the code list
    )


ORGANISATIONS = {
    one.name: one
    for one in (
        organisation("Government", CITY, "official", "core"),
        organisation("Finance", CITY, "analyst", "important"),
        organisation("Logistics", CITY, "operator", "important"),
        organisation("Supervisor", "CN-GZ", "supervisor", "core"),
        organisation("OverseasCarrier", "SG", "carrier", "general"),
    )
}


@cache
def creator(
    name: str, unit: str = "client", role: str | None = "", clearance: str | None = "", user: str = "", office: str = ""
) -> bytes:
    """A serialized identity. Role and clearance are the registered ones unless given; None leaves the attribute out."""
    entry = ORGANISATIONS.get(name)
    claims = {
        "role": (entry.roles[0] if entry else "analyst") if role == "" else role,
        "clearance": (entry.clearance if entry else "general") if clearance == "" else clearance,
        "office": office or None,
    }
    key = ec.generate_private_key(ec.SECP256R1())
    user = user or ("Admin" if unit == "admin" else "User1")
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{user}@{name.lower()}.example"),
        ]
    )
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ca.{name.lower()}.example")])
    attributes = json.dumps({"attrs": {claim: value for claim, value in claims.items() if value is not None}}).encode()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(START - timedelta(days=1))
        .not_valid_after(START + timedelta(days=3650))
        .add_extension(x509.UnrecognizedExtension(ATTRIBUTES_OID, attributes), critical=False)
        .sign(key, hashes.SHA256())
    )
    return serialize_identity(f"{name}MSP", certificate.public_bytes(serialization.Encoding.PEM))


class _Rows(Items[KeyValue]):
    def __init__(self, rows: Sequence[KeyValue]) -> None:
        self._rows = iter(rows)

    async def __anext__(self) -> KeyValue:
        for row in self._rows:
            return row
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._rows = iter(())


class MemoryStub(Stub):
    """One call. Reads see what is committed, never its own writes; private data is there on the owner's peer only."""

    def __init__(
        self,
        ledger: MemoryLedger,
        caller: bytes,
        args: Sequence[bytes],
        transient: Mapping[str, bytes],
        moment: datetime,
        peer: str | None,
    ) -> None:
        self._ledger, self._creator, self._args, self._transient = ledger, caller, tuple(args), dict(transient)
        self._moment, self._peer = moment, peer
        nonce = len(ledger.transactions).to_bytes(24, "big")
        self._id = hashlib.sha256(nonce + caller).hexdigest()
        self.writes: dict[str, bytes | None] = {}
        self.private_writes: dict[tuple[str, str], bytes | None] = {}
        self.event: tuple[str, bytes] | None = None

    transaction_id = property(lambda self: self._id)  # type: ignore[assignment]  # the abstract property's value
    channel_id = property(lambda self: self._ledger.channel)  # type: ignore[assignment]
    timestamp = property(lambda self: self._moment)  # type: ignore[assignment]
    creator = property(lambda self: self._creator)  # type: ignore[assignment]
    args = property(lambda self: self._args)  # type: ignore[assignment]
    transient = property(lambda self: self._transient)  # type: ignore[assignment]

    async def get_state(self, key: str) -> bytes | None:
        return self._ledger.state.get(key)

    async def put_state(self, key: str, value: bytes) -> None:
        assert value
        assert not self.read_only
        self.writes[key] = value

    async def delete_state(self, key: str) -> None:
        self.writes[key] = None

    def _between(self, start: str, end: str) -> list[KeyValue]:
        return [KeyValue(key, value) for key, value in sorted(self._ledger.state.items()) if start <= key < end]

    def range(self, start: str = "", end: str = "") -> Items[KeyValue]:
        return _Rows(self._between(start or "\x01", end or "\U0010ffff"))

    def partial_composite_range(self, object_type: str, attributes: Sequence[str] = ()) -> Items[KeyValue]:
        return _Rows(self._between(*partial_composite_range(object_type, list(attributes))))

    async def partial_composite_page(
        self, object_type: str, attributes: Sequence[str] = (), *, page_size: int = 100, bookmark: str = ""
    ) -> Page[KeyValue]:
        assert not self.writes
        start, end = partial_composite_range(object_type, list(attributes))
        rows = self._between(bookmark or start, end)
        return Page(tuple(rows[:page_size]), rows[page_size].key if len(rows) > page_size else "")

    async def get_private_data(self, collection: str, key: str) -> bytes | None:
        if self._peer is None or collection != f"_implicit_org_{self._peer}MSP":
            raise AssertionError(f"the peer of {self._peer} has no data of {collection}")
        return self._ledger.private.get((collection, key))

    async def put_private_data(self, collection: str, key: str, value: bytes) -> None:
        self.private_writes[collection, key] = value

    async def delete_private_data(self, collection: str, key: str) -> None:
        self.private_writes[collection, key] = None

    async def get_private_data_hash(self, collection: str, key: str) -> bytes | None:
        value = self._ledger.private.get((collection, key))
        return hashlib.sha256(value).digest() if value is not None else None

    async def set_validation_parameter(self, key: str, policy: bytes) -> None:
        assert policy

    def set_event(self, name: str, payload: bytes) -> None:
        assert not self.read_only
        self.event = (name, payload)


@dataclass
class Committed:
    """One transaction as a block would show it to everybody."""

    transaction_id: str
    creator: bytes
    timestamp: datetime
    args: tuple[bytes, ...]
    payload: bytes
    writes: dict[str, bytes | None]
    private_hashes: dict[tuple[str, str], str]
    event: tuple[str, bytes] | None
    state_before: dict[str, bytes] = field(repr=False)


class MemoryLedger:
    """State, private data and transactions of one channel."""

    def __init__(self, chaincode: Chaincode, channel: str) -> None:
        self.chaincode, self.channel = chaincode, channel
        self.state: dict[str, bytes] = {}
        self.private: dict[tuple[str, str], bytes] = {}
        self.transactions: list[Committed] = []
        self.now = START

    async def submit(self, who: str | bytes, operation: Operation[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run and commit; one second passes. Raises ContractError."""
        self.now += timedelta(seconds=1)
        stub, payload = await self._run(who, None, operation, args, kwargs)
        self.transactions.append(
            Committed(
                stub.transaction_id,
                stub.creator,
                stub.timestamp,
                stub.args,
                payload,
                stub.writes,
                {place: hashlib.sha256(value or b"").hexdigest() for place, value in stub.private_writes.items()},
                stub.event,
                dict(self.state),
            )
        )
        for key, value in stub.writes.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        self.private.update({place: value for place, value in stub.private_writes.items() if value is not None})
        return operation.decode(payload)

    async def evaluate(
        self, who: str | bytes, operation: Operation[..., Any], *args: Any, peer: str | None = None, **kwargs: Any
    ) -> Any:
        """Run on the peer of `peer` (an organisation's name) without committing. Raises ContractError."""
        stub, payload = await self._run(who, peer, operation, args, kwargs)
        assert not stub.writes
        assert not stub.private_writes
        return operation.decode(payload)

    async def _run(
        self, who: str | bytes, peer: str | None, operation: Operation[..., Any], args: Any, kwargs: Any
    ) -> tuple[MemoryStub, bytes]:
        call = operation.encode(*args, **kwargs)
        caller = identity_of(who)
        stub = MemoryStub(self, caller, call.args, call.transient, self.now, peer)
        response = await self.chaincode.invoke(stub)
        if response.status != 200:
            refused = ContractError.from_message(response.message)
            raise refused if refused is not None else AssertionError(response.message)
        return stub, response.payload


class StateBefore:
    """A committed state as an auditor replays it."""

    def __init__(self, state: Mapping[str, bytes]) -> None:
        self._state = state

    async def get(self, key: str) -> bytes | None:
        return self._state.get(key)

    async def range(self, start: str, end: str) -> AsyncIterator[tuple[str, bytes]]:
        for key in sorted(self._state):
            if start <= key < end:
                yield key, self._state[key]


def identity_of(who: str | bytes) -> bytes:
    """`Finance` is its client, `Finance/admin` its administrator; bytes are taken as they are."""
    if isinstance(who, bytes):
        return who
    name, _, unit = who.partition("/")
    return creator(name, unit or "client")


async def admit_everyone(ledger: MemoryLedger, sector: str = "Finance") -> None:
    ballot = await ledger.submit("Government/admin", Registry.propose_admission, list(ORGANISATIONS.values()))
    for name in ("Government", "Supervisor", sector):
        await ledger.submit(f"{name}/admin", Registry.vote, ballot)


async def enact(ledger: MemoryLedger, text: str, sector: str = "Finance") -> str:
    draft = await ledger.submit("Government/admin", Laws.propose, text)
    for name in ("Government", "Supervisor", sector):
        await ledger.submit(f"{name}/admin", Laws.vote, draft.ballot)
    return str(draft.ballot)


def law(
    policies: str,
    *,
    law_id: str = "T-1",
    version: int = 1,
    jurisdiction: str = CITY,
    effective_from: str = "2026-01-01T00:00:00Z",
) -> str:
    """A law's text. In `policies`, `@c("x")` stands for the three annotations of clause x."""
    level = ("nation", "province", "city")[jurisdiction.count("-")]
    body = policies.replace("@c(", f'@law("{law_id}") @version("{version}") @clause(')
    return (
        f"// law: {law_id}\n// version: {version}\n// title: a law for tests\n// level: {level}\n"
        f"// jurisdiction: {jurisdiction}\n// effective-from: {effective_from}\n\n{body}\n"
    )
