"""What a contract method learns about the call that it serves: who, when, on which channel, with what."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sovchain.chaincode.errors import StubUseError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography import x509
    from pydantic import BaseModel

    from sovchain.chaincode.blocking import BlockingStub
    from sovchain.chaincode.blockingrecords import BlockingPrivateRecords, BlockingRecords
    from sovchain.chaincode.records import PrivateRecords, Records, Written
    from sovchain.chaincode.stub import Stub
    from sovchain.protocol.identity import Identity

M = TypeVar("M", bound="BaseModel")

NODE_ROLES = ("client", "peer", "admin", "orderer")


class ClientIdentity:
    """Who signed the proposal. The peer has already checked signature, certificate chain and channel access.

    Mirrors fabric-chaincode-go/pkg/cid/cid.go.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    @property
    def msp_id(self) -> str:
        """The MSP that issued the identity."""
        return self._identity.msp_id

    @property
    def id(self) -> str:
        """`x509::<subject>::<issuer>`: unique within the MSP."""
        return self._identity.client_id

    @property
    def attributes(self) -> Mapping[str, str]:
        """The attributes that the CA wrote into the certificate (extension 1.2.3.4.5.6.7.8.1)."""
        return self._identity.attributes

    @property
    def organizational_units(self) -> tuple[str, ...]:
        """The OU values of the certificate's subject."""
        return self._identity.organizational_units

    @property
    def role(self) -> str | None:
        """`client`, `peer`, `admin` or `orderer` if exactly one of these is an OU of the certificate, else None."""
        found = [role for role in NODE_ROLES if role in self._identity.organizational_units]
        return found[0] if len(found) == 1 else None

    @property
    def certificate(self) -> x509.Certificate:
        """The X.509 certificate."""
        return self._identity.certificate

    @property
    def serialized(self) -> bytes:
        """The marshalled `SerializedIdentity`."""
        return self._identity.serialized

    def __repr__(self) -> str:
        return f"ClientIdentity(msp_id={self.msp_id!r}, id={self.id!r})"


class Context:
    """One call of a contract method; a new one is made for each call.

    A contract must come to the same result on every peer: take the time from `timestamp`, never from a clock, and use
    no randomness, environment or network.
    """

    def __init__(self, stub: Stub) -> None:
        self.stub: Stub = stub
        self._written: Written = {}
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    @cached_property
    def identity(self) -> ClientIdentity:
        """Who signed the proposal.

        Raises:
            MalformedError: the creator is not an X.509 identity.
        """
        from sovchain.protocol.identity import parse_identity

        return ClientIdentity(parse_identity(self.stub.creator))

    @property
    def transaction_id(self) -> str:
        """Hexadecimal SHA-256 that names the transaction."""
        return self.stub.transaction_id

    @property
    def channel_id(self) -> str:
        """The channel whose ledger this call sees."""
        return self.stub.channel_id

    @property
    def timestamp(self) -> datetime:
        """The time in the proposal, in UTC: the only time that a contract may use.

        The client's clock set it. Peers refuse proposals outside a window around their own time.
        """
        return self.stub.timestamp

    @property
    def transient(self) -> Mapping[str, bytes]:
        """What the client sent beside the proposal; it is never recorded."""
        return self.stub.transient

    @cached_property
    def blocking(self) -> BlockingStub:
        """The stub for a contract method without `async`, which runs in a thread of its own.

        Raises:
            StubUseError: the context was made outside an event loop.
        """
        from sovchain.chaincode.blocking import BlockingStub

        return BlockingStub(self.stub, self._running_loop())

    def records(self, model: type[M]) -> Records[M]:
        """The records of a model in public state.

        Raises:
            DefinitionError: the model is no record (`sovchain.chaincode.record`).
        """
        from sovchain.chaincode.records import Records

        return Records(self.stub, model, self._written)

    def private_records(self, model: type[M], collection: str) -> PrivateRecords[M]:
        """The records of a model in a private collection.

        Raises:
            DefinitionError: the model is no record (`sovchain.chaincode.record`).
        """
        from sovchain.chaincode.records import PrivateRecords

        return PrivateRecords(self.stub, model, self._written, collection)

    def blocking_records(self, model: type[M]) -> BlockingRecords[M]:
        """As `records`, for a contract method without `async`. Raises DefinitionError, StubUseError."""
        from sovchain.chaincode.blocking import Bridge
        from sovchain.chaincode.blockingrecords import BlockingRecords

        return BlockingRecords(self.records(model), Bridge(self._running_loop()))

    def blocking_private_records(self, model: type[M], collection: str) -> BlockingPrivateRecords[M]:
        """As `private_records`, for a contract method without `async`. Raises DefinitionError, StubUseError."""
        from sovchain.chaincode.blocking import Bridge
        from sovchain.chaincode.blockingrecords import BlockingPrivateRecords

        return BlockingPrivateRecords(self.private_records(model, collection), Bridge(self._running_loop()))

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise StubUseError("the blocking stub needs a context that was made inside an event loop")
        return self._loop

    def set_event(self, name: str, payload: Any) -> None:
        """Attach an event to the transaction: bytes and text as they are, any other value as canonical JSON.

        There is one event; the last call wins; a refused transaction has none. Its payload is on the ledger.

        Raises:
            StubUseError: the name is empty, or the operation is a query.
            ResultError: the payload is no JSON value (a float, an object of an unknown kind).
        """
        from sovchain.chaincode.values import encode_value

        self.stub.set_event(name, encode_value(payload))
