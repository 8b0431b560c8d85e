"""`python -m sovchain.chaincode`: serve chaincode to peers that dial it, or dial a peer.

Exit codes: 0 stopped as told, 1 the stream to the peer failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING

from sovchain.chaincode.errors import ServiceError, StreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sovchain.chaincode.serve import RunOptions

EXIT_STREAM = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    from sovchain.chaincode import serve
    from sovchain.rpc import log

    log.configure_lazily()
    try:
        run = _options(options)
        if options.command == "serve":
            specs = (
                serve.read_config(options.config)
                if options.config
                else [serve.service_from_environment(_reference(options), os.environ)]
            )
            asyncio.run(serve.run_services(specs, run))
        else:
            spec = (
                serve.connect_from_metadata(options.metadata)
                if options.metadata
                else serve.connect_from_environment(os.environ, options.peer_address)
            )
            # A peer that has started this process by its external builder starts it again when it needs it again.
            once = options.once or bool(options.metadata)
            asyncio.run(serve.run_connection(_reference(options), spec, run, once=once))
    except ServiceError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_USAGE
    except StreamError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_STREAM
    return 0


def _reference(options: argparse.Namespace) -> str:
    if not options.chaincode:
        raise ServiceError("name the chaincode as module:attribute, for example sovchain.contracts.finance:chaincode")
    return str(options.chaincode)


def _options(options: argparse.Namespace) -> RunOptions:
    from sovchain.chaincode.handler import Limits
    from sovchain.chaincode.ownreads import OWN_READS_VARIABLE
    from sovchain.chaincode.peerstub import StubOptions
    from sovchain.chaincode.serve import (
        DETERMINISM_VARIABLE,
        HEALTH_VARIABLE,
        RunOptions,
        determinism_mode,
        own_reads_mode,
    )

    mode = own_reads_mode(options.own_reads or os.environ.get(OWN_READS_VARIABLE) or "silent")
    for name in ("max_running", "transaction_timeout", "grace"):
        if getattr(options, name) < 0 or (name != "grace" and not getattr(options, name)):
            raise ServiceError(f"--{name.replace('_', '-')} is a positive number")
    return RunOptions(
        limits=Limits(running=options.max_running, transaction_s=options.transaction_timeout),
        stub=StubOptions(own_reads=mode),
        health=options.health or os.environ.get(HEALTH_VARIABLE, ""),
        exit_with_parent=options.exit_with_parent,
        grace_s=options.grace,
        determinism=determinism_mode(options.determinism or os.environ.get(DETERMINISM_VARIABLE) or "off"),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sovchain.chaincode", description="Run chaincode.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="listen for peers (chaincode as a service)")
    serve.add_argument(
        "chaincode", nargs="?", help="module:attribute; the environment says the rest (CHAINCODE_ID, ...)"
    )
    serve.add_argument("--config", metavar="FILE", help="JSON file that lists the services")
    connect = commands.add_parser("connect", help="dial a peer (CORE_CHAINCODE_ID_NAME, CORE_PEER_ADDRESS, ...)")
    connect.add_argument("chaincode", help="module:attribute")
    # Peers start chaincode with the flag in this spelling (core/container/dockercontroller).
    connect.add_argument("--peer-address", "-peer.address", "--peer.address", metavar="HOST:PORT", default=None)
    connect.add_argument("--metadata", metavar="FILE", help="chaincode.json that an external builder's run receives")
    connect.add_argument(
        "--once", action="store_true", help="end when the stream ends instead of dialling again; implied by --metadata"
    )
    for command in (serve, connect):
        command.add_argument("--exit-with-parent", action="store_true", help="stop when standard input ends")
        command.add_argument("--grace", type=float, default=5.0, metavar="SECONDS", help="time for what is in hand (5)")
        command.add_argument(
            "--transaction-timeout", type=float, default=120.0, metavar="SECONDS", help="longest transaction (120)"
        )
        command.add_argument(
            "--max-running", type=int, default=256, metavar="N", help="most transactions of a peer at a time (256)"
        )
        command.add_argument(
            "--health", metavar="HOST:PORT", help="answer health checks there (or CHAINCODE_HEALTH_ADDRESS)"
        )
        command.add_argument(
            "--own-reads",
            choices=("silent", "warn", "refuse"),
            help="what to do when a transaction reads a key that it has written (or SOVCHAIN_OWN_READS; silent)",
        )
        command.add_argument(
            "--determinism",
            choices=("off", "warn", "refuse"),
            help="what to do when a contract uses a clock, randomness, files, ... (or SOVCHAIN_DETERMINISM; off)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
