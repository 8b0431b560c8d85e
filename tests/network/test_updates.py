"""An update of a channel goes as a file from one organisation to the other, each of whom sees what it signs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from changes import but
from commandline import Sovchain
from fabric_protos.common import common_pb2, configtx_pb2
from fabricprograms import fabric_programs
from smallnetwork import WIDE, small_topology

from sovchain.network import Network, Topology, UpdateRefused
from sovchain.network.topologyparts import Batch
from sovchain.network.updates import described, read_update

pytestmark = pytest.mark.timeout(280)


def topology() -> Topology:
    return small_topology(organizations=[{"name": name} for name in ("Alpha", "Beta", "Gamma")])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sovchain]:
    folder = tmp_path_factory.mktemp("updates")
    sovchain = Sovchain(folder / "network")
    (folder / "small.yaml").write_text(topology().model_dump_json())
    sovchain.ok("up", "--detach", "--topology", folder / "small.yaml")
    yield sovchain
    sovchain.down()


def test_an_update_is_proposed_shown_signed_and_submitted(network: Sovchain, tmp_path: Path) -> None:
    wanted, file = tmp_path / "wanted.yaml", tmp_path / "wide.pb"
    changed = but(topology(), "channels", WIDE, acls={"qscc/GetBlockByNumber": "Admins"})
    wanted.write_text(changed.model_dump_json())
    start = ("network", "update", "propose", "--channel", WIDE, "--topology", wanted, "--output", file)
    assert "name one" in network.run(*start, "--json").json["error"]["do"]
    made = network.ok(*start, "--as", "Alpha")
    assert made["signed"] == ["AlphaMSP"]
    assert made["missing"] == {"/Channel/Application/Admins": ["BetaMSP"]}
    assert any("qscc/GetBlockByNumber" in line for line in made["changes"])
    assert network.run("network", "update", "show", file, "--as", "Beta").code == 5
    early = network.run("network", "update", "submit", file, "--as", "Beta", "--json").json["error"]
    assert "BetaMSP" in early["why"]
    unseen = network.run("network", "update", "sign", file, "--as", "Beta", "--json")
    assert (unseen.code, unseen.json["error"]["what"]) == (2, "nothing was signed")
    signed = network.ok("network", "update", "sign", file, "--as", "Beta", "--yes")
    assert (signed["signed"], signed["missing"], signed["digest"]) == (["AlphaMSP", "BetaMSP"], {}, made["digest"])
    again = network.ok("network", "update", "sign", file, "--as", "Beta", "--yes")
    assert again["signed"] == signed["signed"]
    # Whoever hands it over need not have signed it.
    assert network.ok("network", "update", "submit", file, "--as", "Gamma")["sequence"] == 1
    over = network.run("network", "update", "submit", file, "--as", "Gamma", "--json").json["error"]
    assert "does not fit the configuration in force (1)" in over["why"]
    other = tmp_path / "other.pb"
    nothing = network.ok(*start[:-1], other, "--as", "Gamma")
    assert nothing["changes"] == []
    assert not other.exists()


def test_batches_take_the_ordering_organisations_signatures(network: Sovchain, tmp_path: Path) -> None:
    """The operator's own ordering organisation signs with it."""
    wanted, file = tmp_path / "wanted.yaml", tmp_path / "wide.pb"
    changed = but(
        topology(), "channels", WIDE, batch=Batch(max_message_count=7), acls={"qscc/GetBlockByNumber": "Admins"}
    )
    wanted.write_text(changed.model_dump_json())
    arguments = ("--channel", WIDE, "--topology", wanted, "--output", file, "--as", "Gamma")
    made = network.ok("network", "update", "propose", *arguments)
    assert "/Channel/Orderer/Admins" in made["missing"]
    assert any("batch" in line.lower() for line in made["changes"])


def test_the_peer_program_signs_and_submits_the_file(network: Sovchain, tmp_path: Path) -> None:
    """Unmodified, with the folders that we wrote: `peer channel signconfigtx` and `peer channel update`."""
    program = fabric_programs("3.1")["peer"]
    wanted, file = tmp_path / "wanted.yaml", tmp_path / "wide.pb"
    changed = but(topology(), "channels", WIDE, acls={"qscc/GetChainInfo": "Admins"})
    wanted.write_text(changed.model_dump_json())
    arguments = ("--channel", WIDE, "--topology", wanted, "--output", file, "--as", "Alpha")
    network.ok("network", "update", "propose", *arguments)
    (tmp_path / "core.yaml").write_text("peer:\n  BCCSP: {Default: SW, SW: {Hash: SHA2, Security: 256}}\n")

    def peer(name: str, *words: str | Path) -> None:
        domain = f"{name.lower()}.small.example"
        admin = network.directory / f"organizations/peerOrganizations/{domain}/users/Admin@{domain}"
        done = subprocess.run(
            [program, "channel", *map(str, words), "-f", str(file)], capture_output=True, text=True, timeout=60, check=False,
            env={
                "FABRIC_CFG_PATH": str(tmp_path), "CORE_PEER_LOCALMSPID": f"{name}MSP", "CORE_PEER_TLS_ENABLED": "true",
                "CORE_PEER_MSPCONFIGPATH": str(admin / "msp"), "CORE_PEER_TLS_ROOTCERT_FILE": str(admin / "tls/ca.crt"),
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    peer("Beta", "signconfigtx")
    shown = network.ok("network", "update", "show", file, "--as", "Alpha")
    assert (shown["signed"], shown["missing"]) == (["AlphaMSP", "BetaMSP"], {})
    node = "orderer.alpha.small.example"
    port = Network.status(network.directory).ports[node]
    roots = next(network.directory.glob(f"organizations/ordererOrganizations/*/orderers/{node}/tls/ca.crt"))
    peer("Gamma", "update", "-c", WIDE, "-o", f"localhost:{port}", "--tls", "--cafile", roots)
    over = network.run("network", "update", "show", file, "--as", "Gamma", "--json").json["error"]
    assert f"does not fit the configuration in force ({shown['sequence'] + 1})" in over["why"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xff", common_pb2.Envelope(payload=b"x").SerializeToString(), b"a" * 5_000_000]
)
def test_what_is_no_update_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pb").write_bytes(content)
    with pytest.raises(UpdateRefused):
        read_update(tmp_path / "file.pb")


def test_another_guard_of_an_element_is_told() -> None:
    """Nobody is to sign away who may change something without being told."""
    before, after = configtx_pb2.ConfigGroup(mod_policy="Admins"), configtx_pb2.ConfigGroup(mod_policy="Admins")
    for group, policy in ((before, "Admins"), (after, "Writers")):
        group.groups["Orderer"].CopyFrom(orderer())
        group.groups["Application"].policies["Endorsement"].mod_policy = policy
    assert list(described(before, after)) == [
        "channel/Application: Endorsement is changed under Writers from now on, not Admins"
    ]


def orderer() -> configtx_pb2.ConfigGroup:
    from fabric_protos.orderer import configuration_pb2

    group = configtx_pb2.ConfigGroup()
    group.values["ConsensusType"].value = configuration_pb2.ConsensusType(type="etcdraft").SerializeToString()
    return group
