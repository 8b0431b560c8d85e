"""The CouchDB servers in which native peers keep their state, named by a file outside of the network's directory.

`SOVCHAIN_COUCHDB` names a YAML file that only its owner may read:

    user: fabric
    password_file: couchdb.password      # or `password:`; relative to this file
    peers:
      peer0.finance.example: 127.0.0.1:5984
      peer0.government.example: {address: 127.0.0.1:5985, user: other, password: ...}

Each peer needs a server of its own: the names of a peer's databases come from its channels, so two peers on one server
would write into each other's state (core/ledger/kvledger/txmgmt/statedb/statecouchdb in Fabric).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from sovchain.network.errors import CouchDbUnusable
from sovchain.network.runtimes import Site
from sovchain.network.runtimes.settings import CouchDb
from sovchain.protocol.packages import INDEX_FOLDER

VARIABLE: Final = "SOVCHAIN_COUCHDB"
"""Environment variable that names the file."""
ANSWER_TIMEOUT_S: Final = 5.0
OLDEST: Final = (3, 1)
"""Fabric 2.5 and 3.1 are tested with CouchDB 3.x from this on (docs/source/couchdb_as_state_database.rst)."""

_MAX_BYTES: Final = 1024 * 1024
_MAX_PASSWORD_BYTES: Final = 4096

Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$")]


class _Account(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str = ""
    password: SecretStr | None = None
    password_file: Path | None = None


class _Server(_Account):
    address: Address


class _Document(_Account):
    peers: Annotated[Mapping[str, Address | _Server], Field(max_length=1000)]


def read_servers(site: Site) -> dict[str, CouchDb]:
    """Return where each peer that runs here keeps its state, by host; nothing when it is LevelDB.

    Raises CouchDbUnusable when the file is missing, readable by others, incomplete, or gives two peers one server.
    """
    if site.topology.state_database != "couchdb":
        return {}
    named = os.environ.get(VARIABLE)
    if not named:
        raise CouchDbUnusable(
            "the peers' CouchDB servers are not known",
            f"the topology has state_database: couchdb, and the environment variable {VARIABLE} names no file",
            f"write the servers and their accounts into a file of mode 0600 and name it in {VARIABLE} (docs/operations.md)",
        )
    path = Path(named).expanduser()
    document = _read(path)
    hosts = [node.host for node in site.nodes if node.kind == "peer"]
    missing = [host for host in hosts if host not in document.peers]
    if missing:
        raise _wrong(path, f"it names no server for {', '.join(missing)}", "give each peer a server of its own")
    servers = {host: _server(path, document, document.peers[host]) for host in hosts}
    addresses = [server.address for server in servers.values()]
    twice = sorted({address for address in addresses if addresses.count(address) > 1})
    if twice:
        raise _wrong(
            path,
            f"several peers have the server {twice[0]}",
            "give each peer a server of its own: they would overwrite each other's state",
        )
    return servers


def _read(path: Path) -> _Document:
    content = _owned(path, _MAX_BYTES)
    try:
        return _Document.model_validate(yaml.safe_load(content))
    except yaml.YAMLError:
        raise _wrong(path, "it is not YAML", "write it as docs/operations.md shows") from None
    except ValidationError as error:
        # Only where something is wrong: the values can be passwords.
        places = ", ".join(".".join(map(str, entry["loc"])) or "the document" for entry in error.errors())
        raise _wrong(path, f"it has wrong entries: {places[:300]}", "write it as docs/operations.md shows") from None


def _server(path: Path, document: _Document, entry: str | _Server) -> CouchDb:
    own = entry if isinstance(entry, _Server) else _Server(address=entry)
    accounts: tuple[_Account, ...] = (own, document)
    user = next((account.user for account in accounts if account.user), "")
    password = next((found for account in accounts if (found := _password(path, account))), "")
    if not user or not password:
        raise _wrong(path, f"{own.address} has no user or no password", "give both, for all or for this peer")
    return CouchDb(own.address, user, password)


def _password(path: Path, account: _Account) -> str:
    if account.password is not None:
        return account.password.get_secret_value()
    if account.password_file is not None:
        return _owned(path.parent / account.password_file, _MAX_PASSWORD_BYTES).decode(errors="replace").strip()
    return ""


def _owned(path: Path, limit: int) -> bytes:
    """The content of a file that nobody but its owner may read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(limit)
    except OSError as error:
        raise _wrong(path, f"it cannot be read ({error.strerror})", "check the path and its permissions") from None
    if mode & 0o077:
        raise _wrong(path, f"others may read it (mode {mode:04o}), and it leads to passwords", f"chmod 600 {path}")
    return content


def _wrong(path: Path, why: str, remedy: str) -> CouchDbUnusable:
    return CouchDbUnusable(f"{path} cannot be used for the peers' CouchDB servers", why, remedy, path=str(path))


async def check_servers(servers: Mapping[str, CouchDb]) -> None:
    """Ask each server who it is and whether the account is let in, before a peer tries for minutes.

    Raises CouchDbUnusable, which names the peer.
    """
    await asyncio.gather(*(_check(host, server) for host, server in servers.items()))


async def _check(host: str, server: CouchDb) -> None:
    def unusable(why: str, remedy: str) -> CouchDbUnusable:
        return CouchDbUnusable(
            f"{host} cannot use the CouchDB at {server.address}", why, remedy, host=host, address=server.address
        )

    account = httpx.BasicAuth(server.username, server.password)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{server.address}", auth=account, timeout=ANSWER_TIMEOUT_S, trust_env=False
        ) as client:
            welcome, entrance = await client.get("/"), await client.get("/_all_dbs")
    except httpx.HTTPError as error:
        raise unusable(str(error) or type(error).__name__, "start it, or correct its address") from None
    found = _json(welcome)
    if not isinstance(found, dict) or "couchdb" not in found:
        raise unusable("what answers there is no CouchDB", "correct its address")
    version = str(found.get("version", ""))
    if _numbers(version) < OLDEST:
        raise unusable(f"it is version {version[:40] or 'unknown'}", "use CouchDB 3.1 or later")
    if entrance.status_code != httpx.codes.OK:
        raise unusable(
            f"it answers {entrance.status_code} to the account {server.username}", "correct user and password"
        )


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def environment(server: CouchDb | None) -> dict[str, str]:
    """Return what a peer's environment holds of its account: its configuration file holds none of it."""
    if server is None:
        return {}
    prefix = "CORE_LEDGER_STATE_COUCHDBCONFIG"
    return {f"{prefix}_USERNAME": server.username, f"{prefix}_PASSWORD": server.password}


def logging_spec(spec: str, *, account: bool) -> str:
    """Return what a peer logs; with an `account` among its settings, without the start's list of them all.

    `internal/peer/node/start.go` writes the list, password included, with the logger `nodeCmd` at the level info.
    """
    return f"{spec}:nodeCmd=warning" if account else spec


def index_files(module: str) -> dict[str, bytes]:
    """Return CouchDB's index definitions that lie beside a chaincode's module, by their paths in its package.

    They are in `META-INF/statedb/couchdb/indexes`, and in `.../collections/<name>/indexes` for private data, as in any
    chaincode of Fabric. A module that cannot be found has none: the process that serves it will say so. Raises OSError.
    """
    try:
        found = importlib.util.find_spec(module.partition(":")[0])
    except (ImportError, ValueError):
        return {}
    if found is None or found.origin is None:
        return {}
    folder = Path(found.origin).parent
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted((folder / INDEX_FOLDER).rglob("*.json"))
    }
