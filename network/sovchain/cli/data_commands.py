"""`sovchain data`: payloads of any size, sealed in a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sovchain.cli.app import DEFAULT_DIRECTORY, As, Channel, Directory, Json, command, sovereign
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError
from sovchain.cli.sharing_commands import DataClass, RequestId

if TYPE_CHECKING:
    from sovchain.sovereign import Sovereign

data = typer.Typer(name="data", help="Payloads of any size, sealed in a store.", no_args_is_help=True)

Insecure = Annotated[bool, typer.Option("--insecure", help="Take an S3 endpoint without TLS.")]


@data.command("seal")
@command
async def seal(
    file: Annotated[Path, typer.Argument(help="Any file. Its sealing can be interrupted and taken up again.")],
    store: Annotated[
        str, typer.Option(help="A folder, or s3://BUCKET/PREFIX?endpoint=https://HOST; credentials as for aws.")
    ],
    channel: Channel,
    who: As,
    purpose: Annotated[list[str], typer.Option(help="A purpose that the data may be used for. Repeatable.")],
    data_class: DataClass = "general",
    jurisdiction: Annotated[
        str | None, typer.Option(help="Whose data it is; without it the owner's jurisdiction.")
    ] = None,
    residency: Annotated[
        list[str] | None,
        typer.Option(help="Where the data may be kept. Repeatable; without it the jurisdiction alone."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name in the catalogue; without it the file's name.")] = None,
    personal: Annotated[str, typer.Option(help="none, personal or sensitive.")] = "none",
    rows: Annotated[int, typer.Option(help="How many persons personal data are about.")] = 0,
    location: Annotated[
        str | None, typer.Option(help="Where the catalogue says the store is; without it the bucket's address.")
    ] = None,
    insecure: Insecure = False,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Seal a file into a store, and deposit the key that opens it: it is delivered only after a committed permit."""
    from sovchain.sovereign import About, SealedData, open_store
    from sovchain.sovereign.sovereign import check_word

    out = Output(as_json=json_output)
    check_word("personal kind", personal, ("none", "personal", "sensitive"))
    chosen = open_store(store, insecure=insecure)
    about = About.model_validate({"personal": personal})
    async with sovereign(directory, who, channel) as office:
        with out.transfer(f"seal {file.name}") as progress:
            shared = await SealedData(office, chosen).seal(
                file,
                purposes=purpose,
                name=name,
                data_class=data_class,
                jurisdiction=jurisdiction,
                residency=residency,
                rows=rows,
                about=about,
                location=location,
                progress=progress,
            )
    entry = shared.dataset.entry
    out.result(
        shared.model_dump(mode="json"),
        f"data set {shared.id}",
        f"{entry.name}: {entry.size_bytes} bytes sealed, class {entry.data_class}, {entry.jurisdiction}",
        f"manifest {entry.sealed.manifest if entry.sealed else ''}, published in block {shared.published.block_number}",
    )


@data.command("fetch")
@command
async def fetch(
    request_id: RequestId,
    channel: Channel,
    who: As,
    output: Annotated[Path, typer.Option("--output", help="Where to write the file; it must not exist.")],
    store: Annotated[str | None, typer.Option(help="The store; without it where the catalogue says.")] = None,
    acknowledge: Annotated[bool, typer.Option(help="Commit an acknowledgement after the hash was checked.")] = True,
    insecure: Insecure = False,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """As the requester: fetch and open a sealed payload that was released. Interrupted, it goes on when called again."""
    from sovchain.sovereign import SealedData, open_store

    out = Output(as_json=json_output)
    async with sovereign(directory, who, channel) as office:
        where = store or await _location(office, (await office.filed(request_id)).dataset)
        with out.transfer(f"fetch {output.name}") as progress:
            fetched = await SealedData(office, open_store(where, insecure=insecure)).fetch(
                request_id, output, progress=progress
            )
        acknowledged = await office.acknowledge(request_id) if acknowledge else None
    out.result(
        {
            "file": str(output),
            "bytes": fetched.size_bytes,
            "dataset": fetched.dataset,
            "acknowledged": acknowledged.model_dump(mode="json") if acknowledged else None,
        },
        f"{output}: {fetched.size_bytes} bytes, equal to what was sealed",
        *([f"acknowledged in block {acknowledged.committed.block_number}"] if acknowledged else []),
    )


@data.command("check")
@command
async def check(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The data set's id.")],
    channel: Channel,
    who: As = "Supervisor",
    store: Annotated[str | None, typer.Option(help="The store; without it where the catalogue says.")] = None,
    insecure: Insecure = False,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Check that a store has a sealed payload whole and unaltered. It takes no key, so anyone may."""
    from sovchain.sovereign import SealedData, open_store

    out = Output(as_json=json_output)
    async with sovereign(directory, who, channel) as office:
        where = store or await _location(office, dataset)
        with out.transfer("check") as progress:
            manifest = await SealedData(office, open_store(where, insecure=insecure)).check(dataset, progress=progress)
    out.result(
        {"dataset": dataset, "chunks": len(manifest.chunks), "bytes": manifest.size_bytes},
        f"all {len(manifest.chunks)} chunks of {manifest.size_bytes} bytes are there, unaltered",
    )


async def _location(office: Sovereign, dataset: str) -> str:
    """Where the catalogue says that a data set's store is. Raises CommandError."""
    sealed = (await office.dataset(dataset)).entry.sealed
    if sealed is None:
        raise CommandError("the data set is not sealed", "it was delivered itself", "open it with `sovchain open`")
    # Requests to a store carry the caller's credentials: an address that another organisation wrote is not followed blindly.
    if not sealed.location.startswith("s3://") or "?" in sealed.location:
        raise CommandError(
            "the store must be named",
            f"the catalogue says {sealed.location!a}, which is no plain bucket",
            "look at it, and give the store with --store",
        )
    return sealed.location
