"""What a Fabric CA client makes of servers that are none, or that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sovchain.client.ca import (
    CaCode,
    CaError,
    CaRefused,
    CaUnexpectedReply,
    CaUnreachable,
    CertificateAuthority,
)
from sovchain.client.ca import connection as wire
from sovchain.client.identity import SigningIdentity
from sovchain.network.certificates import CertificateAuthority as Root
from sovchain.network.certificates import Validity
from sovchain.protocol.crypto import load_certificate, verify

MARKER = "MARKER-secret-of-a-person"


@asynccontextmanager
async def answering(reply: Callable[[bytes], bytes]) -> AsyncIterator[CertificateAuthority]:
    """A server that sends `reply(request)` and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        writer.write(reply(head + await reader.readexactly(length)))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with CertificateAuthority.connect(f"http://127.0.0.1:{port}", insecure=True, timeout_s=2) as authority:
            yield authority


def http(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status, len(body), body)


def result(document: object) -> bytes:
    return http(json.dumps({"result": document, "errors": [], "messages": [], "success": True}).encode())


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        http(b"<html>", 502),
        http(b"null"),
        http(b"[]"),
        http(b'{"success": true}'),
        http(b'{"success": true, "errors": [{"code": "x", "message": 1}]}'),
        http(b"\xff" * 100),
        http(b"[" * 100_000),
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        result({"Cert": "%%%"}),
        result({"Cert": base64.b64encode(b"no certificate").decode()}),
        result(["Cert"]),
        result({}),
    ],
)
async def test_a_reply_that_is_none_is_a_typed_error_without_the_secret(reply: bytes) -> None:
    async with answering(lambda _: reply) as authority:
        with pytest.raises((CaUnexpectedReply, CaUnreachable)) as caught:
            await authority.enroll("User1", MARKER)
    assert MARKER not in f"{caught.value!r} {caught.value}"
    assert pickle.loads(pickle.dumps(caught.value)).what == caught.value.what


async def test_a_certificate_for_another_key_or_name_is_refused() -> None:
    now = datetime.now(UTC)
    root = Root.create("ca.x.example", "x.example", "", Validity.starting(now, days=2))
    issued = root.enroll("User1", "client", "", Validity.starting(now, days=1), {})
    other = root.enroll("User2", "client", "", Validity.starting(now, days=1), {}, key_pem=issued.private_key_pem)
    chain = {"ServerInfo": {"CAChain": base64.b64encode(root.certificate_pem).decode()}}
    key = SigningIdentity.from_pem("XMSP", issued.certificate_pem, issued.private_key_pem)._key
    for pem, options, why in (
        (issued.certificate_pem, {}, "another key"),
        (other.certificate_pem, {"key": key}, "another name"),
    ):
        reply = result({"Cert": base64.b64encode(pem).decode(), **chain})
        async with answering(lambda _, reply=reply: reply) as authority:  # type: ignore[misc]  # bound now
            with pytest.raises(CaUnexpectedReply, match=why):
                await authority.enroll("User1", "x", **options)  # type: ignore[arg-type]  # passed through


async def test_a_reply_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "REPLY_MAX_BYTES", 1000)
    async with answering(lambda _: http(b"x" * 5000)) as authority:
        with pytest.raises(CaUnexpectedReply, match="more than 1000 bytes"):
            await authority.info()


async def test_a_silent_server_and_a_closed_port_are_unreachable() -> None:
    async with await asyncio.start_server(lambda reader, writer: asyncio.sleep(60), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with CertificateAuthority.connect(url, insecure=True, timeout_s=0.2) as authority:
            with pytest.raises(CaUnreachable, match=r"within 0\.2 s"):
                await authority.info()
    async with CertificateAuthority.connect(url, insecure=True) as authority:
        with pytest.raises(CaUnreachable):
            await authority.info()


async def test_codes_of_later_servers_and_texts_of_any_length_are_kept_in_bounds() -> None:
    body = json.dumps({"success": False, "errors": [{"code": 999, "message": "bad\n\x1b[31m" + "x" * 9000}]}).encode()
    async with answering(lambda _: http(body, 400)) as authority:
        with pytest.raises(CaRefused) as caught:
            await authority.info()
    assert (caught.value.code, caught.value.code_name, caught.value.status) == (999, "999", 400)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, CaError)
    assert CaCode(71) is CaCode.AUTHORIZATION_FAILURE


async def test_a_token_signs_method_path_query_and_body_as_they_are_sent() -> None:
    """`VerifyToken` in util/util.go of Fabric CA, over what arrived."""
    now = datetime.now(UTC)
    root = Root.create("ca.x.example", "x.example", "", Validity.starting(now, days=2))
    issued = root.enroll("admin", "client", "", Validity.starting(now, days=1), {})
    identity = SigningIdentity.from_pem("XMSP", issued.certificate_pem, issued.private_key_pem)
    seen: list[bytes] = []

    def reply(request: bytes) -> bytes:
        seen.append(request)
        return result({"id": "ü ?/x", "caname": ""})

    async with answering(reply) as plain:
        endpoint = plain._connection.endpoint
        async with CertificateAuthority.connect(endpoint, name="tlsca.x", insecure=True) as authority:
            await authority.registrar(identity).modify_identity("ü ?&=x", secret="s", affiliation="ä")
            await authority.registrar(identity).remove_identity("plain", force=True)
    for request in seen:
        head, _, body = request.partition(b"\r\n\r\n")
        method, uri, _ = head.split(b"\r\n")[0].split(b" ")
        authorization = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization: "))[15:]
        certificate, signature = authorization.split(b".")
        payload = b".".join((method, base64.b64encode(uri), base64.b64encode(body), certificate))
        public = load_certificate(base64.b64decode(certificate)).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert verify(public, payload, base64.b64decode(signature))
    assert urlsplit(seen[1].split(b" ")[1]).query == b"ca=tlsca.x&force=true"
