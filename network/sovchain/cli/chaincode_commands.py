"""`sovchain chaincode`: from an empty folder to a package that peers install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sovchain.cli.app import Json, command
from sovchain.cli.output import Output
from sovchain.cli.problems import EXIT_REFUSED

if TYPE_CHECKING:
    from sovchain.chaincode import Chaincode

chaincode = typer.Typer(help="Write, check, test and package chaincode.", no_args_is_help=True)

Module = Annotated[
    str | None,
    typer.Argument(metavar="[MODULE:ATTRIBUTE]", help="The chaincode; without it the one that pyproject.toml names."),
]
On = Literal["harness", "embedded", "native", "docker"]


@chaincode.command()
@command
async def init(
    name: Annotated[str, typer.Argument(help="Name of the chaincode, such as city-permits.", show_default=False)],
    folder: Annotated[Path | None, typer.Option(help="Where to write it; without it a folder of that name.")] = None,
    json_output: Json = False,
) -> None:
    """Write a new project: a contract, its tests, and a network to try it on."""
    from sovchain.cli.chaincode_project import create_project

    place = folder or Path(name)
    written = create_project(place, name)
    Output(as_json=json_output).result(
        {"ok": True, "folder": str(place), "files": [str(path) for path in written]},
        f"{place} has a contract with its tests; next:",
        f"  cd {place}",
        "  sovchain chaincode test",
        "  sovchain up --topology topology.yaml --detach",
    )


@chaincode.command()
@command
async def lint(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files and folders; without them this folder.")] = None,
    json_output: Json = False,
) -> int:
    """Name what would make two peers come to different results, with line and what to use instead."""
    from dataclasses import asdict

    from sovchain.chaincode.determinism.lint import lint_paths
    from sovchain.cli.problems import CommandError

    try:
        found = lint_paths(paths or [Path()])
    except OSError as error:
        raise CommandError("the contracts cannot be read", str(error), "name files or folders that exist") from None
    out = Output(as_json=json_output)
    lines = [str(finding) for finding in found]
    lines.append(f"{len(found)} found" if found else "nothing found that would make two peers differ")
    out.result({"ok": not found, "findings": [asdict(finding) for finding in found]}, *lines)
    return EXIT_REFUSED if found else 0


@chaincode.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run_tests(
    context: typer.Context,
    on: Annotated[On, typer.Option(help="What contracts are tested on.")] = "harness",
    fabric_version: Annotated[str | None, typer.Option(help="Of the network: 2.5 or 3.1.")] = None,
) -> None:
    """Run the project's tests with pytest; further options go to it."""
    options = [] if on == "harness" else ["--contracts-on", "network", "--fabric-runtime", on]
    options += ["--fabric-version", fabric_version] if fabric_version else []
    done = subprocess.run([sys.executable, "-m", "pytest", *options, *context.args], check=False)
    raise typer.Exit(done.returncode)


@chaincode.command()
@command
async def package(
    label: Annotated[str, typer.Option(help="The package's label, such as permits_1.0.")],
    address: Annotated[str, typer.Option(help="host:port where peers find the chaincode's service.")],
    output: Annotated[Path | None, typer.Option(help="The file; without it LABEL.tgz.")] = None,
    root: Annotated[Path | None, typer.Option(help="PEM of the CA of the service's TLS certificate.")] = None,
    client_certificate: Annotated[Path | None, typer.Option(help="PEM of the peers' client certificate.")] = None,
    client_key: Annotated[Path | None, typer.Option(help="PEM of its key.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Without TLS, for a network of your own machine.")
    ] = False,
    dial_timeout: Annotated[str, typer.Option(help="How long a peer tries, such as 10s.")] = "10s",
    json_output: Json = False,
) -> None:
    """Write the package that peers install (chaincode as a service) and say its id, the CHAINCODE_ID of the service."""
    from sovchain.cli.problems import CommandError
    from sovchain.protocol.packages import PackageError, build_ccaas_package, package_id

    if (root is None) != insecure or (client_certificate is None) != (client_key is None):
        raise CommandError(
            "the package does not say how peers trust the service",
            "TLS takes --root, mutual TLS also --client-certificate with --client-key; --insecure takes none of them",
            "give the files, or --insecure",
        )
    connection: dict[str, Any] = {
        "address": address,
        "dial_timeout": dial_timeout,
        "tls_required": not insecure,
        "client_auth_required": client_key is not None,
    }
    for name, path in (("root_cert", root), ("client_cert", client_certificate), ("client_key", client_key)):
        if path is not None:
            try:
                connection[name] = path.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(f"{path} cannot be read", str(error), "name a PEM file") from None
    try:
        data = build_ccaas_package(label, connection)
    except PackageError as error:
        raise CommandError("there is no such package", str(error), "correct the label or the address") from None
    path = output or Path(f"{label}.tgz")
    path.touch(mode=0o600 if client_key else 0o644)
    path.write_bytes(data)
    found = package_id(data, label)
    Output(as_json=json_output).result({"ok": True, "package": str(path), "id": found}, f"{path} has the id {found}")


@chaincode.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(context: typer.Context, module: Module = None) -> None:
    """Serve the chaincode to peers; CHAINCODE_ID, CHAINCODE_SERVER_ADDRESS and CHAINCODE_TLS_* say where and how."""
    from sovchain.cli.app import report
    from sovchain.cli.chaincode_project import chaincode_of
    from sovchain.cli.problems import CommandError

    try:
        reference = module or chaincode_of(Path())
    except CommandError as problem:
        raise typer.Exit(report(Output(as_json=False), problem)) from None
    paths = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    command_line = [sys.executable, "-m", "sovchain.chaincode", "serve", reference, *context.args]
    os.execve(sys.executable, command_line, {**os.environ, "PYTHONPATH": paths})  # noqa: S606  our own program


@chaincode.command()
@command
async def metadata(module: Module = None, json_output: Json = False) -> None:
    """Print the metadata that `org.hyperledger.fabric:GetMetadata` returns. It is JSON either way."""
    from sovchain.chaincode.metadata import metadata as of

    Output(as_json=True).result(of(_loaded(module)))


@chaincode.command()
@command
async def docs(module: Module = None, json_output: Json = False) -> None:
    """Print the chaincode's operations, and the tables and diagrams of its states, as Markdown."""
    from sovchain.chaincode.describe import markdown

    text = markdown(_loaded(module))
    if json_output:
        Output(as_json=True).result({"ok": True, "markdown": text})
    else:
        sys.stdout.write(text)


def _loaded(module: str | None) -> Chaincode:
    """Import a chaincode as its project would. Raises CommandError."""
    from sovchain.chaincode import ServiceError
    from sovchain.chaincode.serve import load_chaincode
    from sovchain.cli.chaincode_project import chaincode_of
    from sovchain.cli.problems import CommandError

    reference = module or chaincode_of(Path())
    sys.path.insert(0, str(Path.cwd()))
    try:
        return load_chaincode(reference)
    except ServiceError as error:
        raise CommandError(f"{reference} cannot be loaded", str(error), "correct the name or the module") from None
