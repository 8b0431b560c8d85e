"""The wire of a Fabric CA: HTTPS, its envelope of results and errors, and the token by which a caller is known."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from typing import Any, Final, Protocol

import httpx

from sovchain.client._text import printable
from sovchain.client.ca.errors import CaNotTrusted, CaRequestError, CaUnexpectedReply, CaUnreachable, refusal
from sovchain.client.identity import Identity

API: Final = "/api/v1/"
REPLY_MAX_BYTES: Final = 32 * 1024 * 1024
"""Largest reply that is read: a listing of some 100,000 identities."""


class LocalCaller(Protocol):
    """Who has the key in this process, such as an `Enrollment`."""

    @property
    def certificate_pem(self) -> bytes:
        """The certificate, PEM."""
        ...

    def sign(self, message: bytes) -> bytes:
        """ECDSA over SHA-256 with low S."""
        ...


Caller = LocalCaller | Identity
"""Who asks: a certificate that the authority has issued, and its key, or what signs with it (`HsmKey.identity`)."""


async def token(caller: Caller, method: str, uri: str, body: bytes) -> str:
    """Return the authorisation of a request (`util.GenECDSAToken` in Fabric CA).

    `uri` is path and query exactly as they are sent, `body` the bytes exactly as they are sent: the server signs over
    what it receives.
    """
    certificate = _base64(caller.certificate_pem)
    payload = ".".join((method, _base64(uri.encode()), _base64(body), certificate))
    message = payload.encode()
    signature = await caller.sign_async(message) if isinstance(caller, Identity) else caller.sign(message)
    return f"{certificate}.{_base64(signature)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Connection:
    """Requests to one server. Close it after use."""

    def __init__(self, endpoint: str, context: ssl.SSLContext, timeout_s: float) -> None:
        self.endpoint = endpoint
        # The environment's proxies and certificate bundles are not what the caller has named as trusted.
        self._client = httpx.AsyncClient(base_url=endpoint, verify=context, timeout=timeout_s, trust_env=False)
        self._timeout_s = timeout_s

    async def ask(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        caller: Caller | None = None,
        secret: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a request and return its `result`.

        `path` follows `/api/v1/` and is quoted already. `caller` signs the request, or `secret` (enrolment id, secret)
        proves who asks. Raises CaUnreachable, CaNotTrusted, CaRefused, CaUnexpectedReply.
        """
        content = json.dumps(body, ensure_ascii=False).encode() if body is not None else b""
        request = self._client.build_request(
            method,
            API + path,
            params=query or None,
            content=content or None,
            headers={"content-type": "application/json"},
        )
        if caller is not None:
            request.headers["authorization"] = await token(caller, method, request.url.raw_path.decode(), content)
        auth = httpx.BasicAuth(*secret) if secret is not None else None
        return self._result(operation, *await self._exchange(operation, request, auth))

    async def _exchange(
        self, operation: str, request: httpx.Request, auth: httpx.BasicAuth | None
    ) -> tuple[int, bytes]:
        try:
            answer = await self._client.send(request, auth=auth, stream=True)
            try:
                content = bytearray()
                async for part in answer.aiter_bytes():
                    content += part
                    if len(content) > REPLY_MAX_BYTES:
                        raise CaUnexpectedReply(
                            self.endpoint, operation, f"the reply has more than {REPLY_MAX_BYTES} bytes"
                        )
            finally:
                await answer.aclose()
        except httpx.TimeoutException:
            raise CaUnreachable(self.endpoint, f"there is no answer within {self._timeout_s:g} s") from None
        except httpx.TransportError as error:
            raise self._failed(error) from None
        except httpx.DecodingError:
            raise CaUnexpectedReply(self.endpoint, operation, "the reply's encoding is wrong") from None
        return answer.status_code, bytes(content)

    def _failed(self, error: httpx.TransportError) -> CaUnreachable | CaNotTrusted:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return CaNotTrusted(self.endpoint, cause.verify_message or "its certificate cannot be verified")
            if isinstance(cause, ssl.SSLError):
                return CaUnreachable(self.endpoint, f"TLS failed: {cause.reason or cause}")
            cause = cause.__cause__ or cause.__context__
        return CaUnreachable(self.endpoint, printable(str(error) or type(error).__name__, 300))

    def _result(self, operation: str, status: int, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content)
            success, errors = document["success"], document["errors"] or []
            refused = [(int(found["code"]), str(found["message"])) for found in errors]
            result = document.get("result")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            why = f"HTTP status {status} and no reply of a Fabric CA"
            raise CaUnexpectedReply(self.endpoint, operation, why) from None
        if refused or not success or status >= 400:
            code, message = refused[0] if refused else (0, "no reason is given")
            raise refusal(operation, code, message, status=status, endpoint=self.endpoint)
        return result if isinstance(result, dict) else {}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def tls_context(endpoint: str, tls_roots: bytes, client: tuple[str, str] | None, *, insecure: bool) -> ssl.SSLContext:
    """Return what the server is trusted by; `client` are paths of a certificate and key for mutual TLS.

    Raises CaRequestError.
    """
    try:
        if insecure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context = ssl.create_default_context(cadata=tls_roots.decode("ascii"))
        if client is not None:
            context.load_cert_chain(*client)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "it is not a PEM certificate"
        raise CaRequestError(
            "tls_roots", f"it cannot be used ({reason})", "give PEM certificates", endpoint=endpoint
        ) from None
    except OSError as error:
        raise CaRequestError(
            "client_certificate", f"it cannot be read ({error.strerror})", "check both paths", endpoint=endpoint
        ) from None
    return context
