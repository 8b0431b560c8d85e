"""No error path tells a payload, a key, a PIN or a password: not in messages, reprs, tracebacks, logs, spans or metrics.

One case for each error class of the client; a class without a case fails the last test.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fakegateway import (
    FakeGateway,
    LiveAuthority,
    Stream,
    commit,
    deliver_status,
    fail,
    key_pem,
    prepared,
    profile_of,
    signing_identity,
)  # fmt: skip
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pki import pem
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

import sovchain.client as client
import sovchain.client.ca as ca
import sovchain.client.hfc as hfc
from sovchain.client import Contract, ExternalIdentity, Gateway, SigningIdentity, StoredIdentity, Wallet
from sovchain.client.generate import parse_metadata
from sovchain.client.hsm import HsmKey
from sovchain.client.telemetry import OpenTelemetryObserver, PrometheusObserver, StructlogObserver

MARKER = "MARKER-3f9d1c"
CODE = grpc.StatusCode


@dataclass
class Scene:
    """What a case acts on. Whatever it sends carries the marker."""

    fake: FakeGateway
    authority: LiveAuthority
    gateway: Gateway
    folder: Path
    keys: list[bytes] = field(default_factory=list)

    @property
    def contract(self) -> Contract:
        return self.gateway.network("ch").contract("basic")

    async def submit(self, **options: Any) -> object:
        view = self.contract.with_options(**options) if options else self.contract
        return await view.submit("make", MARKER, MARKER.encode(), transient={"secret": MARKER})

    async def evaluate(self) -> object:
        return await self.contract.evaluate("read", MARKER, transient={"secret": MARKER})

    def key(self) -> tuple[bytes, bytes]:
        """A certificate and its key, whose text is looked for as well."""
        signer = self.authority.issue("other", "client")
        self.keys.append(key_pem(signer))
        return pem(signer.certificate), self.keys[-1]

    def file(self, content: str | bytes, name: str = "file") -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        return path


Act = Callable[[Scene], Awaitable[object]]
CASES: list[tuple[type[Exception], Act]] = []


def case(kind: type[Exception]) -> Callable[[Act], Act]:
    def kept(act: Act) -> Act:
        CASES.append((kind, act))
        return act

    return kept


def scripted(kind: type[Exception], method: str, *answers: Any, evaluates: bool = False) -> None:
    """A call that is answered so."""

    async def act(scene: Scene) -> object:
        scene.fake.script(method, *answers)
        return await (scene.evaluate() if evaluates else scene.submit())

    CASES.append((kind, act))


refusing = fail(CODE.ABORTED, "no", ("peer0:7051", "Org1MSP", 'chaincode response 500, E_NO: not yours {"key": "k"}'))
scripted(client.EvaluateError, "Evaluate", fail(CODE.UNKNOWN, "chaincode response 500, no"), evaluates=True)
scripted(client.EndorseError, "Endorse", refusing)
scripted(client.SubmitError, "Submit", fail(CODE.ABORTED, "refused"))
scripted(client.OutcomeUnknown, "Submit", fail(CODE.DEADLINE_EXCEEDED, "late"))
scripted(client.CommitStatusError, "CommitStatus", fail(CODE.PERMISSION_DENIED, "no"))
scripted(client.CommitRejected, "CommitStatus", commit(11, 3))
scripted(client.UnexpectedReply, "Endorse", b"\xff" * 20)
scripted(client.UnexpectedReply, "Evaluate", MARKER.encode(), evaluates=True)


@case(client.UnexpectedReply)
async def _another_transaction_is_offered(scene: Scene) -> object:
    await scene.submit()
    (first,) = scene.fake.requests["Endorse"]
    other = gateway_pb2.EndorseRequest.FromString(first).proposed_transaction.proposal_bytes

    async def answer(request: bytes, context: Any) -> bytes:
        return prepared(request, scene.fake.peer, proposal=other)

    scene.fake.script("Endorse", answer)
    return await scene.submit()


@case(client.EndorsementsInsufficient)
async def _others_endorsed(scene: Scene) -> object:
    class Check:
        async def check(self, session: Any, transaction: Any) -> None:
            raise client.EndorsementsInsufficient("the policy was not met", transaction_id=transaction.transaction_id)

    return await scene.submit(endorsement_check=Check())


@case(client.TrustError)
async def _no_configuration(scene: Scene) -> object:
    return client.ChannelTrust(MARKER.encode())


@case(client.MalformedStep)
async def _no_step(scene: Scene) -> object:
    return scene.gateway.load_proposal(MARKER.encode())


@case(client.MetadataError)
async def _no_metadata(scene: Scene) -> object:
    return parse_metadata(MARKER.encode())


@case(client.EventsError)
async def _events_end(scene: Scene) -> object:
    scene.fake.script("ChaincodeEvents", Stream(code=CODE.PERMISSION_DENIED, text="no"))
    async with scene.contract.events(reconnect=False) as source:
        return await anext(source)


def delivering(kind: type[Exception], status: int) -> None:
    async def act(scene: Scene) -> object:
        scene.fake.script("Deliver", Stream((deliver_status(status),)))
        async with scene.gateway.network("ch").blocks(1, reconnect=False) as source:
            return await anext(source)

    CASES.append((kind, act))


delivering(client.DeliverForbidden, common_pb2.FORBIDDEN)
delivering(client.DeliverNotFound, common_pb2.NOT_FOUND)
delivering(client.DeliverBadRequest, common_pb2.BAD_REQUEST)
delivering(client.DeliverUnavailable, common_pb2.SERVICE_UNAVAILABLE)


# -- connecting ------------------------------------------------------------------------------------------------------


@case(client.ConnectError)
async def _nobody_listens(scene: Scene) -> object:
    certificate, key = scene.key()
    profile = client.Profile.from_addresses(
        "Org1MSP", ["127.0.0.1:1"], tls_root_pem=certificate, client_certificate_pem=certificate, client_key_pem=key
    )
    async with Gateway.connect(profile, scene.gateway.identity):
        return None


@case(client.GatewayClosed)
async def _used_after_its_end(scene: Scene) -> object:
    async with Gateway.connect(profile_of(scene.fake), scene.gateway.identity) as gateway:
        contract = gateway.network("ch").contract("basic")
    return await contract.submit("make", MARKER)


@case(client.ProfileNotFound)
async def _no_profile(scene: Scene) -> object:
    return client.Profile.load(scene.folder / "nowhere.json")


@case(client.ProfileSyntaxError)
async def _a_key_is_no_profile(scene: Scene) -> object:
    return client.Profile.load(scene.file(b"{'" + scene.key()[1], "profile.json"))


@case(client.ProfileSyntaxError)
async def _a_key_is_no_yaml(scene: Scene) -> object:
    return client.Profile.load(scene.file(f"password: [{MARKER}\nkey: " + scene.key()[1].decode(), "profile.yaml"))


@case(client.ProfileContentError)
async def _a_profile_with_a_secret(scene: Scene) -> object:
    return client.Profile.from_mapping({"client": {"organization": [MARKER]}, "organizations": MARKER})


# -- identities ------------------------------------------------------------------------------------------------------


@case(client.IdentityError)
async def _a_key_that_is_none(scene: Scene) -> object:
    return SigningIdentity.from_pem("Org1MSP", scene.key()[0], f"-----BEGIN PRIVATE KEY-----\n{MARKER}\n")


@case(client.IdentityNotFound)
async def _no_folder(scene: Scene) -> object:
    return SigningIdentity.from_msp_folder(scene.folder / "nowhere", "Org1MSP")


@case(client.KeyMismatch)
async def _anothers_key(scene: Scene) -> object:
    return SigningIdentity.from_pem("Org1MSP", scene.key()[0], scene.key()[1])


@case(client.CertificateExpired)
async def _expired(scene: Scene) -> object:
    identity = signing_identity(scene.authority.between(-3, -1, "late"))
    async with Gateway.connect(profile_of(scene.fake), identity) as gateway:
        return await gateway.network("ch").contract("basic").submit("make", MARKER)


@case(client.SignatureMissing)
async def _nobody_signs(scene: Scene) -> object:
    identity = client.Identity("Org1MSP", scene.key()[0])
    async with Gateway.connect(profile_of(scene.fake), identity) as gateway:
        return await gateway.network("ch").contract("basic").submit("make", MARKER)


@case(client.SignatureRefused)
async def _the_signer_fails(scene: Scene) -> object:
    def signer(message: bytes) -> bytes:
        return MARKER.encode()

    identity = ExternalIdentity("Org1MSP", scene.key()[0], signer)
    async with Gateway.connect(profile_of(scene.fake), identity) as gateway:
        return await gateway.network("ch").contract("basic").submit("make", MARKER)


@case(client.HsmError)
async def _a_wrong_pin(scene: Scene) -> object:
    async with HsmKey.open("/nowhere.so", token_label="city", pin=MARKER, key_label="x"):
        return None


# -- what is kept ----------------------------------------------------------------------------------------------------


@case(client.JournalError)
async def _no_journal(scene: Scene) -> object:
    journal = client.SqliteJournal(scene.file(MARKER * 100, "journal.sqlite"))
    async with Gateway.connect(profile_of(scene.fake), scene.gateway.identity, journal=journal) as gateway:
        return await gateway.network("ch").contract("basic").submit_once("order", "make", MARKER)


@case(client.IdempotencyKeyReused)
async def _another_request(scene: Scene) -> object:
    journal = client.SqliteJournal(scene.folder / "submits.sqlite")
    async with Gateway.connect(profile_of(scene.fake), scene.gateway.identity, journal=journal) as gateway:
        contract = gateway.network("ch").contract("basic")
        await contract.submit_once("order", "make", MARKER, transient={"secret": MARKER})
        return await contract.submit_once("order", "make", MARKER, "more")


@case(client.CheckpointError)
async def _no_checkpoint(scene: Scene) -> object:
    return await client.FileCheckpointer(scene.file(MARKER, "checkpoint.json")).load()


@case(client.CheckpointGone)
async def _a_place_that_is_not_there(scene: Scene) -> object:
    scene.fake.height = 40
    async with scene.contract.events(checkpoint=client.MemoryCheckpointer(client.Position(41))) as source:
        return await anext(source)


def wallet_case(kind: type[Exception], act: Callable[[Scene, Wallet], object]) -> None:
    async def acted(scene: Scene) -> object:
        return act(scene, Wallet.folder(scene.folder / "wallet", password=lambda: MARKER))

    CASES.append((kind, acted))


def _spoiled(scene: Scene, wallet: Wallet, mode: int, *, content: bytes | None = None) -> Any:
    wallet.put("one", StoredIdentity("Org1MSP", *scene.key()))
    for path in (scene.folder / "wallet").rglob("*"):
        if path.is_file():
            path.chmod(mode)
            if content is not None:
                path.write_bytes(content)
    return wallet.get("one")


def _wrong_password(scene: Scene, wallet: Wallet) -> object:
    wallet.put("one", StoredIdentity("Org1MSP", *scene.key()))
    return Wallet.folder(scene.folder / "wallet", password=lambda: MARKER + "x").get("one")


wallet_case(client.NotInWallet, lambda scene, wallet: wallet.get("nobody"))
wallet_case(client.WalletError, lambda scene, wallet: wallet.get("../up"))
wallet_case(client.WalletPermissions, lambda scene, wallet: _spoiled(scene, wallet, 0o644))
wallet_case(client.WalletPassword, _wrong_password)
wallet_case(client.WalletDamaged, lambda scene, wallet: _spoiled(scene, wallet, 0o600, content=MARKER.encode()))


# -- certificate authority and hfc -----------------------------------------------------------------------------------


def enrolling(kind: type[Exception], reply: bytes) -> None:
    async def act(scene: Scene) -> object:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with ca.CertificateAuthority.connect(url, insecure=True, timeout_s=5) as authority:
                return await authority.enroll("clerk", MARKER)

    CASES.append((kind, act))


def refused(status: int, code: int) -> bytes:
    body = b'{"success": false, "result": "", "errors": [{"code": %d, "message": "no"}], "messages": []}' % code
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status, len(body), body)


enrolling(ca.CaUnexpectedReply, b"HTTP/1.1 200 X\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnull")
enrolling(ca.CaUnreachable, b"")
enrolling(ca.CaRefused, refused(500, 0))
enrolling(ca.CaAuthenticationFailed, refused(401, 20))
enrolling(ca.CaNotAllowed, refused(403, 71))
enrolling(ca.CaNotFound, refused(404, 19))
enrolling(ca.CaAlreadyThere, refused(409, 74))


@case(ca.CaNotTrusted)
async def _an_authority_that_is_not_trusted(scene: Scene) -> object:
    other = pem(LiveAuthority("Org2MSP").certificate)
    async with ca.CertificateAuthority.connect(f"https://{scene.fake.address}", tls_roots=other) as authority:
        return await authority.enroll("clerk", MARKER)


@case(ca.CaRequestError)
async def _a_name_with_a_colon(scene: Scene) -> object:
    async with ca.CertificateAuthority.connect("https://localhost:1", tls_roots=scene.key()[0]) as authority:
        return await authority.enroll("a:b", MARKER)


@case(hfc.HfcError)
async def _no_hfc_profile(scene: Scene) -> object:
    return hfc.Client(scene.file(scene.key()[1]))


@case(hfc.GoneInGateway)
async def _a_call_that_is_gone(scene: Scene) -> object:
    return await hfc.Client().chaincode_install(MARKER)


@case(hfc.CaServiceError)
async def _an_hfc_call_without_a_name(scene: Scene) -> object:
    return hfc.ca_service("https://localhost:1").enroll("", MARKER)


# --------------------------------------------------------------------------------------------------------------------

ROOTS = {client.FabricError, client.ProfileError, client.GatewayError, client.DeliverError, ca.CaError}
"""Never raised themselves."""


def told(error: BaseException) -> Iterator[str]:
    """Everything that a program shows of an error by itself, its causes included."""
    yield "".join(traceback.format_exception(error))
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield f"{following}{following!r}{vars(following)!r}"
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


@pytest.mark.parametrize(("kind", "act"), CASES, ids=[f"{kind.__name__}-{n}" for n, (kind, _) in enumerate(CASES)])
async def test_an_error_tells_no_secret(
    kind: type[Exception], act: Act, fake: FakeGateway, authority: LiveAuthority, user: SigningIdentity, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sovchain.client._checkpoints.LAG_S", 0.2)
    caplog.set_level(logging.DEBUG)
    exporter, provider, registry = InMemorySpanExporter(), TracerProvider(), CollectorRegistry()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observers = [
        OpenTelemetryObserver(provider.get_tracer("test")), PrometheusObserver(registry), StructlogObserver(),
    ]  # fmt: skip
    with capture_logs() as lines:
        async with Gateway.connect(profile_of(fake), user, observers=observers, commit_stream=False) as gateway:
            scene = Scene(fake, authority, gateway, tmp_path)
            with pytest.raises(kind) as caught:
                await act(scene)
            shown = [repr(gateway), repr(scene.contract), repr(user)]
    assert type(caught.value) is kind
    if isinstance(caught.value, client.FabricError):
        shown.append(pickle.dumps(caught.value).decode("latin-1"))
    output = capfd.readouterr()
    shown += [*told(caught.value), str(lines), caplog.text, output.out, output.err, generate_latest(registry).decode()]
    shown += [span.to_json() for span in exporter.get_finished_spans()]
    secrets = [MARKER, *(line.decode() for key in scene.keys for line in key.splitlines()[1:-1])]
    assert [secret for secret in secrets if any(secret in text for text in shown)] == []


def test_every_error_of_the_client_has_a_case() -> None:
    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind, *(one for child in kind.__subclasses__() for one in below(child))}

    everything = {kind for kind in below(client.FabricError) if kind.__module__.startswith("sovchain.client")}
    assert everything - ROOTS - {kind for kind, _ in CASES} == set()
