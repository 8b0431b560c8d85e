"""hfc's `Client`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from fabric_protos.common import common_pb2, configtx_pb2, ledger_pb2
from fabric_protos.peer import query_pb2, transaction_pb2

from sovchain.client.contract import Contract
from sovchain.client.errors import CommitRejected, EndorseError, OutcomeUnknown, SubmitError
from sovchain.client.gateway import Gateway
from sovchain.client.hfc.decode import decode_block, decode_envelope
from sovchain.client.hfc.errors import GoneInGateway, HfcError
from sovchain.client.hfc.objects import Channel, Orderer, Organization, Peer, User
from sovchain.client.network import Network
from sovchain.client.profile import Profile

Args = Sequence[str | bytes] | None
Peers = Sequence["Peer | str"]


class Client:
    """hfc's client: a profile with the peers and users of one or several organisations.

    It belongs to the event loop that its coroutines run in. End with `close_grpc_channels`.
    """

    def __init__(self, net_profile: str | Path | None = None) -> None:
        self.network_info: dict[str, Any] = {}
        self._folder = Path()
        self._organizations: dict[str, Organization] = {}
        self._peers: dict[str, Peer] = {}
        self._orderers: dict[str, Orderer] = {}
        self._channels: dict[str, Channel] = {}
        self._gateways: dict[tuple[str, str, str], Gateway] = {}
        self._stack = AsyncExitStack()
        self._connecting = asyncio.Lock()
        self._client_pair: tuple[bytes, bytes] | None = None
        if net_profile:
            self.init_with_net_profile(net_profile)

    def init_with_net_profile(self, profile_path: str | Path = "network.json") -> None:
        """Read a connection profile in hfc's form. Paths in it are relative to the working directory, as hfc has it.

        Raises HfcError.
        """
        try:
            self.network_info = json.loads(Path(profile_path).read_bytes())
            organizations = self.network_info.get("organizations") or {}
            for name, bundle in organizations.items():
                self._organizations[name] = Organization(name, bundle, self._folder)
            owners = {peer: org.mspid for org in self._organizations.values() for peer in org.peers}
            for name, bundle in (self.network_info.get("peers") or {}).items():
                self._peers[name] = Peer(name, str(bundle["url"]).split("://")[-1], owners.get(name, ""))
            for name, bundle in (self.network_info.get("orderers") or {}).items():
                self._orderers[name] = Orderer(name, str(bundle["url"]).split("://")[-1])
        except OSError as error:
            raise HfcError(f"profile {profile_path} cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HfcError(f"profile {profile_path} is no connection profile ({type(error).__name__})") from None

    # -- what the profile holds --------------------------------------------------------------------------------------

    @property
    def organizations(self) -> dict[str, Organization]:
        """The organisations by their names."""
        return self._organizations

    @property
    def peers(self) -> dict[str, Peer]:
        """The peers by their names."""
        return self._peers

    @property
    def orderers(self) -> dict[str, Orderer]:
        """The ordering nodes by their names."""
        return self._orderers

    def get_user(self, org_name: str, name: str) -> User | None:
        """Return a user of an organisation, or None."""
        organization = self._organizations.get(org_name)
        return None if organization is None else organization.get_user(name)

    def get_peer(self, name: str) -> Peer | None:
        """Return a peer, or None."""
        return self._peers.get(name)

    def get_orderer(self, name: str) -> Orderer | None:
        """Return an ordering node, or None."""
        return self._orderers.get(name)

    def get_net_info(self, *key_path: str) -> Any:
        """Return what the profile holds under these keys, or None."""
        found: Any = self.network_info
        for key in key_path:
            if not isinstance(found, dict) or key not in found:
                return None
            found = found[key]
        return found

    def export_net_profile(self, export_file: str | Path = "network_exported.json") -> None:
        """Write the profile to a file."""
        Path(export_file).write_text(json.dumps(self.network_info, indent=4))

    def new_channel(self, name: str) -> Channel:
        """Return the channel of this name."""
        return self._channels.setdefault(name, Channel(name, self))

    def get_channel(self, name: str) -> Channel | None:
        """Return a channel that `new_channel` has named, or None."""
        return self._channels.get(name)

    def set_tls_client_cert_and_key(
        self, client_key_file: str | Path | None = None, client_cert_file: str | Path | None = None
    ) -> bool:
        """Use a TLS client certificate for connections that are made from now on. False if a file cannot be read."""
        if client_key_file is None or client_cert_file is None:
            return False
        try:
            self._client_pair = Path(client_cert_file).read_bytes(), Path(client_key_file).read_bytes()
        except OSError:
            return False
        return True

    async def close_grpc_channels(self) -> None:
        """Close all connections. A later call makes new ones."""
        self._gateways.clear()
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    # -- chaincode ---------------------------------------------------------------------------------------------------

    async def chaincode_invoke(
        self,
        requestor: User,
        channel_name: str,
        peers: Peers,
        args: Args,
        cc_name: str,
        cc_type: str = "GOLANG",
        fcn: str | None = "invoke",
        cc_pattern: str | None = None,
        transient_map: Mapping[str, bytes | str] | None = None,
        wait_for_event: bool = False,
        wait_for_event_timeout: float = 30,
        grpc_broker_unavailable_retry: int = 0,
        grpc_broker_unavailable_retry_delay: float = 3000,
        raise_broker_unavailable: bool = True,
    ) -> str:
        """Have a transaction endorsed by the organisations of `peers`, and ordered.

        As hfc does, this returns a refusal's message as if it were a result: look at it, or use `sovchain.client`, which
        raises.

        Args:
            requestor: who signs.
            channel_name: a channel that `new_channel` has named.
            peers: peers by name or object; their organisations endorse.
            args: the arguments.
            cc_name: the chaincode.
            cc_type: not used: a peer knows.
            fcn: the function; None for none.
            cc_pattern: not used: a commit is waited for by its transaction id.
            transient_map: transient data.
            wait_for_event: whether to wait for the commit.
            wait_for_event_timeout: how long, in seconds.
            grpc_broker_unavailable_retry, grpc_broker_unavailable_retry_delay, raise_broker_unavailable: not used: the
                gateway goes on to other peers of the organisations by itself.

        Raises:
            TimeoutError: the commit was waited for and did not come in time.
            CommitRejected: it was waited for and is invalid. (hfc raises Exception with the list of codes.)
            ConnectError, OutcomeUnknown, UnexpectedReply: as for `Contract.submit`.
        """
        targets = self._targets(peers)
        contract = await self._contract(requestor, channel_name, cc_name, targets)
        parts = _parts(fcn, args)
        try:
            proposal = contract.proposal(parts[0], *parts[1:], transient=transient_map)
            pending = await (await proposal.endorse()).submit()
        except EndorseError as error:
            return error.chaincode_message or str(error)
        except SubmitError as error:
            return str(error)
        if wait_for_event:
            try:
                await pending.committed(timeout_s=wait_for_event_timeout)
            except CommitRejected:
                raise
            except OutcomeUnknown as unknown:
                raise TimeoutError("waitForEvent timed out.") from unknown
        result: bytes = pending.result
        return result.decode()

    async def chaincode_query(
        self,
        requestor: User,
        channel_name: str,
        peers: Peers,
        args: Args,
        cc_name: str,
        cc_type: str = "GOLANG",
        fcn: str | None = "query",
        transient_map: Mapping[str, bytes | str] | None = None,
    ) -> str:
        """Evaluate on a peer of the organisations of `peers` (hfc: on all of them, returning the first answer).

        Raises EvaluateError where hfc raises Exception; ConnectError, UnexpectedReply.
        """
        contract = await self._contract(requestor, channel_name, cc_name, self._targets(peers))
        parts = _parts(fcn, args)
        result: bytes = await contract.evaluate(parts[0], *parts[1:], transient=transient_map)
        return result.decode()

    # -- the ledger --------------------------------------------------------------------------------------------------

    async def query_info(
        self, requestor: User, channel_name: str, peers: Peers, decode: bool = True
    ) -> ledger_pb2.BlockchainInfo | bytes:
        """Ask how long the chain is; `decode=False` for the bytes. Raises EvaluateError, ConnectError."""
        data = await self._system(requestor, channel_name, peers, "qscc", "GetChainInfo", channel_name)
        return ledger_pb2.BlockchainInfo.FromString(data) if decode else data

    async def query_block(
        self, requestor: User, channel_name: str, peers: Peers, block_number: str | int, decode: bool = True
    ) -> dict[str, Any] | bytes:
        """Read a block by its number, as a dictionary of hfc's shape. Raises EvaluateError, ConnectError."""
        arguments = (channel_name, str(block_number))
        data = await self._system(requestor, channel_name, peers, "qscc", "GetBlockByNumber", *arguments)
        return decode_block(data) if decode else data

    async def query_block_by_hash(
        self, requestor: User, channel_name: str, peers: Peers, block_hash: bytes, decode: bool = True
    ) -> dict[str, Any] | bytes:
        """Read a block by the hash of its header. Raises EvaluateError, ConnectError."""
        arguments = (channel_name, block_hash)
        data = await self._system(requestor, channel_name, peers, "qscc", "GetBlockByHash", *arguments)
        return decode_block(data) if decode else data

    async def query_block_by_txid(
        self, requestor: User, channel_name: str, peers: Peers, tx_id: str, decode: bool = True
    ) -> dict[str, Any] | bytes:
        """Read the block that holds a transaction. Raises EvaluateError, ConnectError."""
        data = await self._system(requestor, channel_name, peers, "qscc", "GetBlockByTxID", channel_name, tx_id)
        return decode_block(data) if decode else data

    async def query_transaction(
        self, requestor: User, channel_name: str, peers: Peers, tx_id: str, decode: bool = True
    ) -> dict[str, Any] | bytes:
        """Read a transaction with its validation code. Raises EvaluateError, ConnectError."""
        data = await self._system(requestor, channel_name, peers, "qscc", "GetTransactionByID", channel_name, tx_id)
        if not decode:
            return data
        processed = transaction_pb2.ProcessedTransaction.FromString(data)
        return {
            "validation_code": processed.validationCode,
            "transaction_envelope": decode_envelope(processed.transactionEnvelope),
        }

    async def query_channels(
        self, requestor: User, peers: Peers, transient_map: Mapping[str, bytes] | None = None, decode: bool = True
    ) -> query_pb2.ChannelQueryResponse | bytes:
        """Ask which channels a peer has joined, by way of the channels that `new_channel` has named.

        The gateway evaluates on channels alone, so one must have been named. Raises HfcError, EvaluateError, ConnectError.
        """
        if not self._channels:
            raise HfcError("no channel is named: call new_channel first")
        channel = next(iter(self._channels))
        data = await self._system(requestor, channel, peers, "cscc", "GetChannels")
        return query_pb2.ChannelQueryResponse.FromString(data) if decode else data

    async def get_channel_config(
        self, requestor: User, channel_name: str, peers: Peers, decode: bool = True
    ) -> list[configtx_pb2.ConfigEnvelope] | list[bytes]:
        """Read the channel's configuration; `decode=False` for the bytes of the block that holds it.

        A list, as with hfc, which asks each of `peers`; the gateway asks one of them. Raises EvaluateError, ConnectError.
        """
        data = await self._system(requestor, channel_name, peers, "cscc", "GetConfigBlock", channel_name)
        if not decode:
            return [data]
        envelope = common_pb2.Envelope.FromString(common_pb2.Block.FromString(data).data.data[0])
        payload = common_pb2.Payload.FromString(envelope.payload)
        return [configtx_pb2.ConfigEnvelope.FromString(payload.data)]

    # -- gone --------------------------------------------------------------------------------------------------------

    async def channel_create(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway("channel_create", "channels are founded with a genesis block (sovchain.network, osnadmin)")

    async def channel_update(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway("channel_update", "change channel configurations with sovchain.network")

    async def channel_join(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway("channel_join", "peers are joined by sovchain.network, or `peer channel join`")

    async def chaincode_install(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway("chaincode_install", "Fabric 2.x has a lifecycle: Network.deploy, or `peer lifecycle`")

    async def chaincode_instantiate(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway("chaincode_instantiate", "approve and commit a definition: Network.deploy")

    async def chaincode_upgrade(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway("chaincode_upgrade", "commit the next sequence of the definition: Network.deploy")

    async def query_installed_chaincodes(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway("query_installed_chaincodes", "lscc is gone: `peer lifecycle chaincode queryinstalled`")

    async def query_instantiated_chaincodes(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway(
            "query_instantiated_chaincodes", "lscc is gone: evaluate _lifecycle:QueryChaincodeDefinitions"
        )

    async def query_peers(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway("query_peers", "the gateway discovers peers by itself")

    async def init_with_discovery(self, *args: Any, **kwargs: Any) -> None:
        """Gone. Raises GoneInGateway."""
        raise GoneInGateway("init_with_discovery", "give the profile; the gateway discovers peers by itself")

    # ----------------------------------------------------------------------------------------------------------------

    def known_peer(self, peer: Peer | str) -> Peer:
        """Return a peer by its name or itself. Raises HfcError."""
        found = peer if isinstance(peer, Peer) else self._peers.get(peer)
        if found is None:
            raise HfcError(f"peer {peer} is not in the profile")
        return found

    async def network(self, requestor: User, channel_name: str, targets: Sequence[Peer]) -> Network:
        """Return a channel through the requestor's gateway: one of `targets` of its own organisation, else its first."""
        if channel_name not in self._channels:
            raise HfcError(f"channel {channel_name} is not known: call new_channel first")
        own = [peer for peer in targets if peer.msp_id == requestor.msp_id]
        organization = self._organizations.get(requestor.org)
        if not own and organization is not None:
            own = [self._peers[name] for name in organization.peers if name in self._peers][:1]
        if not own:
            raise HfcError(f"organisation {requestor.org} has no peer in the profile that could be its gateway")
        key = (requestor.msp_id, requestor.identity.client_id, own[0].name)
        async with self._connecting:
            if key not in self._gateways:
                connecting = Gateway.connect(self._profile(requestor, own[0]), requestor.identity, insecure=True)
                self._gateways[key] = await self._stack.enter_async_context(connecting)
        return self._gateways[key].network(channel_name)

    def _profile(self, requestor: User, peer: Peer) -> Profile:
        bundle = self.network_info["peers"][peer.name]
        tls = bundle.get("tlsCACerts") or {}
        root = tls["pem"] if "pem" in tls else (self._folder / tls["path"]).read_text() if "path" in tls else None
        options = bundle.get("grpcOptions") or {}
        name = options.get("ssl-target-name-override") or options.get("grpc.ssl_target_name_override") or ""
        certificate, key = self._client_pair or (None, None)
        return Profile.from_addresses(
            requestor.msp_id,
            [peer.endpoint],
            tls_root_pem=root,
            server_name=str(name),
            client_certificate_pem=certificate,
            client_key_pem=key,
        )

    def _targets(self, peers: Peers) -> list[Peer]:
        if not peers:
            raise HfcError("no peer is given")
        return [self.known_peer(peer) for peer in peers]

    async def _contract(self, requestor: User, channel: str, chaincode: str, targets: list[Peer]) -> Contract:
        network = await self.network(requestor, channel, targets)
        organizations = dict.fromkeys(peer.msp_id for peer in targets)
        return network.contract(chaincode).with_options(organizations=list(organizations))

    async def _system(
        self, requestor: User, channel: str, peers: Peers, chaincode: str, function: str, *arguments: str | bytes
    ) -> bytes:
        network = await self.network(requestor, channel, self._targets(peers))
        return await network.contract(chaincode).evaluate(function, *arguments)


def _parts(fcn: str | None, args: Args) -> list[Any]:
    """The arguments as hfc sends them: the function, if there is one, before the others."""
    parts = [*([fcn] if fcn else []), *(args or ())]
    if not parts:
        raise HfcError("neither fcn nor args are given")
    return parts
