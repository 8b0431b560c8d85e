"""What a client knows of a channel by itself, to judge what a gateway brings: organisations, policies, definitions.

A gateway collects the endorsements and the client signs what comes of it. A peer that lies or is broken cannot make an
invalid transaction valid, but it can have one signed that will be thrown away, and no official client looks. With

    trust = ChannelTrust(config_block)
    await contract.with_options(endorsement_check=trust).submit(...)

the endorsements are held against the channel's own MSPs and the chaincode's policy before the client signs, by the same
rules as a committer's (`sovchain.protocol.endorsement`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fabric_protos.common import common_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from google.protobuf.message import DecodeError

from sovchain.client.errors import EndorsementsInsufficient, TrustError
from sovchain.client.proposal import Proposal
from sovchain.client.session import Session
from sovchain.protocol import lifecycle, policydsl
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.endorsement import VALIDATION_PARAMETER, EndorsementError, EndorsementValidator
from sovchain.protocol.errors import ProtocolError
from sovchain.protocol.lifecycle import ChaincodeDefinition
from sovchain.protocol.proposals import Invocation
from sovchain.protocol.rwset import Version
from sovchain.protocol.transactions import ParsedTransaction


class ChannelTrust:
    """Judges endorsements by a channel configuration that you give it, and by chaincode definitions.

    The policies of single keys are in the ledger's state, which no client can read: name those keys in `key_policies`;
    where one is not named, the policy of its chaincode or collection is asked for.
    """

    def __init__(
        self,
        config_block: common_pb2.Block | bytes,
        *,
        definitions: Mapping[str, ChaincodeDefinition] | None = None,
        key_policies: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        """Take the channel's configuration.

        Args:
            config_block: a config block of the channel, from a source that you trust: an administrator, a file, another
                organisation's peer.
            definitions: definitions of chaincodes by their names. What is missing is asked of the gateway once and kept,
                so that a policy that is weakened later is noticed.
            key_policies: endorsement policies of single keys, in Fabric's policy language, by (chaincode, key).

        Raises:
            TrustError: the block holds no configuration, or a policy cannot be read.
        """
        try:
            block = common_pb2.Block.FromString(config_block) if isinstance(config_block, bytes) else config_block
            self._bundle = ChannelBundle.from_block(block)
            self._key_policies = {
                place: policydsl.parse(text).SerializeToString(deterministic=True)
                for place, text in (key_policies or {}).items()
            }
        except (ProtocolError, DecodeError) as error:
            raise TrustError(str(error)) from error
        self._definitions = {name: lifecycle.with_defaults(one) for name, one in (definitions or {}).items()}

    @property
    def channel_id(self) -> str:
        """The channel that the configuration is of."""
        return self._bundle.channel_id

    @property
    def msp_ids(self) -> tuple[str, ...]:
        """The organisations whose identities it can judge."""
        return self._bundle.msps.msp_ids

    async def check(self, session: Session, transaction: ParsedTransaction) -> None:
        """Judge a prepared transaction.

        Raises:
            EndorsementsInsufficient: it would be marked invalid for its endorsements, or is of another channel.
            TrustError: the definition of a chaincode cannot be asked for.
            EvaluateError, ConnectError, UnexpectedReply: as for any evaluation.
        """
        if transaction.channel_id != self._bundle.channel_id:
            raise EndorsementsInsufficient(
                f"it is of channel {transaction.channel_id}, the configuration of {self._bundle.channel_id}",
                transaction_id=transaction.transaction_id,
            )
        for name in {transaction.chaincode, *(entry.namespace for entry in transaction.rwset.namespaces)}:
            if name not in self._definitions and name != lifecycle.LIFECYCLE_NAMESPACE:
                self._definitions[name] = await self._ask(session, name)
        try:
            EndorsementValidator(self._bundle, _Known(self._definitions, self._key_policies)).validate(0, transaction)
        except EndorsementError as error:
            raise EndorsementsInsufficient(error.reason, transaction_id=transaction.transaction_id) from error

    async def _ask(self, session: Session, name: str) -> ChaincodeDefinition:
        question = lifecycle_pb2.QueryChaincodeDefinitionArgs(name=name).SerializeToString()
        invocation = Invocation(
            session.channel_id, lifecycle.LIFECYCLE_NAMESPACE, (b"QueryChaincodeDefinition", question)
        )
        decode = lifecycle_pb2.QueryChaincodeDefinitionResult.FromString
        found = await Proposal.build(session, invocation, decode).evaluate()
        if not found.validation_parameter:
            raise TrustError(f"the gateway's definition of chaincode {name} has no endorsement policy")
        return lifecycle.with_defaults(
            ChaincodeDefinition(
                name=name,
                version=found.version,
                sequence=found.sequence,
                endorsement_policy=found.validation_parameter,
                collections=found.collections if found.HasField("collections") else None,
                init_required=found.init_required,
                endorsement_plugin=found.endorsement_plugin,
                validation_plugin=found.validation_plugin,
            )
        )


@dataclass(frozen=True)
class _Known:
    """The part of a channel's state that judging endorsements reads, from what the client knows."""

    definitions: Mapping[str, ChaincodeDefinition]
    key_policies: Mapping[tuple[str, str], bytes]

    def get(self, namespace: str, key: str) -> bytes | None:
        if namespace != lifecycle.LIFECYCLE_NAMESPACE:
            return None
        writes = (lifecycle.definition_writes(one) for one in self.definitions.values())
        return next((found[key] for found in writes if key in found), None)

    def metadata(self, namespace: str, key: str) -> Mapping[str, bytes]:
        policy = self.key_policies.get((namespace, key))
        return {} if policy is None else {VALIDATION_PARAMETER: policy}

    def version(self, namespace: str, key: str) -> Version | None:
        return None

    def hashed_version(self, namespace: str, collection: str, key_hash: bytes) -> Version | None:
        return None

    def hashed_value(self, namespace: str, collection: str, key_hash: bytes) -> bytes | None:
        return None

    def hashed_metadata(self, namespace: str, collection: str, key_hash: bytes) -> Mapping[str, bytes]:
        return {}

    def range(self, namespace: str, start: str, end: str) -> Iterator[tuple[str, bytes, Version]]:
        return iter(())
