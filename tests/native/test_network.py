"""What a network of real Fabric programs offers to others, survives, and keeps to itself."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest
from commandline import Sovchain
from leaksearch import ALLOWED, PARTIES, search
from toldinprivate import holders, tell

from sovchain.network import Network
from sovchain.network.runtimes.programs import Programs

pytestmark = pytest.mark.timeout(240)


ORGANIZATIONS = {
    "Government": ("government.guiyang.example", {"government", "finance", "logistics"}),
    "Finance": ("finance.guiyang.example", {"government", "finance"}),
    "Logistics": ("logistics.guiyang.example", {"government", "logistics"}),
    "Supervisor": ("supervisor.guiyang.example", {"government", "finance", "logistics"}),
    "OverseasCarrier": ("carrier.singapore.example", {"logistics"}),
}
"""Domain and channels of each organisation of the default network."""


def peer(
    programs: Programs, native: Sovchain, *arguments: str, domain: str = "finance.guiyang.example"
) -> subprocess.CompletedProcess[str]:
    """Run the unmodified `peer` program as an organisation's administrator, with nothing but folders of the network."""
    organization = native.directory / "organizations/peerOrganizations" / domain
    environment = {
        "PATH": os.environ["PATH"],
        "FABRIC_CFG_PATH": str(native.directory / f"nodes/peer0.{domain}"),
        "CORE_PEER_MSPCONFIGPATH": str(organization / f"users/Admin@{domain}/msp"),
    }
    command = [programs["peer"], *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_unmodified_peer_program_queries_and_invokes(programs: Programs, native: Sovchain) -> None:
    status = Network.status(native.directory)
    channels = peer(programs, native, "channel", "list")
    assert {"finance", "government"} <= set(channels.stdout.split()), channels.stderr
    call = json.dumps({"Args": ["Registry:seats"]})
    queried = peer(programs, native, "chaincode", "query", "-C", "finance", "-n", "finance", "-c", call)
    assert queried.returncode == 0, queried.stderr
    assert set(json.loads(queried.stdout)) == {"legislator", "regulator", "sector"}

    organizations = native.directory / "organizations"
    orderer = "orderer.government.guiyang.example"
    root = organizations / f"ordererOrganizations/{orderer}/tlsca/tlsca.{orderer}-cert.pem"
    targets = []
    for name in ("government", "supervisor"):
        domain = f"{name}.guiyang.example"
        address = f"localhost:{status.ports[f'peer0.{domain}']}"
        tls_root = organizations / f"peerOrganizations/{domain}/tlsca/tlsca.{domain}-cert.pem"
        targets += ["--peerAddresses", address, "--tlsRootCertFiles", str(tls_root)]
    suspend = {"Args": ["Sharing:file_request", "0" * 64, "statistics", secrets.token_hex(32), "read", "unstated", ""]}
    invoked = peer(
        programs, native, "chaincode", "invoke", "-C", "finance", "-n", "finance", "-c", json.dumps(suspend),
        "-o", f"localhost:{status.ports[orderer]}", "--tls", "--cafile", str(root), *targets, "--waitForEvent",
    )  # fmt: skip
    # There is no such data set: the contract's own refusal has come through a real peer to its own program.
    assert invoked.returncode != 0
    assert "E_NOT_FOUND" in invoked.stderr


def test_each_organisations_own_peer_program_lists_its_channels_and_queries(
    programs: Programs, native: Sovchain
) -> None:
    for domain, channels in ORGANIZATIONS.values():
        listed = peer(programs, native, "channel", "list", domain=domain)
        assert {"government", "finance", "logistics"} & set(listed.stdout.split()) == channels, listed.stderr
        channel = min(channels)
        call = json.dumps({"Args": ["Registry:seats"]})
        queried = peer(programs, native, "chaincode", "query", "-C", channel, "-n", channel, "-c", call, domain=domain)
        assert queried.returncode == 0, queried.stderr
        assert "regulator" in json.loads(queried.stdout)


@pytest.mark.parametrize("organization", [name for name, (_, held) in ORGANIZATIONS.items() if "logistics" in held])
def test_the_official_node_client_works_from_each_profile(native: Sovchain, organization: str) -> None:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sovchain/node"
    if shutil.which("node") is None or not (cache / "node_modules/@hyperledger/fabric-gateway").exists():
        pytest.skip("missing program: node with npm: install Node.js 20 (Debian: apt-get install nodejs npm)")
    script = cache / f"native-{secrets.token_hex(4)}.mjs"
    script.write_text((Path(__file__).parents[1] / "node/gateway.mjs").read_text())
    domain, _ = ORGANIZATIONS[organization]
    number = f"GY-{100 + list(ORGANIZATIONS).index(organization):06}"
    msp = native.directory / f"organizations/peerOrganizations/{domain}/users/User1@{domain}/msp"
    (certificate,) = (msp / "signcerts").iterdir()
    (key,) = (msp / "keystore").iterdir()
    profile = native.directory / f"connections/{organization}.json"
    try:
        done = subprocess.run(
            ["node", script, profile, certificate, key, number],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        script.unlink()
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["status"]["successful"]
    assert seen["event"]["name"] == "WaybillIssued"
    assert seen["read"]["custodian"] == f"{organization}MSP"


def test_a_planted_marker_is_in_the_parties_private_stores_only(native: Sovchain, tmp_path: Path) -> None:
    """Block files, logs and state databases of all peers and ordering nodes are searched."""
    search(native, tmp_path)


def test_a_killed_supervisor_leaves_what_the_next_start_takes_up(native: Sovchain) -> None:
    before = native.ok("status")
    native.kill()
    native.ok("up", "--detach")
    after = native.ok("status")
    assert after["pid"] != before["pid"]
    assert after["runtime"] == "native"
    for name, channel in before["channels"].items():
        assert after["channels"][name]["height"] >= channel["height"]
    assert native.run("audit", "verify").code == 0


@pytest.mark.long
async def test_what_is_told_in_private_is_in_the_parties_private_stores_only(native: Sovchain, tmp_path: Path) -> None:
    """Use reports, complaints, answers and the keys of sealed payloads, on the disks of all peers and ordering nodes."""
    file = tmp_path / "mine.csv"
    file.write_text("enterprise,note\nNanming Noodles,none\n")
    dataset = native.share(file)["dataset"]["id"]
    told = await tell(native.directory, tmp_path, dataset)
    found = holders(native.directory, told.forms)
    assert found, "the search finds nothing at all"
    assert {path.parts[:2] for path in found} <= {("nodes", f"peer0.{name}.guiyang.example") for name in PARTIES}, found
    # A peer keeps what it endorsed in its transient store until the block comes.
    assert all((ALLOWED | {"transientstore"}) & set(path.parts) for path in found), found
    assert holders(native.directory, (dataset.encode(),)), "the search does not find what is public"
