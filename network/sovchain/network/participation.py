"""An ordering node's administration of its channels, over its REST interface with mutual TLS.

Mirrors `orderer/common/channelparticipation/restapi.go` in Fabric. Who holds a certificate of the TLS authorities that
the node names as its administration's roots may use it, so the interface listens on the loopback address only.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from sovchain.network.errors import LifecycleError

CALL_TIMEOUT_S: Final = 30.0
_PATH: Final = "/participation/v1/channels"
_ALREADY_JOINED: Final = 405


@dataclass(frozen=True)
class ChannelState:
    """An ordering node's part in a channel.

    Attributes:
        name: the channel.
        relation: consenter, follower, config-tracker or other.
        status: active, onboarding, inactive or failed.
        height: number of blocks.
    """

    name: str
    relation: str
    status: str
    height: int


class OrderingNodeAdmin:
    """The channels of one ordering node. Close it after use.

    Each call raises LifecycleError when the node refuses; `httpx.TransportError` when it cannot be reached.
    """

    def __init__(self, msp_id: str, address: str, roots: Path, certificate: Path, key: Path) -> None:
        """`address` is "host:port"; the files are PEM. Raises OSError and ssl.SSLError for files that cannot be used."""
        context = ssl.create_default_context(cafile=str(roots))
        context.load_cert_chain(certificate, key)
        self._msp_id = msp_id
        self._address = address
        # The environment's proxies and certificate bundles are for other hosts than a node of one's own.
        self._client = httpx.AsyncClient(
            base_url=f"https://{address}", verify=context, timeout=CALL_TIMEOUT_S, trust_env=False
        )

    async def channels(self) -> frozenset[str]:
        """The channels that the node has joined."""
        document = self._checked("list", "", await self._client.get(_PATH), 200)
        return frozenset(entry["name"] for entry in document.get("channels") or ())

    async def channel(self, name: str) -> ChannelState | None:
        """The node's part in a channel, None when it has none."""
        answer = await self._client.get(f"{_PATH}/{name}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        document = self._checked("list", name, answer, 200)
        return ChannelState(
            document["name"], document["consensusRelation"], document["status"], int(document["height"])
        )

    async def join(self, name: str, block: bytes) -> None:
        """Join a channel by its first block, or by its last configuration block. A channel already joined is left."""
        answer = await self._client.post(_PATH, files={"config-block": (f"{name}.block", block)})
        if answer.status_code != _ALREADY_JOINED:
            self._checked("join", name, answer, 201)

    async def remove(self, name: str) -> None:
        """Leave a channel. What the node keeps of it is deleted."""
        self._checked("leave", name, await self._client.delete(f"{_PATH}/{name}"), 204)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _checked(self, step: str, channel: str, answer: httpx.Response, expected: int) -> dict[str, Any]:
        if answer.status_code == expected:
            return answer.json() if answer.content and expected == httpx.codes.OK else {}
        try:
            why = str(answer.json()["error"])
        except (ValueError, KeyError, TypeError):
            why = answer.text[:300] or answer.reason_phrase
        raise LifecycleError(
            step,
            why,
            address=self._address,
            msp_id=self._msp_id,
            status=answer.status_code,
            channel=channel,
            chaincode="",
        )
