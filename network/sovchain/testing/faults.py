"""What a runtime may let a test do to the nodes of a network.

A network object that offers it has an attribute `faults` with these methods; one that does not has none, or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable


class NotOffered(Exception):
    """The network cannot do what a test asks for: `what`, and on which `runtime`."""

    def __init__(self, what: str, runtime: str) -> None:
        super().__init__(f"the {runtime} runtime does not offer {what}: run the test on a runtime that does")
        self.what = what
        self.runtime = runtime


@runtime_checkable
class Faults(Protocol):
    """Ends and starts single nodes.

    A target is the host name of a peer or ordering node as in the topology, or a process or container that serves
    chaincodes: its name begins with `chaincode`, and the rest is for the runtime to say (`chaincode of Alpha`).
    """

    def targets(self) -> Sequence[str]:
        """Names of what can be killed and started."""
        ...

    async def kill(self, target: str) -> None:
        """End a node or chaincode at once (SIGKILL), and keep it down."""
        ...

    async def start(self, target: str) -> None:
        """Start a killed node or chaincode on what it left, and wait until it answers."""
        ...


def faults_of(network: object) -> Faults | None:
    """Return what a network object offers, None if it offers nothing."""
    offered = getattr(network, "faults", None)
    return offered if isinstance(offered, Faults) else None
