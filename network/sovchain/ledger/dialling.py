"""Connections that a peer dials to its chaincodes: gRPC streams without gRPC's library.

A chaincode asks for every key by itself, so what one message costs is much of what a transaction costs. gRPC's library
for asyncio changes threads three times for each of them; `sovchain.rpc`, which the chaincodes use too, takes one call.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sovchain.ledger.errors import LedgerError
from sovchain.ledger.tls import ClientTls
from sovchain.rpc.connection import Keepalive, dial
from sovchain.rpc.errors import AddressError, RpcError, TlsError
from sovchain.rpc.stream import Stream
from sovchain.rpc.tls import client_context as context_of

CONNECT_METHOD: Final = "/protos.Chaincode/Connect"
_KEEPALIVE: Final = Keepalive(idle_s=60.0, timeout_s=20.0)
_CLOSE_S: Final = 0.5


class DialError(LedgerError):
    """A chaincode cannot be reached, or its stream ended otherwise than it should; the text says why."""


def client_context(tls: ClientTls | None) -> ssl.SSLContext | None:
    """Return the TLS of a connection to a chaincode, None for plain text. Raises DialError for unusable material."""
    if tls is None:
        return None
    try:
        return context_of(tls.root_pem, tls.certificate_pem, tls.private_key_pem)
    except TlsError as error:
        raise DialError(str(error)) from error


@asynccontextmanager
async def dialled(address: str, context: ssl.SSLContext | None) -> AsyncIterator[Stream]:
    """Open a connection of its own to a chaincode at "host:port" and the stream on it; both are closed at the end.

    Raises DialError when nobody listens there or the two sides do not trust each other. The caller limits the time.
    """
    try:
        made = await dial(address, tls=context, server_name=None, keepalive=_KEEPALIVE)
    except (RpcError, AddressError) as error:
        raise DialError(str(error)) from error
    try:
        try:
            stream = made.connection.request(CONNECT_METHOD, address, secure=context is not None)
        except RpcError as error:
            raise DialError(str(error)) from error
        try:
            yield stream
        finally:
            stream.finish()
    finally:
        await made.close(_CLOSE_S)


__all__ = ["CONNECT_METHOD", "DialError", "RpcError", "Stream", "client_context", "dialled"]
