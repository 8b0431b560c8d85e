"""Runs chaincode services, or a connection to a peer, until the process is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sovchain.chaincode.chaincode import Chaincode
from sovchain.chaincode.connect import PeerConnection
from sovchain.chaincode.determinism.guard import MODES, DeterminismMode
from sovchain.chaincode.errors import ServiceError
from sovchain.chaincode.handler import Limits
from sovchain.chaincode.health import Health
from sovchain.chaincode.ownreads import OWN_READS_VARIABLE, OwnReadsMode
from sovchain.chaincode.peerstub import StubOptions
from sovchain.chaincode.server import ChaincodeService
from sovchain.chaincode.tls import ClientTls, ServerTls, read_pem
from sovchain.chaincode.watchdog import TASK_PREFIX, Watchdog
from sovchain.rpc.log import Log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from sovchain.chaincode.health import Served

MAX_CONFIG_BYTES = 1024 * 1024
MAX_SERVICES = 256
DEFAULT_ATTRIBUTE = "chaincode"
READY_LINE = "ready"
_GARBAGE_AFTER = 20_000
"""New objects after which garbage is looked for: a call makes hundreds, of which nothing is left when it has ended."""
HEALTH_VARIABLE = "CHAINCODE_HEALTH_ADDRESS"
"""Environment variable that says where the health endpoint listens."""
DETERMINISM_VARIABLE = "SOVCHAIN_DETERMINISM"
"""Environment variable that turns the determinism guard on: off, warn or refuse."""

log = Log("sovchain.chaincode.serve")


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service: which chaincode, under which package id, where, with which TLS material."""

    chaincode: str
    chaincode_id: str
    address: str
    tls: ServerTls | None = None


@dataclass(frozen=True, slots=True)
class ConnectSpec:
    """One connection to a peer."""

    chaincode_id: str
    peer_address: str
    tls: ClientTls | None = None


def load_chaincode(reference: str) -> Chaincode:
    """The chaincode object that `module:attribute` names; the attribute is `chaincode` if left out.

    Raises:
        ServiceError: there is no such module or attribute, it is no Chaincode, or the module fails when it is imported;
            then the text says where, and `__cause__` is what was raised.
    """
    module_name, _, attribute = reference.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ServiceError(f"{module_name!r} is no name of a module: it is written like package.module:attribute")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ServiceError(f"cannot import {module_name}: {error}") from error
    except Exception as error:  # whatever a contract's own module does when it is imported
        raise ServiceError(f"cannot import {module_name}: {type(error).__name__}: {error}{_place(error)}") from error
    found = getattr(module, attribute or DEFAULT_ATTRIBUTE, None)
    if not isinstance(found, Chaincode):
        raise ServiceError(f"{reference} is no Chaincode: expose one as {attribute or DEFAULT_ATTRIBUTE} in the module")
    return found


def _place(error: Exception) -> str:
    """Where a contract's module failed: the last place that is neither this package's nor a library's, in brackets."""
    if isinstance(error, SyntaxError):
        return ""  # its text has them
    others = (str(Path(__file__).parent), os.path.dirname(os.__file__), "<frozen")
    places = [
        f" ({frame.filename}, line {frame.lineno})"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(others) and "site-packages" not in frame.filename
    ]
    return places[-1] if places else ""


