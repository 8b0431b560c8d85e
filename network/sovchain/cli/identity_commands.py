"""`sovchain identity`: who there is, whose certificates end, renewing and revoking them; and `sovchain network export`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sovchain.cli.app import DEFAULT_DIRECTORY, Directory, Json, command
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError

if TYPE_CHECKING:
    from sovchain.network.identities import Identities

identity = typer.Typer(help="Users' and nodes' certificates: list, renew, revoke.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A user, or the host name of a node.")]
Org = Annotated[str, typer.Option("--org", help="The organisation, or ordering organisation.")]
REASONS = (
    "unspecified, keycompromise, cacompromise, affiliationchanged, superseded, cessationofoperation, certificatehold, "
    "privilegewithdrawn or aacompromise"
)


def _identities(directory: Path) -> Identities:
    from sovchain.network import Network
    from sovchain.network.identities import Identities

    return Identities(Network.status(directory))


@identity.command("list")
@command
async def list_identities(
    org: Annotated[str | None, typer.Option("--org", help="Only of this organisation.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """List users and nodes, when their certificates end, and which are revoked."""
    found = _identities(directory).known(org)
    rows = [
        (seen.organization, seen.name, seen.role, f"{seen.ends_at:%Y-%m-%d %H:%M}", seen.issuer, "revoked" if seen.revoked else "")
        for seen in found
    ]  # fmt: skip
    Output(as_json=json_output).table(
        [{**vars(seen), "ends_at": seen.ends_at.isoformat()} for seen in found],
        "identities",
        ("organisation", "name", "role", "ends (UTC)", "issued by", ""),
        rows,
    )


@identity.command("renew")
@command
async def renew(name: Name, org: Org, directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> None:
    """Renew the certificates of a user or node; the keys stay. A node uses them from its next start."""
    renewed = await _identities(directory).renew(org, name)
    (seen,) = (found for found in _identities(directory).known(org) if found.name in (name, renewed.partition("@")[0]))
    Output(as_json=json_output).result(
        {"renewed": renewed, "ends_at": seen.ends_at.isoformat()},
        f"renewed: {renewed}, until {seen.ends_at:%Y-%m-%d %H:%M} UTC",
    )


@identity.command("revoke")
@command
async def revoke(
    name: Name,
    org: Org,
    reason: Annotated[str, typer.Option("--reason", help=f"Why, by RFC 5280: {REASONS}.")] = "unspecified",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Revoke all certificates of a user or node: in the organisation's folders, and on its channels while the network is up.

    Peers refuse its proposals from then on. Its open TLS connections go on, and TLS certificates are not revoked by it.
    """
    from sovchain.client.ca.records import reason_named

    done = await _identities(directory).revoke(org, name, reason=reason_named(reason))
    serials = [f"{serial:x}" for serial in done.revoked.serials]
    data = {
        "revoked": done.revoked.name,
        "serials": serials,
        "newly": done.revoked.newly,
        "channels": {found.channel: found.sequence for found in done.channels},
        "unread": list(done.unread),
    }
    lines = [f"revoked: {done.revoked.name}, {len(serials)} certificate{'s' if len(serials) != 1 else ''}"]
    lines += [f"in force on channel {found.channel} (configuration {found.sequence})" for found in done.channels]
    lines += [f"not in force on channel {name}: nobody here is a member who can read it" for name in done.unread]
    if not done.channels and not done.unread:
        lines.append("the network is not up: give the command again when it is, so that its channels refuse it")
    Output(as_json=json_output).result(data, *lines)


@command
async def export(
    org: Annotated[str, typer.Option("--org", help="The organisation whose clients it is for.")],
    output: Annotated[Path, typer.Option("--output", help="A new folder, or a new file that ends in .zip.")],
    user: Annotated[
        list[str] | None, typer.Option("--user", help="Whose identity goes along. May be given again.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="Encrypts the keys with the first line of this file.")
    ] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Write what a client of an organisation needs: profile, TLS roots, wallets of the users that are named."""
    from sovchain.network import Network
    from sovchain.network.export import export as write

    password = _password(password_file) if password_file else None
    done = write(
        Network.status(directory),
        org,
        output.absolute(),
        users=user or (),
        password=(lambda: password) if password is not None else None,
    )
    Output(as_json=json_output).result(
        {
            "path": str(done.path),
            "organization": done.organization,
            "users": list(done.users),
            "ends_at": done.ends_at.isoformat() if done.ends_at else None,
        },
        f"written: {done.path}, for clients of {done.organization}"
        + (f", with the keys of {', '.join(done.users)}: keep it as a secret" if done.users else ", without any key"),
    )


def _password(path: Path) -> str:
    first = path.read_text().partition(os.linesep)[0]
    if not first:
        raise CommandError(f"cannot use the password in {path}", "its first line is empty", "write one there")
    return first
