"""`sovchain demo`: the main job on stage, on a network of its own."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sovchain.cli.app import Json, command
from sovchain.cli.output import Output
from sovchain.cli.problems import EXIT_FINDINGS, EXIT_OK, CommandError
from sovchain.cli.scenarios import demonstration, scenario_names
from sovchain.cli.stage import Stage, admit, audit, enact

if TYPE_CHECKING:
    from sovchain.sovereign import Committed, Filed

SDK = """\
import asyncio
from sovchain.network import Network
from sovchain.sovereign import Sovereign

async def main() -> None:
    async with Network.attach("{directory}") as network:
        async with network.connect("Finance", "User1") as gateway:
            finance = Sovereign(gateway.network("finance"))
            dataset = (await finance.catalogue())[0]
            answer = await finance.request(dataset.id, "statistics")
            print(answer.decision, [reason.text() for reason in answer.reasons])

asyncio.run(main())
"""


async def _share_with_finance(stage: Stage, file: Path) -> str:
    async with stage.office("Government", "finance") as government:
        shared = await government.share(
            file,
            data_class="important",
            residency=["CN-GZ-520100"],
            purposes=["credit-assessment", "statistics", "marketing"],
        )
    entry = shared.dataset.entry
    stage.done(
        "deposit the bytes",
        "finance",
        shared.deposited,
        f"{entry.size_bytes} bytes in Government's private collection only",
    )
    stage.done(
        "publish the entry",
        "finance",
        shared.published,
        f"{entry.name}: {entry.rows} rows, salted hash {shared.dataset.commitment[:16]}…",
    )
    return shared.id


async def _permit(stage: Stage, dataset: str, file: Path) -> None:
    async with stage.office("Finance", "finance") as finance, stage.office("Government", "finance") as government:
        filed = await finance.file_request(dataset, "credit-assessment", legal_basis="contract")
        cosigned = await _cosign(stage, filed)
        await finance.reached(cosigned)
        answer = await finance.decide(filed)
        stage.answered("Finance asks for credit assessment", "finance", answer, "permit")
        await government.reached(answer.decided)
        released = await government.release(answer.request)
        stage.done("Government releases", "finance", released.committed, "bytes in Finance's private collection only")
        await finance.reached(released.committed)
        received = await finance.open(answer.request)
        if received != await asyncio.to_thread(file.read_bytes):
            raise CommandError(
                "the demonstration stops: the bytes differ", "the file opened is not the file shared", "report this", 1
            )
        acknowledged = await finance.acknowledge(answer.request)
        digest = hashlib.sha256(received).hexdigest()[:16]
        stage.done(
            "Finance opens and acknowledges",
            "finance",
            acknowledged.committed,
            f"{len(received)} bytes, hash checked, SHA-256 {digest}…",
        )


async def _cosign(stage: Stage, filed: Filed) -> Committed:
    """The regulator's signature, which important data need: a person's, other than the requester's."""
    from sovchain.sovereign import Authority

    latest = filed.committed
    for organization, digit in (("Finance", "1"), ("Supervisor", "2")):
        async with stage.seen(organization, "finance") as member:
            identity = (await Authority(member).whoami()).identity
        async with stage.seen(organization, "finance", "Admin") as office:
            bound = await Authority(office).bind_person(identity, digit * 64)  # a pseudonym of the identity number
        latest = max(latest, bound.committed, key=lambda one: one.block_number)
    async with stage.seen("Supervisor", "finance") as member, stage.office("Supervisor", "finance") as supervisor:
        await supervisor.reached(latest)
        cosigned = (await Authority(member).cosign(filed.request)).committed
    stage.done("Supervisor co-signs", "finance", cosigned, "a second person, for data of class important")
    return cosigned


async def _refusals(stage: Stage, dataset: str) -> None:
    async with stage.office("Finance", "finance") as finance:
        answer = await finance.request(dataset, "marketing")
        stage.answered("Finance asks for marketing", "finance", answer, "deny")
    async with stage.office("Logistics", "logistics") as logistics:
        shared = await logistics.share(
            stage.examples / "data" / "waybills.csv",
            residency=["CN", "SG"],
            purposes=["route-planning", "customs-clearance"],
        )
        stage.done("Logistics shares its waybills", "logistics", shared.published, f"{shared.dataset.entry.rows} rows")
    async with stage.office("OverseasCarrier", "logistics") as carrier:
        answer = await carrier.request(shared.id, "route-planning")
        stage.answered("the carrier asks, unknown to the registry", "logistics", answer, "deny")
    await admit(stage, "logistics", "overseas.yaml", "admit the overseas carrier")
    async with stage.office("OverseasCarrier", "logistics") as carrier:
        answer = await carrier.request(shared.id, "route-planning")
        stage.answered("the carrier asks again", "logistics", answer, "deny")