def read_config(path: str | Path) -> list[ServiceSpec]:
    """The services of a configuration file.

    The file is JSON: `{"services": [{"chaincode": "module:attribute", "id": "label:hash", "address": "host:port",
    "tls": {"certificate": path, "key": path, "client_roots": path or null} or null}]}`. Paths are relative to the file.

    Raises:
        ServiceError: it cannot be read or says something else.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise ServiceError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
        document = json.loads(data)
    except OSError as error:
        raise ServiceError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"{path} is not JSON: {error}") from None
    listed = _object(document, "the file", {"services"})["services"]
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_SERVICES:
        raise ServiceError(f"{path}: services is a list of 1 to {MAX_SERVICES} entries")
    return [_service(entry, f"services[{at}]", path.parent) for at, entry in enumerate(listed)]


def service_from_environment(chaincode: str, environment: Mapping[str, str]) -> ServiceSpec:
    """The service that the usual variables describe.

    `CHAINCODE_ID` (or `CORE_CHAINCODE_ID_NAME`, as fabric-contract-api-go has it), `CHAINCODE_SERVER_ADDRESS`, and unless
    `CHAINCODE_TLS_DISABLED` is true: `CHAINCODE_TLS_KEY`, `CHAINCODE_TLS_CERT` and, for mutual TLS,
    `CHAINCODE_CLIENT_CA_CERT`, all paths.

    Raises:
        ServiceError: a variable is missing or a file cannot be read.
    """
    tls = None
    if environment.get("CHAINCODE_TLS_DISABLED", "").lower() not in ("true", "1"):
        roots = environment.get("CHAINCODE_CLIENT_CA_CERT")
        tls = ServerTls(
            certificate=read_pem(_variable(environment, "CHAINCODE_TLS_CERT"), "the certificate"),
            key=read_pem(_variable(environment, "CHAINCODE_TLS_KEY"), "the key"),
            client_roots=read_pem(roots, "the client roots") if roots else None,
        )
    return ServiceSpec(
        chaincode=chaincode,
        chaincode_id=_variable(environment, "CHAINCODE_ID", "CORE_CHAINCODE_ID_NAME"),
        address=_variable(environment, "CHAINCODE_SERVER_ADDRESS"),
        tls=tls,
    )


def connect_from_environment(environment: Mapping[str, str], peer_address: str | None = None) -> ConnectSpec:
    """The connection that the variables describe which a peer gives to the chaincode that it starts.

    `CORE_CHAINCODE_ID_NAME`, `CORE_PEER_ADDRESS` (or `peer_address`), and if `CORE_PEER_TLS_ENABLED` is true:
    `CORE_PEER_TLS_ROOTCERT_FILE` and for mutual TLS `CORE_TLS_CLIENT_CERT_FILE` with `CORE_TLS_CLIENT_KEY_FILE` (PEM)
    or `CORE_TLS_CLIENT_CERT_PATH` with `CORE_TLS_CLIENT_KEY_PATH` (base64 of PEM).

    Raises:
        ServiceError: a variable is missing or a file cannot be read.
    """
    tls = None
    if environment.get("CORE_PEER_TLS_ENABLED", "").lower() in ("true", "1"):
        pair = {}
        for name in ("CERT", "KEY"):
            plain, encoded = (environment.get(f"CORE_TLS_CLIENT_{name}_{form}") for form in ("FILE", "PATH"))
            if plain or encoded:
                what = f"the client's {name.lower()}"
                pair[name] = read_pem(plain or encoded or "", what, encoded=True)
        if len(pair) == 1:
            raise ServiceError("mutual tls takes a client certificate and its key: one of the two is not set")
        tls = ClientTls(
            roots=read_pem(_variable(environment, "CORE_PEER_TLS_ROOTCERT_FILE"), "the peer's tls roots"),
            certificate=pair.get("CERT"),
            key=pair.get("KEY"),
            server_name=environment.get("CORE_PEER_TLS_SERVERHOSTOVERRIDE") or None,
        )
    return ConnectSpec(
        chaincode_id=_variable(environment, "CORE_CHAINCODE_ID_NAME"),
        peer_address=peer_address or _variable(environment, "CORE_PEER_ADDRESS"),
        tls=tls,
    )


def connect_from_metadata(path: str | Path) -> ConnectSpec:
    """The connection in the `chaincode.json` that a peer gives to an external builder's `run`.

    Source: fabric/core/container/externalbuilder/externalbuilder.go.

    Raises:
        ServiceError: it cannot be read or says something else.
    """
    try:
        document = json.loads(Path(path).read_bytes()[: MAX_CONFIG_BYTES + 1])
    except OSError as error:
        raise ServiceError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ServiceError(f"{path} is not JSON: {error}") from None
    names = {"chaincode_id", "peer_address", "client_cert", "client_key", "root_cert", "mspid"}
    said = _object(document, str(path), {"chaincode_id", "peer_address"}, names)
    texts = {name: _text(said[name], name) for name in said if said[name]}
    tls = None
    if "root_cert" in texts:
        certificate, key = (texts[name].encode() if name in texts else None for name in ("client_cert", "client_key"))
        tls = ClientTls(texts["root_cert"].encode(), certificate, key)
    return ConnectSpec(_text(said["chaincode_id"], "chaincode_id"), _text(said["peer_address"], "peer_address"), tls)


def own_reads_mode(text: str) -> OwnReadsMode:
    """The mode of that name. Raises ServiceError."""
    for mode in ("silent", "warn", "refuse"):
        if text == mode:
            return mode
    raise ServiceError(f"{OWN_READS_VARIABLE} is silent, warn or refuse")


def determinism_mode(text: str) -> DeterminismMode:
    """The mode of that name. Raises ServiceError."""
    for mode in MODES:
        if text == mode:
            return mode
    raise ServiceError(f"{DETERMINISM_VARIABLE} is {', '.join(MODES[:-1])} or {MODES[-1]}")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a process runs its chaincode.

    Attributes:
        limits: what each peer may have in hand.
        stub: how stubs behave.
        health: where the health endpoint listens, `host:port`; empty for nowhere.
        exit_with_parent: stop when standard input ends.
        grace_s: how long what is in hand may take after the process was told to stop, in seconds.
        determinism: what happens when a contract uses what differs between peers, unless the chaincode is stricter itself.
    """

    limits: Limits = field(default_factory=Limits)
    stub: StubOptions = field(default_factory=StubOptions)
    health: str = ""
    exit_with_parent: bool = False
    grace_s: float = 5.0
    determinism: DeterminismMode = "off"


