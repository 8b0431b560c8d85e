"""What a topology has gained gets keys, once; what differs between two configurations is told in words."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from smallnetwork import WIDE, small_topology

from sovchain.network import Topology
from sovchain.network.differences import consenter_changes, differences
from sovchain.network.genesis import channel_definition, loopback_endpoints
from sovchain.network.material import Material
from sovchain.network.material_growth import grow, lacking
from sovchain.network.members import with_organization
from sovchain.network.topologyparts import Batch, User
from sovchain.protocol.genesis import channel_group

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BASE = small_topology()


def but(part: str, name: str, **fields: Any) -> Topology:
    parts = tuple(entry.model_copy(update=fields) if entry.name == name else entry for entry in getattr(BASE, part))
    return BASE.model_copy(update={part: parts})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("growth") / "network/organizations"
    Material.create(BASE, root, NOW)
    return root


def files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_organisations_nodes_and_users_that_are_new_get_keys_and_the_others_keep_theirs(root: Path) -> None:
    wanted = but("organizations", "Beta", peers=2, users=(*BASE.organizations[1].users, User(name="Clerk")))
    wanted = with_organization(wanted, "Delta", [WIDE])
    before = files(root)
    assert list(lacking(Material(BASE, root))) == []
    made = grow(wanted, root, NOW)
    assert made == ["peer1.beta.small.example", "Clerk@beta.small.example", "Delta"]
    after = files(root)
    assert {path: content for path, content in after.items() if path in before} == before
    assert grow(wanted, root, NOW) == []
    beta = Material(wanted, root).organization("Beta")
    node = x509.load_pem_x509_certificate(beta.node("peer1.beta.small.example").tls_certificate_pem)
    node.verify_directly_issued_by(x509.load_pem_x509_certificate(beta.tls_root_pem))
    assert all(path.stat().st_mode & 0o077 == 0 for path in after)


def test_who_keeps_its_keys_elsewhere_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "network/organizations"
    material = Material.create(BASE, root, NOW)
    (material.organization("Beta").folder / "tlsca/priv_sk").unlink()
    assert grow(but("organizations", "Beta", peers=2), root, NOW) == []


def group(topology: Topology, root: Path) -> Any:
    ports = {node.host: 7000 + number for number, node in enumerate(topology.nodes)}
    material = Material(topology, root)
    return channel_group(channel_definition(topology, material, loopback_endpoints(topology, ports), WIDE))


def test_differences_are_told_in_words_and_equal_configurations_have_none(root: Path) -> None:
    current = group(BASE, root)
    assert differences(current, current) == []
    wanted = group(
        but(
            "channels", WIDE, batch=Batch(max_message_count=7), acls={"qscc/GetBlockByNumber": "Admins"},
            anchor_peers={"Gamma": ()}, lifecycle_endorsement="AND('AlphaMSP.peer', 'BetaMSP.peer')",
        ),
        root,
    )  # fmt: skip
    assert differences(current, wanted) == [
        "application: access to qscc/GetBlockByNumber is guarded by Admins",
        "application: policy Endorsement becomes OutOf(2, AlphaMSP.peer, BetaMSP.peer)",
        "application: policy LifecycleEndorsement becomes OutOf(2, AlphaMSP.peer, BetaMSP.peer)",
        "organisation GammaMSP: anchor peers become none",
        "orderer: BatchSize max_message_count 500 becomes 7",
    ]


def test_members_and_ordering_nodes_that_come_or_go_are_named(root: Path) -> None:
    grow(with_organization(BASE, "Delta", [WIDE]), root, NOW)
    more = with_organization(BASE, "Delta", [WIDE])
    current, wanted = group(BASE, root), group(more, root)
    assert "organisation DeltaMSP comes" in differences(current, wanted)
    assert "organisation DeltaMSP goes" in differences(wanted, current)
    fewer = BASE.model_copy(update={"ordering_organizations": BASE.ordering_organizations[:2]})
    come, go = consenter_changes(current, group(fewer, root))
    assert (len(come), len(go)) == (0, 1)
    assert "ordering organisation GammaOrdererMSP goes" in differences(current, group(fewer, root))
