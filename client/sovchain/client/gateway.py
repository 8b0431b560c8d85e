"""The way into a network: the gateway service of an organisation's peers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sovchain.client._rpc import Connection
from sovchain.client.errors import ProfileContentError
from sovchain.client.identity import SigningIdentity
from sovchain.client.network import Network
from sovchain.client.options import MAX_IN_FLIGHT, MAX_MESSAGE_BYTES, Timeouts
from sovchain.client.profile import Profile
from sovchain.client.transaction import Session


class Gateway:
    """An identity's connection to the gateways of its organisation. Made by `connect`.

    It belongs to the event loop that it was made in and does not survive a fork.
    """

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        profile: Profile | Path | str | Mapping[str, Any],
        identity: SigningIdentity,
        *,
        timeouts: Timeouts | None = None,
        insecure: bool = False,
        max_in_flight: int = MAX_IN_FLIGHT,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> AsyncIterator[Gateway]:
        """Connect for the length of an `async with` block, and check that a gateway can be reached and trusted.

        Args:
            profile: a profile, the path of one, or a parsed one.
            identity: who signs.
            timeouts: deadlines; by default those of `Timeouts`.
            insecure: allow addresses without TLS (`grpc://`), which anybody on the way can read and change.
            max_in_flight: most calls at the same time to one gateway; further ones wait.
            max_message_bytes: largest message in both directions.

        Raises:
            ProfileError: the profile cannot be used.
            CertificateExpired: the identity's certificate is not valid now.
            ConnectError: no gateway can be reached in time, or one cannot be trusted.
            ValueError: `max_in_flight` is below 1.
        """
        loaded = _profile(profile)
        identity.check_validity()
        if identity.msp_id != loaded.msp_id:
            raise ProfileContentError(
                f"organizations.{loaded.organization}.mspid",
                f"is {loaded.msp_id}, the identity is of {identity.msp_id}: use the profile of its organisation",
                source=loaded.source,
            )
        deadlines = timeouts or Timeouts()
        connection = Connection(
            loaded, insecure=insecure, max_in_flight=max_in_flight, max_message_bytes=max_message_bytes
        )
        try:
            await connection.connect(deadlines.connect_s)
            yield cls(connection, identity, deadlines)
        finally:
            await connection.close()

    def __init__(self, connection: Connection, identity: SigningIdentity, timeouts: Timeouts) -> None:
        self._connection = connection
        self._identity = identity
        self._timeouts = timeouts

    def __repr__(self) -> str:
        return f"Gateway({self._identity!r})"

    @property
    def identity(self) -> SigningIdentity:
        """The identity that signs."""
        return self._identity

    @property
    def profile(self) -> Profile:
        """The profile that it was connected with."""
        return self._connection.profile

    def network(self, channel: str) -> Network:
        """Return a channel. Nothing is sent. Raises ValueError for an empty name."""
        if not channel:
            raise ValueError("the channel's name is empty")
        return Network(Session(self._connection, self._identity, channel, self._timeouts))


def _profile(source: Profile | Path | str | Mapping[str, Any]) -> Profile:
    if isinstance(source, Profile):
        return source
    return Profile.from_mapping(source) if isinstance(source, Mapping) else Profile.load(source)
