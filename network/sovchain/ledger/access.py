"""Who may do what: the checks of requests against a channel's policies and against an organisation's own MSP.

Mirrors core/aclmgmt, core/policy/policy.go and core/handlers/auth/filter.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from fabric_protos.msp import msp_config_pb2, msp_principal_pb2
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from sovchain.ledger.errors import LedgerError
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.errors import PolicyUnsatisfied, ProtocolError
from sovchain.protocol.identity import Identity
from sovchain.protocol.msp import Msp, MspManager
from sovchain.protocol.policies import SignedData

TIME_WINDOW: Final = timedelta(minutes=15)
"""How far a client's clock may be off; peer.authentication.timewindow of core.yaml."""

_MAX_CACHED: Final = 10_000
_ROLES: Final = {
    "Admins": msp_principal_pb2.MSPRole.ADMIN,
    "Members": msp_principal_pb2.MSPRole.MEMBER,
}


class AccessDeniedError(LedgerError):
    """A request is not allowed; the text is Fabric's."""


class ChannelAccess:
    """Checks signed requests against the policies of one channel.

    An identity that satisfied a policy once needs only its signature checked until the configuration changes.
    """

    def __init__(self, bundle: Callable[[], ChannelBundle]) -> None:
        """`bundle` returns the channel's current configuration."""
        self._bundle = bundle
        self._known_for: ChannelBundle | None = None
        self._known: set[tuple[str, bytes]] = set()

    def authorize(self, resource: str, signed: SignedData, *, signature_checked: bool = False) -> None:
        """Check that a request satisfies the policy of a resource such as "peer/Propose".

        Args:
            resource: name of core/aclmgmt/resources/resources.go.
            signed: the signed request.
            signature_checked: the caller has verified this very signature.

        Raises:
            AccessDeniedError: the policy is not satisfied.
        """
        bundle = self._bundle()
        self.authorize_by_policy(bundle.policy_for_acl(resource), signed, signature_checked=signature_checked)

    def authorize_by_policy(self, path: str, signed: SignedData, *, signature_checked: bool = False) -> None:
        """As `authorize`, for the policy at this path. Raises AccessDeniedError."""
        bundle = self._bundle()
        if self._known_for is not bundle:
            self._known_for = bundle
            self._known.clear()
        if (path, signed.identity) in self._known and (signature_checked or _is_signed(bundle, signed)):
            return
        try:
            bundle.policies.get(path).evaluate([signed])
        except PolicyUnsatisfied as error:
            raise AccessDeniedError(
                f"Failed evaluating policy on signed data during check policy on channel [{bundle.channel_id}] "
                f"with policy [{path}]: [{error}]"
            ) from error
        if len(self._known) >= _MAX_CACHED:
            self._known.clear()
        self._known.add((path, signed.identity))


class LocalAccess:
    """Checks requests that concern a peer and no channel, against the MSP of the peer's own organisation."""

    def __init__(self, msp: Callable[[], Msp | None]) -> None:
        """`msp` returns the organisation's MSP, None while it is not known."""
        self._msp = msp

    def deserialize(self, identity: bytes) -> Identity:
        """Return an identity of the own organisation. Raises ProtocolError, or AccessDeniedError without an MSP."""
        return self._manager().deserialize(identity)

    def validate(self, identity: Identity) -> None:
        """Check that an identity of the own organisation is valid. Raises as `deserialize`."""
        self._manager().validate(identity)

    def authorize(self, policy: str, signed: SignedData) -> None:
        """Check that the signer is an admin ("Admins") or a member ("Members") of the peer's organisation.

        Raises AccessDeniedError.
        """
        prefix = f"during channelless check policy with policy [{policy}]: "
        principal = msp_principal_pb2.MSPPrincipal(
            principal_classification=msp_principal_pb2.MSPPrincipal.ROLE,
        )
        try:
            identity = self.deserialize(signed.identity)
        except ProtocolError as error:
            raise AccessDeniedError(f"Failed deserializing proposal creator {prefix}[{error}]") from error
        principal.principal = msp_principal_pb2.MSPRole(
            msp_identifier=identity.msp_id, role=_ROLES[policy]
        ).SerializeToString()
        if not self._manager().satisfies(identity, principal):
            raise AccessDeniedError(
                f"Failed verifying that proposal's creator satisfies local MSP principal {prefix}"
                f"[the identity is no {policy.lower().removesuffix('s')} of {identity.msp_id}]"
            )
        if not identity.verify(signed.message, signed.signature):
            raise AccessDeniedError(f"The signature is invalid {prefix}[the signature does not verify]")

    def _manager(self) -> MspManager:
        msp = self._msp()
        if msp is None:
            raise AccessDeniedError("access denied: this peer knows no MSP before it has joined a channel")
        return MspManager([msp])


def load_msp(msp_config: bytes) -> Msp:
    """Return the MSP of a serialised FabricMSPConfig. Raises ProtocolError, or ValueError if it cannot be decoded."""
    try:
        return Msp.from_config(msp_config_pb2.FabricMSPConfig.FromString(msp_config))
    except DecodeError:
        raise ValueError("not a serialised FabricMSPConfig") from None


def check_expiry(identity: Identity, now: datetime) -> None:
    """Refuse an expired client certificate. Raises AccessDeniedError."""
    if now > identity.not_after:
        raise AccessDeniedError("proposal client identity expired")


def check_timestamp(timestamp: datetime, now: datetime) -> None:
    """Refuse a request from a clock that is off by more than the time window. Raises AccessDeniedError."""
    if abs(now - timestamp) > TIME_WINDOW:
        raise AccessDeniedError(
            f"request unauthorized due to incorrect timestamp {_as_text(timestamp)}, peer time {_as_text(now)}, "
            "peer.authentication.timewindow 15m0s"
        )


def moment_of(timestamp: Timestamp) -> datetime:
    """Return a request's time, as Go takes it: any seconds and nanoseconds, a missing one is 1970.

    What lies beyond the years that Python knows becomes the first or last of them, both far out of any window.
    """
    try:
        return datetime.fromtimestamp(timestamp.seconds, UTC) + timedelta(microseconds=timestamp.nanos // 1000)
    except (ValueError, OverflowError, OSError):
        return (datetime.max if timestamp.seconds > 0 else datetime.min).replace(tzinfo=UTC)


def _as_text(moment: datetime) -> str:
    """A time in UTC as RFC 3339, without fractions of a second."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z"


def _is_signed(bundle: ChannelBundle, signed: SignedData) -> bool:
    return bundle.msps.deserialize(signed.identity).verify(signed.message, signed.signature)
