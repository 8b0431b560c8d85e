"""What hfc's methods are given and return: users, peers, ordering nodes, organisations, channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sovchain.client.hfc.errors import HfcError
from sovchain.client.identity import SigningIdentity

if TYPE_CHECKING:
    from sovchain.client.hfc.client import Client
    from sovchain.client.hfc.eventhub import ChannelEventHub


@dataclass(frozen=True)
class User:
    """A user of an organisation, as `Client.get_user` returns it.

    Attributes:
        name: name in the profile.
        org: name of the organisation in the profile.
        msp_id: its MSP id.
        identity: certificate and key.
    """

    name: str
    org: str
    msp_id: str
    identity: SigningIdentity = field(repr=False)


@dataclass(frozen=True)
class Peer:
    """A peer of the profile.

    Attributes:
        name: name in the profile.
        endpoint: "host:port".
        msp_id: MSP id of the organisation that lists it; empty if none does.
    """

    name: str
    endpoint: str
    msp_id: str


@dataclass(frozen=True)
class Orderer:
    """An ordering node of the profile. The gateway talks to it; a client does not."""

    name: str
    endpoint: str


class Organization:
    """An organisation of the profile."""

    def __init__(self, name: str, bundle: Mapping[str, Any], folder: Path) -> None:
        self.name = name
        self.mspid: str = str(bundle.get("mspid", ""))
        self.peers: list[str] = [str(peer) for peer in bundle.get("peers") or ()]
        self._users = bundle.get("users") or {}
        self._folder = folder

    def get_user(self, name: str) -> User | None:
        """Return a user, None if the profile has none of that name. Raises IdentityError, HfcError."""
        entry = self._users.get(name)
        if entry is None:
            return None
        try:
            certificate, key = (self._folder / entry[field] for field in ("cert", "private_key"))
            identity = SigningIdentity.from_pem(self.mspid, certificate.read_bytes(), key.read_bytes())
        except (KeyError, TypeError) as error:
            raise HfcError(f"user {name} of {self.name} has no cert or no private_key in the profile") from error
        except OSError as error:
            raise HfcError(f"a file of user {name} of {self.name} cannot be read ({error.strerror})") from error
        return User(name, self.name, self.mspid, identity)


class Channel:
    """A channel that `Client.new_channel` has named."""

    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self._client = client

    def newChannelEventHub(self, peer: Peer | str, requestor: User) -> ChannelEventHub:  # noqa: N802 - hfc's name
        """Return an event hub at a peer. Nothing is sent. Raises HfcError for a peer that is not known."""
        from sovchain.client.hfc.eventhub import ChannelEventHub

        return ChannelEventHub(self._client, self.name, self._client.known_peer(peer), requestor)
