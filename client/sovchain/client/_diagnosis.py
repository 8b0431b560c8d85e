"""Why a gateway cannot be used: gRPC itself says only `unavailable`."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Final

from sovchain.client.errors import ConnectError
from sovchain.client.profile import GatewayAddress

DIAGNOSIS_S: Final = 3.0
"""How long a gateway that cannot be used is examined for the reason."""

_REMEDIES: Final = {
    "refused": "nothing listens there: check that the network is up and the address is right",
    "unresolved": "its host name is not known: check the profile's url",
    "timeout": "it does not answer: check the address and the network between",
    "unreachable": "it cannot be reached: check the address and the network between",
    "untrusted": "its TLS certificate does not lead to the profile's TLS root: check tlsCACerts",
    "wrong-name": "its TLS certificate is for another host: check ssl-target-name-override in the profile",
    "expired": "its TLS certificate has expired: have it renewed",
    "not-tls": "it does not speak TLS: check the profile's url",
    "client-certificate": "it asks for a TLS client certificate that it trusts: put one in the profile (tlsCerts)",
    "failed": "the connection fails for a reason that gRPC does not tell",
}


def connect_error(reasons: dict[str, str], timeout_s: float) -> ConnectError:
    """The error for gateways that cannot be used, with the reason of each; its own are those of the first."""
    endpoint, reason = next(iter(reasons.items()))
    text = "; ".join(f"{address} ({word}): {_REMEDIES[word]}" for address, word in reasons.items())
    return ConnectError(
        f"no gateway can be used within {timeout_s:g} s: {text}", endpoint=endpoint, reason=reason, reasons=reasons
    )


async def diagnose(gateway: GatewayAddress) -> str:
    """Why a gateway cannot be used, found by a connection of our own."""
    if gateway.is_unix_socket:
        return await _diagnose_socket(gateway.address)
    host, _, port = gateway.address.rpartition(":")
    context = None
    if gateway.tls_root_pem is not None:
        context = ssl.create_default_context(cadata=gateway.tls_root_pem.decode("ascii", "replace"))
        context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(DIAGNOSIS_S):
            reader, writer = await asyncio.open_connection(
                host.strip("[]"),
                int(port),
                ssl=context,
                server_hostname=(gateway.server_name or host.strip("[]")) if context is not None else None,
            )
            try:
                first = await reader.read(1)
            except ConnectionResetError:
                first = b""
            finally:
                writer.close()
    except ssl.SSLCertVerificationError as error:
        return {10: "expired", 62: "wrong-name", 64: "wrong-name"}.get(error.verify_code, "untrusted")
    except ssl.SSLError as error:
        asks = "CERTIFICATE_REQUIRED" in str(error) or "ALERT_BAD_CERTIFICATE" in str(error)
        return "client-certificate" if asks else "not-tls"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return "unresolved" if isinstance(error, socket.gaierror) else "unreachable"
    # With TLS 1.3 a server refuses a missing client certificate only after the handshake. Go says so in an alert; gRPC's
    # C core just ends the connection, where a server that is content sends its HTTP/2 settings.
    return "client-certificate" if context is not None and not first else "failed"


async def _diagnose_socket(address: str) -> str:
    try:
        async with asyncio.timeout(DIAGNOSIS_S):
            _, writer = await asyncio.open_unix_connection(address.removeprefix("unix:").removeprefix("//"))
            writer.close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timeout"
    except FileNotFoundError:
        return "unresolved"
    except OSError:
        return "unreachable"
    return "failed"