async def run_services(specs: Sequence[ServiceSpec], options: RunOptions) -> None:
    """Start all services, print one line `ready`, and serve until SIGTERM, SIGINT or, if asked for, end of input.

    Raises:
        ServiceError: one of the services cannot start; none is left running.
    """
    gc.disable()  # what loading makes stays: looking for garbage in it, now or later, is time lost
    try:
        loaded = {spec.chaincode: _loaded(spec.chaincode, options) for spec in specs}
    finally:
        gc.freeze()
        gc.enable()
    services = [
        ChaincodeService(
            loaded[spec.chaincode],
            spec.chaincode_id,
            spec.address,
            tls=spec.tls,
            limits=options.limits,
            options=options.stub,
        )
        for spec in specs
    ]
    stopping = _stop_signal(options.exit_with_parent)
    try:
        async with _watched(services, options):
            for service in services:
                await service.start()
            _say(READY_LINE)
            await stopping.wait()
    finally:
        await asyncio.gather(*(service.stop(options.grace_s) for service in services))
        _leave_hanging()


async def run_connection(
    reference: str, spec: ConnectSpec, options: RunOptions, *, once: bool = False, dial_timeout_s: float = 30.0
) -> None:
    """Serve one peer until SIGTERM, SIGINT or, if asked for, end of input; dial again whenever the stream ends.

    Args:
        reference: the chaincode, `module:attribute`.
        spec: the peer.
        options: how to run.
        once: end with the first stream, as chaincode does that its peer starts again by itself.
        dial_timeout_s: how long the peer may take to be reached where `once` is set, in seconds.

    Raises:
        StreamError: with `once`: the peer cannot be reached, refuses, or the stream breaks.
    """
    connection = PeerConnection(
        _loaded(reference, options),
        spec.chaincode_id,
        spec.peer_address,
        tls=spec.tls,
        limits=options.limits,
        options=options.stub,
    )
    stopping = _stop_signal(options.exit_with_parent)
    async with _watched([connection], options):
        running = asyncio.create_task(connection.run(dial_timeout_s) if once else connection.keep())
        told = asyncio.create_task(stopping.wait())
        await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if running.done():
            await running
            return
        await connection.stop(options.grace_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(running), 10.0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        _leave_hanging()


def _loaded(reference: str, options: RunOptions) -> Chaincode:
    found = load_chaincode(reference)
    found.guard(options.determinism)
    return found


def _leave_hanging() -> None:
    """End the process at once if contracts run that do not end when told to: asyncio would wait for them for ever."""
    hanging = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(TASK_PREFIX)]
    if hanging:
        log.error("contracts hang, leaving without them", count=len(hanging))
        sys.stdout.flush()
        os._exit(0)


@contextlib.asynccontextmanager
async def _watched(served: Sequence[Served], options: RunOptions) -> AsyncIterator[None]:
    """Watch the event loop, and answer health checks where that is asked for."""
    watchdog = Watchdog(options.limits.transaction_s)
    health = Health(options.health, served, watchdog) if options.health else None
    watchdog.start()
    try:
        if health is not None:
            await health.start()
        yield
    finally:
        watchdog.stop()
        if health is not None:
            await health.stop()


def _stop_signal(exit_with_parent: bool) -> asyncio.Event:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if exit_with_parent:
        # A thread, because the standard input may be a pipe, a terminal or a file, and asyncio reads only the first.
        threading.Thread(target=_watch_input, args=(loop, stopping), name="standard input", daemon=True).start()
    return stopping


def _watch_input(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    with contextlib.suppress(RuntimeError):  # the loop may be closed already
        loop.call_soon_threadsafe(stopping.set)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _service(entry: Any, where: str, base: Path) -> ServiceSpec:
    said = _object(entry, where, {"chaincode", "id", "address"}, {"tls"})
    return ServiceSpec(
        chaincode=_text(said["chaincode"], f"{where}.chaincode"),
        chaincode_id=_text(said["id"], f"{where}.id"),
        address=_text(said["address"], f"{where}.address"),
        tls=None if said.get("tls") is None else _server_tls(said["tls"], f"{where}.tls", base),
    )


def _server_tls(entry: Any, where: str, base: Path) -> ServerTls:
    said = _object(entry, where, {"certificate", "key"}, {"client_roots"})
    roots = said.get("client_roots")
    return ServerTls(
        certificate=read_pem(base / _text(said["certificate"], f"{where}.certificate"), "the certificate"),
        key=read_pem(base / _text(said["key"], f"{where}.key"), "the key"),
        client_roots=None
        if roots is None
        else read_pem(base / _text(roots, f"{where}.client_roots"), "the client roots"),
    )


def _object(value: Any, where: str, required: set[str], optional: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ServiceError(f"{where} is no JSON object")
    missing = sorted(required - value.keys())
    surplus = sorted(value.keys() - required - (optional or set()))
    if missing or surplus:
        problem = f"lacks {', '.join(missing)}" if missing else f"has the unknown entries {', '.join(surplus)}"
        raise ServiceError(f"{where} {problem}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise ServiceError(f"{where} is no text")
    return value


def _variable(environment: Mapping[str, str], name: str, *others: str) -> str:
    value = next(filter(None, (environment.get(each) for each in (name, *others))), None)
    if not value:
        raise ServiceError(f"the environment variable {name} is not set")
    return value
