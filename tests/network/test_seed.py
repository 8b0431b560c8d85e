"""Networks whose keys come from a seed: the same bytes in two directories, and nowhere but on the embedded ledger."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer import proposal_pb2
from smallnetwork import WIDE, small_topology
from typer.testing import CliRunner

from sovchain.cli.commands import app
from sovchain.network import Network, SeedRefused, Topology
from sovchain.network.genesis import genesis_blocks, loopback_endpoints
from sovchain.network.material import Material
from sovchain.network.nodes import Administrator
from sovchain.network.runtimes.chaincodes import ChaincodeTls, build_package
from sovchain.network.seed import MARK, Seed, seed_of, seeded, take_seed
from sovchain.protocol.blocks import header_hash, parse_block
from sovchain.protocol.crypto import sign
from sovchain.protocol.packages import package_id
from sovchain.protocol.proposals import Invocation, build_proposal

SEED = "golden"
BASE_PORT = 23_400


def topology() -> Topology:
    """Without chaincodes, and on fixed ports: what a block says of addresses is to be the same too."""
    made: Topology = small_topology(chaincodes=[], ports={"base": BASE_PORT})
    return made


def files(directory: Path) -> dict[str, bytes]:
    """What the network's identity is: keys, certificates and first blocks."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for folder in ("organizations", "channels")
        for path in sorted((directory / folder).rglob("*"))
        if path.is_file()
    }


async def golden(directory: Path, at: datetime) -> tuple[dict[str, bytes], list[bytes]]:
    """Bring a network up, have one envelope ordered that is signed without chance, and return what there is."""
    async with Network.up(topology(), "embedded", directory, seed=SEED) as network:
        ledger = network._nodes.runtime.ledger  # type: ignore[union-attr]
        channel = ledger.channels[WIDE]
        credential = Material(network.topology, directory / "organizations").organization("Alpha").user("Admin")
        person = Administrator.from_pem("AlphaMSP", credential.certificate_pem, credential.private_key_pem)
        _, proposal = build_proposal(
            Invocation(WIDE, "none", (b"x",)), creator=person.creator, nonce=b"n" * 24, timestamp=at
        )
        payload = common_pb2.Payload(
            header=common_pb2.Header.FromString(proposal.header),
            data=proposal_pb2.Proposal(header=proposal.header).SerializeToString(),
        ).SerializeToString()
        envelope = common_pb2.Envelope(payload=payload, signature=sign(person.key, payload, deterministic=True))
        await channel.order(envelope.SerializeToString())
        await channel.cut()
        blocks = [channel.block(number) or b"" for number in range(channel.height)]
    return files(directory), blocks


def test_keys_certificates_and_first_blocks_are_the_same_bytes(tmp_path: Path) -> None:
    plan, now = topology(), datetime.now(UTC)
    endpoints = loopback_endpoints(plan, {node.host: BASE_PORT + at for at, node in enumerate(plan.nodes)})

    def made(name: str, seed: Seed | None) -> dict[str, bytes]:
        with seeded(seed):
            material = Material.create(plan, tmp_path / name / "organizations", now)
            genesis_blocks(plan, material, endpoints, tmp_path / name / "channels", now)
        return files(tmp_path / name)

    first = made("first", Seed(SEED))
    assert len(first) > 50
    assert made("second", Seed(SEED)) == first
    other, chance = made("other", Seed("other")), made("chance", None)
    keys = [name for name in first if name.endswith(("priv_sk", ".key")) and not name.endswith("/ca.key")]
    assert keys
    assert all(len({one[name] for one in (first, other, chance)}) == 3 for name in keys)


def test_a_chaincode_has_the_same_package_id_in_two_directories(tmp_path: Path) -> None:
    spec, now = small_topology().chaincodes[0], datetime.now(UTC)

    def identifier(name: str, seed: Seed | None) -> str:
        with seeded(seed):
            tls = ChaincodeTls.create(tmp_path / name, now)
        return package_id(build_package(spec, ["127.0.0.1:7052", "127.0.0.1:7053"], tls), spec.label)

    assert identifier("first", Seed(SEED)) == identifier("second", Seed(SEED)) != identifier("chance", None)


@pytest.mark.long
async def test_two_directories_get_the_same_keys_ids_and_blocks_to_the_byte(tmp_path: Path) -> None:
    at = datetime.now(UTC)
    first, blocks = await golden(tmp_path / "first", at)
    second, again = await golden(tmp_path / "second", at)
    assert first == second
    assert len(first) > 50
    assert blocks == again
    assert len(blocks) == 2
    assert header_hash(parse_block(blocks[0]).header) == header_hash(
        parse_block(first[f"channels/{WIDE}.block"]).header
    )
    assert seed_of(tmp_path / "first") == Seed(SEED)


def test_a_directory_with_random_keys_takes_no_seed(tmp_path: Path) -> None:
    with pytest.raises(SeedRefused, match="its keys are random ones"):
        take_seed(tmp_path, SEED, "embedded", is_new=False)
    assert not (tmp_path / MARK).exists()


@pytest.mark.parametrize("runtime", ["native", "docker"])
def test_other_runtimes_refuse_a_seed_and_a_directory_made_from_one(runtime: str, tmp_path: Path) -> None:
    with pytest.raises(SeedRefused, match=f"{runtime} runtime takes no keys"):
        take_seed(tmp_path, SEED, runtime, is_new=True)
    assert take_seed(tmp_path, SEED, "embedded", is_new=True) == Seed(SEED)
    with pytest.raises(SeedRefused, match=f"{runtime} runtime takes no keys"):
        take_seed(tmp_path, None, runtime, is_new=False)
    with pytest.raises(SeedRefused, match="come from another seed"):
        take_seed(tmp_path, "other", "embedded", is_new=False)
    assert take_seed(tmp_path, None, "embedded", is_new=False) == Seed(SEED)
    assert "golden" not in repr(Seed("golden"))


@pytest.mark.parametrize("text", ["", "x" * 201, "two\nlines"])
def test_a_seed_is_one_short_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(SeedRefused):
        take_seed(tmp_path, text, "embedded", is_new=True)
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_a_seed_on_native_before_anything_is_made(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["up", "--runtime", "native", "--seed", SEED, "--dir", str(tmp_path / "n"), "--json"]
    )
    assert done.exit_code != 0
    assert not (tmp_path / "n" / "organizations").exists()
    shutil.rmtree(tmp_path / "n", ignore_errors=True)
