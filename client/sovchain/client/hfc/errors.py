"""Errors of the hfc facade.

FabricError
└── HfcError            a name of the profile, a peer or a user is not known, or cannot be used so
    ├── GoneInGateway   the method has no meaning with Fabric 2.x and the gateway
    └── CaServiceError  a Fabric CA refused, or an argument cannot be used; a ValueError, as with hfc
"""

from __future__ import annotations

from sovchain.client.errors import FabricError


class HfcError(FabricError):
    """A name that is not known, or something that cannot be done with it."""


class GoneInGateway(HfcError):
    """The method is gone: `method` is its name, `instead` what does the same today."""

    def __init__(self, method: str, instead: str) -> None:
        super().__init__(f"{method} is gone with Fabric 2.x: {instead}")
        self.method = method
        self.instead = instead


class CaServiceError(HfcError, ValueError):
    """A Fabric CA refused (its error is the cause), or an argument of the CA service cannot be used."""
