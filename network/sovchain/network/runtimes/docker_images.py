"""The container images that a network runs in, at full versions, and how to get each.

An image of another registry or version is named in the environment, `SOVCHAIN_IMAGE_PEER` for example.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sovchain.network.errors import NetworkError
from sovchain.network.topology import Topology
from sovchain.protocol._version import __version__

VARIABLE: Final = "SOVCHAIN_IMAGE_"
"""Start of the environment variables that name other images: followed by PEER, ORDERER, CHAINCODE, CA, COUCHDB,
PROMETHEUS or GRAFANA."""
FABRIC_RELEASES: Final = {"2.5": "2.5.16", "3.1": "3.1.5"}
"""The release of each version of Fabric. Docker Engine 29 needs 2.5.15 or 3.1.4 and later (fabric issue 5350)."""
CHAINCODE_IMAGE: Final = f"sovchain/chaincode:{__version__}"

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,254}")
_FIXED: Final = {
    "chaincode": CHAINCODE_IMAGE,
    "ca": "hyperledger/fabric-ca:1.5.21",
    "couchdb": "couchdb:3.4.2",
    "prometheus": "prom/prometheus:v3.5.0",
    "grafana": "grafana/grafana:12.0.2",
}


@dataclass(frozen=True)
class Images:
    """Name of the image of each kind of container."""

    peer: str
    orderer: str
    chaincode: str
    ca: str
    couchdb: str
    prometheus: str
    grafana: str

    @classmethod
    def choose(cls, fabric_version: str, environment: Mapping[str, str] = os.environ) -> Images:
        """Return the images for a version such as 3.1. Raises NetworkError for a name that cannot be one."""
        release = FABRIC_RELEASES[fabric_version]
        names = {kind: f"hyperledger/fabric-{kind}:{release}" for kind in ("peer", "orderer")} | _FIXED
        for kind in names:
            variable = f"{VARIABLE}{kind.upper()}"
            named = environment.get(variable)
            if named and _NAME.fullmatch(named) is None:
                raise NetworkError(
                    f"{named[:80]!r} is no image", f"{variable} holds it", "give it as REGISTRY/NAME:TAG, or unset it"
                )
            names[kind] = named or names[kind]
        return cls(**names)

    def needed(self, topology: Topology) -> dict[str, str]:
        """The images that a network of this topology needs, each with the command that brings it."""
        kinds = ["peer", "orderer"]
        kinds += ["chaincode"] if topology.chaincodes else []
        kinds += ["ca"] if any(part.certificate_authority == "fabric-ca" for part in topology.everyone) else []
        kinds += ["couchdb"] if topology.state_database == "couchdb" else []
        return self._with_ways(kinds)

    def monitoring(self) -> dict[str, str]:
        """The same for the containers that watch a network."""
        return self._with_ways(["prometheus", "grafana"])

    def _with_ways(self, kinds: list[str]) -> dict[str, str]:
        names: list[str] = [getattr(self, kind) for kind in kinds]
        return {
            name: f"scripts/chaincode-image {name}" if kind == "chaincode" else f"docker pull {name}"
            for kind, name in zip(kinds, names, strict=True)
        }