async def _who_saw(stage: Stage) -> list[dict[str, Any]]:
    found = []
    for channel in ("finance", "logistics"):
        async with stage.office("Supervisor", channel) as supervisor:
            found += [(channel, access) for access in await supervisor.who_saw()]
    for channel, access in found:
        seen = "received" if access.acknowledged_at else "nothing delivered"
        stage.out.say(
            f"  {channel}: {access.msp_id} asked for {access.dataset_name} ({access.purpose}): {access.decision}, {seen}; "
            + "; ".join(reason.text() for reason in access.reasons)
        )
    return [{"channel": channel, **access.model_dump(mode="json")} for channel, access in found]


def _examples() -> Path:
    """The folder of examples: below the checkout, or what an installed package brings."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "examples" / "laws").is_dir():
            return parent / "examples"
    raise CommandError(
        "the examples are not here", "this installation holds only the packages", "run it from a clone: ./scripts/demo"
    )


class FabricVersion(StrEnum):
    """The versions of Fabric that a network can be made for."""

    V2_5 = "2.5"
    V3_1 = "3.1"


MAIN_JOB = "data-sharing"
"""The scenario that is shown when none is named."""
_SCENARIOS = ", ".join((MAIN_JOB, *scenario_names()))


@command
async def demo(
    scenario: Annotated[str, typer.Option(help=f"What is shown: {_SCENARIOS}.")] = MAIN_JOB,
    file: Annotated[Path | None, typer.Option(help="A CSV file of yours to share; without it a sample.")] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep the network there; without it nothing stays.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="What the network runs on: embedded, native or docker.")] = "embedded",
    fabric_version: Annotated[FabricVersion, typer.Option(help="Version of Fabric.")] = FabricVersion.V3_1,
    json_output: Json = False,
) -> int:
    """Share a file under law on a network of its own: permit, refusals, audit; or another scenario."""
    from sovchain.network import Network, default_topology
    from sovchain.sovereign import read_data_file

    out = Output(as_json=json_output)
    topology = default_topology().model_copy(update={"fabric_version": fabric_version.value})
    if scenario not in (MAIN_JOB, *scenario_names()):
        raise CommandError(f"there is no scenario {scenario}", f"there are {_SCENARIOS}", "choose one of these", 2)
    shown = None if scenario == MAIN_JOB else demonstration(scenario)
    if shown is not None:
        topology = shown.topology(topology)
    examples = _examples()
    chosen = file or examples / "data" / "sme-tax-credit.csv"
    read_data_file(chosen)  # a file that cannot be shared is refused before a network is started
    home = directory or Path(tempfile.mkdtemp(prefix="sovchain-demo-")) / "network"
    try:
        with out.progress("start the network") as progress:
            context = Network.up(topology, runtime, home, progress=progress)
            network = await context.__aenter__()
        try:
            stage = Stage(network, out, examples)
            result, good = await (_play(stage, chosen) if shown is None else shown.play(stage))
        finally:
            await context.__aexit__(None, None, None)
    finally:
        if directory is None:
            shutil.rmtree(home.parent, ignore_errors=True)
    rows = [(row.step, row.channel, row.transaction_id[:16], row.block, row.outcome) for row in stage.rows]
    out.table(result, "what is on the ledger", ("step", "channel", "transaction", "block", "outcome"), rows)
    if directory is None:
        keep = "sovchain-network"
        out.say(
            f"\nGo on: .venv/bin/sovchain up --detach --dir {keep}, or ./scripts/demo --dir {keep} to keep this one's ledger; then:\n"
        )
    else:
        keep = str(directory)
        out.say(f"\nGo on: .venv/bin/sovchain up --detach --dir {keep}; then:\n")
    out.say(SDK.format(directory=keep))
    return EXIT_OK if good else EXIT_FINDINGS


async def _play(stage: Stage, file: Path) -> tuple[dict[str, Any], bool]:
    network = stage.network
    stage.title(f"1. The network is up: {', '.join(network.organizations)}")
    for channel in network.topology.channels:
        spec = network.topology.chaincode(channel.name)
        stage.out.say(f"  {channel.name}: {', '.join(channel.members)}; endorsed by {spec.endorsement_policy}")
    stage.title("2. Organisations are admitted and a law is enacted, each by legislator, regulator and sector")
    for founded in ("finance", "logistics"):
        await admit(stage, founded, f"{founded}.yaml", "admit the organisations")
        await enact(stage, founded)
    stage.title(f"3. Government shares {file.name}")
    dataset = await _share_with_finance(stage, file)
    stage.title("4. Finance asks with a purpose that the law allows")
    await _permit(stage, dataset, file)
    stage.title("5. Three requests that are refused, each with a committed receipt")
    await _refusals(stage, dataset)
    stage.title("6. Supervisor lists who saw what under which law")
    accesses = await _who_saw(stage)
    stage.title("   An auditor recomputes it all from the ledger's own bytes")
    report, good = audit(stage)
    stage.title("7. Done" if good else "7. The audit found something that must not be")
    return {"steps": [asdict(row) for row in stage.rows], "accesses": accesses, "audit": report, "ok": good}, good
