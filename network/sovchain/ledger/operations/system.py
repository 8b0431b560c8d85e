"""The operations endpoint of a node: /healthz, /version, /metrics and /logspec.

Mirrors core/operations/system.go, healthz/checker.go and common/flogging/httpadmin/spec.go. Metrics and log levels ask
for a client certificate of the node's organisation, as with TLS in Fabric; health and version do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sovchain.ledger.operations.https import Request, Response
from sovchain.ledger.operations.logspec import LEVELS, LogSpecError
from sovchain.ledger.operations.metrics import CONTENT_TYPE
from sovchain.protocol import __version__

VERSION: Final = f"{__version__}+embedded"
"""What `/version` and the metric `fabric_version` say: this is no release of Fabric."""
_JSON: Final = {"Content-Type": "application/json"}


def json_response(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(status, json.dumps(document, separators=(",", ":")).encode() + b"\n", {**_JSON, **(headers or {})})


class OperationsSystem:
    """The handler of one node's operations endpoint."""

    def __init__(self, failures: Callable[[], Iterable[tuple[str, str]]], metrics: Callable[[], bytes]) -> None:
        """`failures` gives (component, reason) of what is not well, `metrics` what Prometheus reads."""
        self._failures = failures
        self._metrics = metrics

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        match request.path:
            case "/healthz":
                return self._health(request)
            case "/version":
                return _version(request)
            case "/metrics" | "/logspec" if not request.certified:
                return Response(401)
            case "/metrics":
                return Response(200, self._metrics(), {"Content-Type": CONTENT_TYPE})
            case "/logspec":
                return _logspec(request)
        return Response(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})

    def _health(self, request: Request) -> Response:
        if request.method != "GET":
            return Response(405)
        failed = [{"component": component, "reason": reason} for component, reason in self._failures()]
        document: dict[str, Any] = {"status": "Service Unavailable" if failed else "OK"}
        document["time"] = datetime.now(UTC).isoformat()
        if failed:
            document["failed_checks"] = failed
        return json_response(503 if failed else 200, document)


def _version(request: Request) -> Response:
    if request.method != "GET":
        return json_response(400, {"Error": f"invalid request method: {request.method}"})
    return json_response(200, {"Version": VERSION})


def _logspec(request: Request) -> Response:
    if request.method == "GET":
        return json_response(200, {"spec": LEVELS.spec})
    if request.method != "PUT":
        return json_response(400, {"error": f"invalid request method: {request.method}"})
    try:
        document = json.loads(request.body)
        spec = document.get("spec", "") if isinstance(document, dict) else None
        if not isinstance(spec, str):
            raise LogSpecError("the body is no object with the text `spec`")
        LEVELS.activate(spec)
    except (ValueError, RecursionError) as error:
        return json_response(400, {"error": str(error)})
    return Response(204)
