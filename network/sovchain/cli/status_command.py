"""`sovchain status`: what a network looks like now, as tables or JSON, with an exit code for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, Directory, Json, command
from sovchain.cli.output import Output

if TYPE_CHECKING:
    from sovchain.network.observation import Chain, Observation

Table = tuple[str, Sequence[str], list[Sequence[object]]]


@command
async def status(directory: Directory = DEFAULT_DIRECTORY, json_output: Json = False) -> int:
    """Say how the network in a directory is: nodes, channels, chaincodes, certificates that end soon.

    Exit codes: 0 it is up and well, 3 it is not up, 5 it is up and something is wrong.
    """
    from sovchain.network import Network
    from sovchain.network.observe import observe

    out = Output(as_json=json_output)
    found = await observe(Network.status(directory))
    wrong = found.problems()
    if json_output:
        out.result(found.as_document())
    else:
        process = f" (process {found.pid})" if found.pid else ""
        out.result(None, f"{found.state}: {found.directory}{process}{f', {found.runtime}' if found.runtime else ''}")
        for title, columns, rows in _tables(found):
            if rows:
                out.result(None, "")
                out.table(None, title, columns, rows)
        for sentence in wrong:
            out.result(None, f"wrong: {sentence}")
    if found.state != "up":
        return problems.EXIT_NETWORK
    return problems.EXIT_FINDINGS if wrong else problems.EXIT_OK


def _tables(found: Observation) -> Iterator[Table]:
    yield (
        "channels",
        ("channel", "height", "head", "peers", "leader", "members"),
        [
            (
                channel.name,
                channel.height or "unknown",
                channel.head[:16],
                _peers(channel.peers, channel.agreement),
                channel.leader or "none",
                ", ".join(channel.members),
            )
            for channel in found.channels
        ],
    )
    yield (
        "nodes",
        ("node", "organisation", "address", "state", "release", "process", "MiB", "metrics"),
        [
            (
                node.host,
                node.organization,
                node.address,
                _state(node.answers, node.problem, node.health),
                node.version or "-",
                node.pid or "-",
                node.memory_mib or "-",
                node.metrics or "-",
            )
            for node in found.nodes
        ],
    )
    yield (
        "chaincodes",
        ("chaincode", "channel", "version", "sequence", "approved by", "not by"),
        [
            (
                chaincode.name,
                chaincode.channel,
                chaincode.version or "-",
                chaincode.sequence or chaincode.problem,
                ", ".join(name for name, done in chaincode.approvals.items() if done) or "-",
                ", ".join(name for name, done in chaincode.approvals.items() if not done) or "-",
            )
            for chaincode in found.chaincodes
        ],
    )
    yield (
        "chaincode processes",
        ("service", "address", "state", "process"),
        [(s.name, s.address, _state(s.answers, s.problem), s.pid or "-") for s in found.services],
    )
    yield (
        f"certificates that end within 30 days (of {found.certificates_checked})",
        ("certificate", "where", "ends", "days left"),
        [(c.subject, c.place, f"{c.ends_at:%Y-%m-%d %H:%M} UTC", c.days_left) for c in found.certificates],
    )


def _peers(chains: Sequence[Chain], agreement: str) -> str:
    """How many peers have the whole chain, and who does not."""
    top = max((chain.height for chain in chains), default=0)
    behind = [
        f"{chain.host} {f'at {chain.height}' if chain.height else 'not reached'}"
        for chain in chains
        if chain.height < top or not chain.height
    ]
    words = {"forked": ", FORKED", "unknown": "", "same": ""}[agreement]
    return f"{len(chains) - len(behind)} of {len(chains)} at the top{words}{''.join(f', {name}' for name in behind)}"


def _state(answers: bool, problem: str, health: str = "") -> str:
    if not answers:
        return f"not reached: {problem}"
    return problem or (health if health not in ("", "OK") else "up")
