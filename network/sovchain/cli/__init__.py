"""The `sovchain` command.

General layout: `app` holds the commands' common options and how errors become exit codes; `network_commands`, `law_commands`,
`sharing_commands`, `audit_commands` and `raw_commands` hold the commands; `demo` is the scripted demonstration; `output`
prints; `problems` words the errors and lists the exit codes.
"""

import gc
import os

__all__ = ["main"]


def main() -> None:
    """Run the command line with the arguments of this process."""
    # gRPC writes failed TLS handshakes to standard error by itself; the error that follows says it in words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # The commands are imported only when the command runs, so that importing the package costs nothing. Nothing that an
    # import makes is garbage, and looking for some is a tenth of the time.
    gc.disable()
    from sovchain.cli.commands import app

    gc.enable()
    app()
