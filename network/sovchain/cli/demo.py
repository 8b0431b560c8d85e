"""`sovchain demo`: the main job on stage, on a network of its own."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sovchain.cli.app import Json, command
from sovchain.cli.law_commands import load_organisations
from sovchain.cli.output import Output
from sovchain.cli.problems import EXIT_FINDINGS, EXIT_OK, CommandError
from sovchain.network.stored import stored_blocks

if TYPE_CHECKING:
    from sovchain.network import Network
    from sovchain.sovereign import Answer, Committed, Sovereign

VOTERS = {"finance": ("Government", "Supervisor", "Finance"), "logistics": ("Government", "Supervisor", "Logistics")}
"""Who votes on a channel: legislator, regulator, sector."""

SDK = """\
import asyncio
from sovchain.network import Network
from sovchain.sovereign import Sovereign

async def main() -> None:
    async with Network.attach("{directory}") as network:
        async with network.connect("Finance", "User1") as gateway:
            finance = Sovereign(gateway.network("finance"))
            dataset = (await finance.catalogue())[0]
            answer = await finance.request(dataset.id, "credit-assessment")
            print(answer.decision, [reason.text() for reason in answer.reasons])

asyncio.run(main())
"""


@dataclass(frozen=True)
class Row:
    """One line of the closing table."""

    step: str
    channel: str
    transaction_id: str
    block: int
    outcome: str


@dataclass
class Stage:
    """The running demonstration: its network, what it says, and what it has done."""

    network: Network
    out: Output
    examples: Path
    rows: list[Row] = field(default_factory=list)
    latest: dict[str, Committed] = field(default_factory=dict)

    @asynccontextmanager
    async def office(self, organization: str, channel: str, user: str = "User1") -> AsyncIterator[Sovereign]:
        from sovchain.sovereign import Sovereign

        async with self.network.connect(organization, user) as gateway:
            sovereign = Sovereign(gateway.network(channel))
            if channel in self.latest:
                # What the others have done is to be seen here too, and peers commit a block at different moments.
                await sovereign.reached(self.latest[channel])
            yield sovereign

    def title(self, text: str) -> None:
        self.out.say(f"\n{text}")

    def done(self, step: str, channel: str, committed: Committed, outcome: str) -> None:
        self.latest[channel] = committed
        self.rows.append(Row(step, channel, committed.transaction_id, committed.block_number, outcome))
        self.out.say(f"  {step}: {outcome} (block {committed.block_number})")

    def answered(self, step: str, channel: str, answer: Answer, wanted: str) -> None:
        """Record a decision. The demonstration stops when it is not the one that the law demands."""
        because = "; ".join(reason.text() for reason in answer.reasons)
        self.done(step, channel, answer.decided, f"{answer.decision}: {because}")
        if answer.decision != wanted:
            raise CommandError(
                f"the demonstration stops: {step} ended in {answer.decision}",
                because,
                "report this as an error of sovchain",
                1,
            )


async def _admit(stage: Stage, channel: str, file: str, step: str) -> None:
    organisations = load_organisations(stage.examples / "registry" / file)
    first, *others = VOTERS[channel]
    async with stage.office(first, channel, "Admin") as office:
        proposed = await office.propose_admission(organisations)
        voted = await office.vote(proposed.ballot)
    for voter in others:
        stage.latest[channel] = voted.committed
        async with stage.office(voter, channel, "Admin") as office:
            voted = await office.vote(proposed.ballot)
    names = ", ".join(organisation.name for organisation in organisations)
    stage.done(step, channel, voted.committed, f"admitted {names}")


async def _enact(stage: Stage, channel: str) -> None:
    first, *others = VOTERS[channel]
    async with stage.office(first, channel, "Admin") as office:
        proposed = await office.propose_law(stage.examples / "laws" / "guiyang-data-sharing.cedar")
        voted = await office.vote(proposed.ballot)
    header = proposed.draft.header
    name = f"{header.law} version {header.version}"
    stage.done(
        "propose the law", channel, proposed.committed, f"{name}, {len(proposed.draft.clauses)} clauses, under vote"
    )
    stage.latest[channel] = voted.committed
    for voter in others:
        async with stage.office(voter, channel, "Admin") as office:
            voted = await office.vote(proposed.ballot)
            (view,) = [law for law in await office.laws() if law.ballot == proposed.ballot]
        missing = (
            f"the vote of the {', '.join(view.missing)} is missing" if view.missing else "every class of seat has voted"
        )
        stage.done(f"{voter} votes", channel, voted.committed, f"{name} is {view.state}: {missing}")


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
        answer = await finance.request(dataset, "credit-assessment", legal_basis="contract")
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
    await _admit(stage, "logistics", "overseas.yaml", "admit the overseas carrier")
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


def _audit(stage: Stage) -> tuple[dict[str, Any], bool]:
    """Recompute everything from the stored blocks, then alter one byte of a copy and find it."""
    from sovchain.audit import verify_channel
    from sovchain.protocol.blocks import iter_block_file, write_block_file

    reports = [verify_channel(stored_blocks(stage.network.directory, channel)) for channel in stage.network.channels]
    for report in reports:
        stage.out.say(
            f"  {report.channel}: {report.blocks} blocks, {report.endorsements} endorsements, "
            f"{sum(check.recomputed for check in report.receipts)} of {len(report.receipts)} receipts recomputed: "
            + ("in order" if report.ok else "; ".join(map(str, report.findings)))
        )
    copy = bytearray(write_block_file(stored_blocks(stage.network.directory, "finance")))
    position = secrets.randbelow(len(copy))
    copy[position] ^= 1 << secrets.randbelow(8)
    altered = verify_channel(iter_block_file(bytes(copy)))
    stage.out.say(f"  one bit flipped in a copy of finance, byte {position} of {len(copy)}:")
    for finding in altered.findings[:3]:
        stage.out.say(f"    found: {finding}")
    good = all(report.ok for report in reports) and not altered.ok
    data = {
        "channels": [report.to_json() for report in reports],
        "flipped": {"byte": position, "of": len(copy), "findings": [str(finding) for finding in altered.findings]},
    }
    return data, good


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


@command
async def demo(
    file: Annotated[Path | None, typer.Option(help="A CSV file of yours to share; without it a sample.")] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Keep the network there; without it nothing stays.")
    ] = None,
    runtime: Annotated[str, typer.Option(help="What the network runs on: embedded, native or docker.")] = "embedded",
    fabric_version: Annotated[FabricVersion, typer.Option(help="Version of Fabric.")] = FabricVersion.V3_1,
    json_output: Json = False,
) -> int:
    """Share a file under law on a network of its own: permit, refusals, audit."""
    from sovchain.network import Network, default_topology
    from sovchain.sovereign import read_data_file

    out = Output(as_json=json_output)
    topology = default_topology().model_copy(update={"fabric_version": fabric_version.value})
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
            result, good = await _play(stage, chosen)
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
    for founded in VOTERS:
        await _admit(stage, founded, f"{founded}.yaml", "admit the organisations")
        await _enact(stage, founded)
    stage.title(f"3. Government shares {file.name}")
    dataset = await _share_with_finance(stage, file)
    stage.title("4. Finance asks with a purpose that the law allows")
    await _permit(stage, dataset, file)
    stage.title("5. Three requests that are refused, each with a committed receipt")
    await _refusals(stage, dataset)
    stage.title("6. Supervisor lists who saw what under which law")
    accesses = await _who_saw(stage)
    stage.title("   An auditor recomputes it all from the ledger's own bytes")
    audit, good = _audit(stage)
    stage.title("7. Done" if good else "7. The audit found something that must not be")
    return {"steps": [asdict(row) for row in stage.rows], "accesses": accesses, "audit": audit, "ok": good}, good
