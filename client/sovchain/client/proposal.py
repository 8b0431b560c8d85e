"""The first step of a transaction: what is asked of a chaincode, to be evaluated or endorsed.

`Contract.evaluate` and `Contract.submit` take all steps in one go.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import proposal_pb2, proposal_response_pb2
from google.protobuf.message import DecodeError

from sovchain.chaincode.errors import ResultError
from sovchain.client._catchup import catching_up
from sovchain.client._endpoint import CallFailed, Endpoint
from sovchain.client.errors import EndorseError, EvaluateError, UnexpectedReply
from sovchain.client.session import Session, public_error, seconds_left
from sovchain.client.transaction import Transaction
from sovchain.protocol.crypto import sha256
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.proposals import (
    Invocation,
    build_proposal,
    parse_signed_proposal,
    proposal_hash,
    strip_transient,
)
from sovchain.protocol.transactions import ParsedTransaction, parse_transaction

R_co = TypeVar("R_co", covariant=True)

NONCE_BYTES: Final = 24
"""Length of the nonce that the official clients use."""


class Proposal(Generic[R_co]):
    """What is asked of a chaincode. Made by `Contract.proposal`; its transaction id is known before anything is sent.

    It is signed when it is first sent, by the gateway's identity, or before that with `with_signature`.
    """

    def __init__(
        self,
        session: Session,
        transaction_id: str,
        proposal_bytes: bytes,
        decode: Callable[[bytes], R_co],
        *,
        signature: bytes = b"",
        end: float | None = None,
    ) -> None:
        self._session = session
        self._id = transaction_id
        self._bytes = proposal_bytes
        self._decode = decode
        self._signature = signature
        self._end = session.end() if end is None else end

    @classmethod
    def build(
        cls,
        session: Session,
        invocation: Invocation,
        decode: Callable[[bytes], R_co],
        *,
        end: float | None = None,
    ) -> Proposal[R_co]:
        """Make a proposal with a new transaction id. `end` is the end of the whole call, if it has begun already."""
        transaction_id, proposal = build_proposal(
            invocation,
            creator=session.identity.creator,
            nonce=secrets.token_bytes(NONCE_BYTES),
            timestamp=datetime.now(UTC),
        )
        return cls(session, transaction_id, proposal.SerializeToString(), decode, end=end)

    def __repr__(self) -> str:
        return f"Proposal({self._id!r})"

    @property
    def transaction_id(self) -> str:
        """The id that the transaction has if it is submitted."""
        return self._id

    @property
    def message(self) -> bytes:
        """What is signed: the serialised proposal (protos.Proposal). It holds arguments and transient data."""
        return self._bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of `message`, for signers that take digests."""
        return sha256(self._bytes)

    def to_bytes(self) -> bytes:
        """The proposal for another process: `Gateway.load_proposal`, or an official client (gateway.ProposedTransaction).

        It holds arguments and transient data.
        """
        return gateway_pb2.ProposedTransaction(
            transaction_id=self._id,
            proposal=self._signed(),
            endorsing_organizations=self._session.organizations,
        ).SerializeToString()

    def with_signature(self, signature: bytes) -> Proposal[R_co]:
        """Return the same proposal with a signature over `message` that was made elsewhere. Raises SignatureRefused."""
        checked = self._session.identity.checked(self._bytes, signature)
        return Proposal(self._session, self._id, self._bytes, self._decode, signature=checked, end=self._end)

    def _signed(self) -> proposal_pb2.SignedProposal:
        return proposal_pb2.SignedProposal(proposal_bytes=self._bytes, signature=self._signature)

    async def _sign(self) -> None:
        if not self._signature:
            self._signature = await self._session.identity.sign_async(self._bytes)

    async def evaluate(self) -> R_co:
        """Have one peer run the proposal; return the result. Nothing is written.

        Raises:
            EvaluateError, ConnectError, UnexpectedReply.
            SignatureMissing, SignatureRefused: it could not be signed.
        """
        session = self._session
        await self._sign()
        request = gateway_pb2.EvaluateRequest(
            transaction_id=self._id,
            channel_id=session.channel_id,
            proposed_transaction=self._signed(),
            target_organizations=session.organizations,
        ).SerializeToString()
        own_writes = session.read_own_writes and session.state.own_block > 0
        before = catching_up(session) if own_writes else None
        try:
            data, endpoint = await session.call(
                "Evaluate", request, seconds_left(session.timeouts.evaluate_s, self._end), before=before
            )
        except CallFailed as failed:
            raise public_error(EvaluateError, "evaluate", failed, self._id) from None
        try:
            reply = gateway_pb2.EvaluateResponse.FromString(data)
            if not reply.HasField("result"):
                raise self._unexpected("evaluate", "it holds no result", endpoint)
            return self._decode(reply.result.payload)
        except (DecodeError, ResultError, ValueError) as error:
            raise self._unexpected("evaluate", f"the result is not of the declared type ({error})", endpoint) from error

    async def endorse(self) -> Transaction[R_co]:
        """Have as many organisations endorse as the policy asks for.

        The transaction that the gateway prepares is checked before it is signed: its headers, its input and the
        proposal hash that the endorsers signed must be those of this proposal.

        Raises:
            EndorseError, ConnectError, UnexpectedReply.
            EndorsementsInsufficient: the endorsements were to be checked (`Contract.with_options`), and do not suffice.
            SignatureMissing, SignatureRefused: it could not be signed.
        """
        session = self._session
        if session.state.feed is not None and session.identity.can_sign:
            session.state.feed.warm()
        await self._sign()
        request = gateway_pb2.EndorseRequest(
            transaction_id=self._id,
            channel_id=session.channel_id,
            proposed_transaction=self._signed(),
            endorsing_organizations=session.organizations,
        ).SerializeToString()
        try:
            data, endpoint = await session.call("Endorse", request, seconds_left(session.timeouts.endorse_s, self._end))
        except CallFailed as failed:
            raise public_error(EndorseError, "endorse", failed, self._id) from None
        try:
            envelope = gateway_pb2.EndorseResponse.FromString(data).prepared_transaction
            parsed = parse_transaction(envelope.SerializeToString())
        except (DecodeError, ProtocolError) as error:
            raise self._unexpected("endorse", f"the prepared transaction cannot be used ({error})", endpoint) from error
        self._check(envelope.payload, parsed, endpoint)
        if session.check is not None:
            await session.check.check(session, parsed)
        try:
            result = self._decode(parsed.response.payload)
        except (DecodeError, ResultError, ValueError) as error:
            raise self._unexpected("endorse", f"the result is not of the declared type ({error})", endpoint) from error
        return Transaction(session, self._id, envelope.payload, result, end=self._end)

    def _check(self, payload: bytes, parsed: ParsedTransaction, endpoint: Endpoint) -> None:
        """A gateway is not trusted: what it prepared must be what was proposed (internal/pkg/gateway/endorse.go)."""
        if parsed.is_config:
            raise self._unexpected("endorse", "it prepared a configuration; it was not signed", endpoint)
        if not parsed.endorsements:
            raise self._unexpected("endorse", "nobody endorsed the transaction; it was not signed", endpoint)
        proposal = proposal_pb2.Proposal.FromString(self._bytes)
        header = common_pb2.Payload.FromString(payload).header.SerializeToString()
        own_header = common_pb2.Header.FromString(proposal.header)
        # The transient map goes to the endorsers and never into the transaction: the input is all that is left.
        visible = strip_transient(proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload))
        own_hash = proposal_hash(own_header.channel_header, own_header.signature_header, visible)
        hashed = proposal_response_pb2.ProposalResponsePayload.FromString(parsed.response_payload).proposal_hash
        # The hash covers headers and input, and the transaction was parsed against the hash that it carries itself:
        # when header and hash are the proposal's, so are transaction id, channel, chaincode and arguments.
        if header == proposal.header and hashed == own_hash:
            return
        own = parse_signed_proposal(proposal_pb2.SignedProposal(proposal_bytes=self._bytes, signature=self._signature))
        differs = [
            what
            for what, same in (
                ("header", header == proposal.header),
                ("transaction id", parsed.transaction_id == self._id),
                ("channel", parsed.channel_id == self._session.channel_id),
                ("chaincode", parsed.chaincode == own.chaincode),
                ("input", parsed.args == tuple(own.input.args)),
                ("proposal hash", hashed == own_hash),
            )
            if not same
        ]
        text = f"it prepared another transaction than was proposed ({', '.join(differs)}); it was not signed"
        raise self._unexpected("endorse", text, endpoint)

    def _unexpected(self, call: str, text: str, endpoint: Endpoint) -> UnexpectedReply:
        return UnexpectedReply(call, text, endpoint=endpoint.address, transaction_id=self._id)
