"""Connection profiles: where an organisation's gateways are and how to trust them.

The form is Fabric's common connection profile, JSON or YAML, as `fabric-samples` ships it and the classic SDKs read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sovchain.client.errors import ProfileContentError, ProfileNotFound, ProfileSyntaxError

PROFILE_MAX_BYTES = 4 * 1024 * 1024
"""Largest profile that is read."""


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """One peer whose gateway service may be used.

    Attributes:
        name: the peer's name in the profile.
        address: "host:port", or `unix:/path` for a socket of this machine.
        tls_root_pem: roots that its TLS certificate must lead to; None for a connection without TLS (`grpc://`).
        server_name: the name to expect in its certificate instead of the host of `address`; empty: that host.
    """

    name: str
    address: str
    tls_root_pem: bytes | None = field(repr=False)
    server_name: str = ""

    @property
    def is_unix_socket(self) -> bool:
        """Whether `address` is a socket of this machine, `unix:/path`."""
        return self.address.startswith("unix:")


@dataclass(frozen=True, slots=True)
class Profile:
    """What a client of one organisation needs to know.

    Attributes:
        organization: the client's organisation, by its name in the profile.
        msp_id: its MSP id.
        gateways: its peers, in the order in which they are tried.
        client_certificate_pem: certificate for mutual TLS, if the peers ask for one.
        client_key_pem: its key.
        source: where the profile was read.
    """

    organization: str
    msp_id: str
    gateways: tuple[GatewayAddress, ...]
    client_certificate_pem: bytes | None = field(default=None, repr=False)
    client_key_pem: bytes | None = field(default=None, repr=False)
    source: str = "<mapping>"

    @classmethod
    def load(cls, path: Path | str) -> Profile:
        """Read a profile from a file. Paths in it are relative to its folder.

        Raises:
            ProfileNotFound, ProfileSyntaxError, ProfileContentError.
        """
        place = Path(path)
        return cls.from_mapping(_parsed(place), folder=place.parent, source=str(place))

    @classmethod
    def from_mapping(
        cls, document: Mapping[str, Any], *, folder: Path | None = None, source: str = "<mapping>"
    ) -> Profile:
        """Read a profile that is parsed already. Paths in it are relative to `folder`, by default the current one.

        Raises:
            ProfileContentError, ProfileNotFound (for a certificate file).
        """
        return _Reader(document, folder or Path(), source).profile()

    @classmethod
    def from_addresses(
        cls,
        msp_id: str,
        addresses: Sequence[str],
        *,
        tls_root_pem: bytes | str | None = None,
        server_name: str = "",
        client_certificate_pem: bytes | str | None = None,
        client_key_pem: bytes | str | None = None,
    ) -> Profile:
        """Make a profile of the addresses of an organisation's peers, without a file.

        Args:
            msp_id: the organisation's MSP id.
            addresses: "host:port", or `unix:/path` for a socket of this machine, in the order in which they are tried.
            tls_root_pem: roots of the peers' TLS certificates; None for connections without TLS.
            server_name: the name to expect in their certificates instead of the host.
            client_certificate_pem, client_key_pem: for mutual TLS, if the peers ask for it.

        Raises:
            ProfileContentError: an address is neither, or a certificate or key cannot be read.
        """
        source = "<addresses>"
        if not addresses:
            raise ProfileContentError("addresses", "must name at least one gateway", source=source)
        for address in addresses:
            host, _, port = address.rpartition(":")
            if not (address.startswith("unix:/") or (host and "/" not in host and _is_port(port))):
                raise ProfileContentError("addresses", "must be host:port or unix:/path", source=source)
        if (client_certificate_pem is None) != (client_key_pem is None):
            raise ProfileContentError("client_key_pem", "and client_certificate_pem belong together", source=source)
        reader = _Reader({}, Path(), source)
        root, certificate, key = map(_optional_bytes, (tls_root_pem, client_certificate_pem, client_key_pem))
        for name, pem in (("tls_root_pem", root), ("client_certificate_pem", certificate)):
            if pem is not None:
                reader.check_certificates(name, pem)
        if key is not None:
            reader.check_key("client_key_pem", key)
        gateways = tuple(GatewayAddress(address, address, root, server_name) for address in addresses)
        return cls(msp_id, msp_id, gateways, certificate, key, source)


def _optional_bytes(pem: bytes | str | None) -> bytes | None:
    return pem.encode() if isinstance(pem, str) else pem


def _parsed(path: Path) -> Mapping[str, Any]:
    source = str(path)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = error.strerror if isinstance(error, OSError) else error
        raise ProfileNotFound(f"cannot be read ({why}): check the path", source=source) from error
    if len(data) > PROFILE_MAX_BYTES:
        raise ProfileSyntaxError(f"it has more than {PROFILE_MAX_BYTES} bytes", source=source)
    # What the parsers raise is not kept as the cause: it holds the text, and a profile may hold a key.
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ProfileSyntaxError("it is not UTF-8 text", source=source) from None
    try:
        # JSON is read by its own parser: it is faster by far than YAML's, which would take it too.
        document = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise ProfileSyntaxError(error.msg, source=source, line=error.lineno, column=error.colno) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
        raise ProfileSyntaxError(
            getattr(error, "problem", None) or "it is not YAML", source=source, line=line, column=column
        ) from None
    except RecursionError:
        raise ProfileSyntaxError("it is nested too deeply", source=source) from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        # PyYAML lets these out for tagged or dated values that do not parse, json for numbers of over 4300 digits.
        raise ProfileSyntaxError(
            f"it holds a value that cannot be read ({type(error).__name__})", source=source
        ) from None
    if not isinstance(document, Mapping):
        raise ProfileSyntaxError("it is not a mapping", source=source)
    return document


class _Reader:
    """Reads one document; remembers where it came from for its errors."""

    def __init__(self, document: Mapping[str, Any], folder: Path, source: str) -> None:
        self._document = document
        self._folder = folder
        self._source = source

    def _wrong(self, field_name: str, text: str) -> ProfileContentError:
        return ProfileContentError(field_name, text, source=self._source)

    def _get(self, *keys: str) -> Any:
        found: Any = self._document
        for index, key in enumerate(keys):
            if not isinstance(found, Mapping) or key not in found:
                raise self._wrong(".".join(keys[: index + 1]), "is missing")
            found = found[key]
        return found

    def _text(self, *keys: str) -> str:
        found = self._get(*keys)
        if not isinstance(found, str) or not found:
            raise self._wrong(".".join(keys), "must be text")
        return found

    def profile(self) -> Profile:
        organization = self._text("client", "organization")
        peers = self._get("organizations", organization, "peers")
        if not isinstance(peers, list) or not peers or not all(isinstance(peer, str) and peer for peer in peers):
            raise self._wrong(f"organizations.{organization}.peers", "must list at least one peer by its name")
        certificate = key = None
        if isinstance(self._get("client").get("tlsCerts"), Mapping):
            certificate = self._certificates("client", "tlsCerts", "client", "cert")
            key = self._key("client", "tlsCerts", "client", "key")
        return Profile(
            organization,
            self._text("organizations", organization, "mspid"),
            tuple(self._gateway(peer) for peer in peers),
            certificate,
            key,
            self._source,
        )

    def _gateway(self, name: str) -> GatewayAddress:
        url = self._text("peers", name, "url")
        scheme, _, address = url.partition("://")
        host, _, port = address.rpartition(":")
        if scheme not in ("grpc", "grpcs") or not host or not _is_port(port):
            raise self._wrong(f"peers.{name}.url", "must be grpcs://host:port or grpc://host:port")
        root = self._certificates("peers", name, "tlsCACerts") if scheme == "grpcs" else None
        options = self._get("peers", name).get("grpcOptions") or {}
        if not isinstance(options, Mapping):
            raise self._wrong(f"peers.{name}.grpcOptions", "must be a mapping")
        server_name = options.get("ssl-target-name-override") or options.get("hostnameOverride") or ""
        if not isinstance(server_name, str):
            raise self._wrong(f"peers.{name}.grpcOptions.ssl-target-name-override", "must be text")
        return GatewayAddress(name, address, root, server_name)

    def _pem(self, *keys: str) -> bytes:
        """PEM text in place (`pem`, text or a list of texts) or in a file (`path`)."""
        entry = self._get(*keys)
        if isinstance(entry, Mapping) and "pem" in entry:
            pem = entry["pem"]
            parts = pem if isinstance(pem, list) else [pem]
            if not all(isinstance(part, str) for part in parts):
                raise self._wrong(".".join((*keys, "pem")), "must be text or a list of texts")
            text = "\n".join(parts)
        else:
            path = self._folder / self._text(*keys, "path")
            try:
                text = path.read_text(encoding="ascii")
            except (OSError, ValueError) as error:
                raise ProfileNotFound(f"{'.'.join(keys)}: {path} cannot be read", source=self._source) from error
        if "-----BEGIN" not in text or not text.isascii():
            raise self._wrong(".".join(keys), "is not PEM")
        return text.encode()

    def _certificates(self, *keys: str) -> bytes:
        """PEM that gRPC and ssl will be able to read: both would otherwise fail later and without the field's name."""
        data = self._pem(*keys)
        self.check_certificates(".".join(keys), data)
        return data

    def check_certificates(self, field_name: str, data: bytes) -> None:
        """Raise ProfileContentError unless these are certificates in PEM."""
        try:
            x509.load_pem_x509_certificates(data)
        except ValueError as error:
            raise self._wrong(field_name, "holds a certificate that cannot be read") from error

    def _key(self, *keys: str) -> bytes:
        data = self._pem(*keys)
        self.check_key(".".join(keys), data)
        return data

    def check_key(self, field_name: str, data: bytes) -> None:
        """Raise ProfileContentError unless this is a key in PEM without a password."""
        try:
            load_pem_private_key(data, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise self._wrong(field_name, "is not a private key without a password") from error


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65_536
