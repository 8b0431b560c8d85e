"""What watches the client sees names, statuses and times: spans in their order, metrics, log lines, and no payload."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from fakegateway import FakeGateway, fail, profile_of
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from sovchain.client import EvaluateError, Gateway, SigningIdentity
from sovchain.client.telemetry import OpenTelemetryObserver, PrometheusObserver, StructlogObserver

MARKER = "MARKER-payload"


async def use(fake: FakeGateway, user: SigningIdentity, *observers: Any) -> None:
    """A submit, an evaluation, and one that fails, each with a planted marker."""
    fake.script("Evaluate", fake_ok, fail(grpc.StatusCode.UNKNOWN, f"chaincode response 500, {MARKER}"))
    async with Gateway.connect(profile_of(fake), user, observers=observers, commit_stream=False) as gateway:
        contract = gateway.network("ch").contract("basic")
        await contract.submit("make", MARKER, transient={"secret": MARKER})
        await contract.evaluate("read", MARKER)
        with pytest.raises(EvaluateError):
            await contract.evaluate("read", MARKER)


async def fake_ok(request: bytes, context: Any) -> bytes:
    seen.append(dict(context.invocation_metadata()))
    return b"\n\x07\x08\xc8\x01\x1a\x02ok"


seen: list[dict[str, Any]] = []


async def test_spans_nest_and_are_sent_along(fake: FakeGateway, user: SigningIdentity) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    seen.clear()
    await use(fake, user, OpenTelemetryObserver(provider.get_tracer("test")))
    spans = exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans}
    assert [span.name for span in spans] == [
        "fabric.Endorse", "fabric.Submit", "fabric.CommitStatus", "fabric.submit",
        "fabric.Evaluate", "fabric.evaluate", "fabric.Evaluate", "fabric.evaluate",
    ]  # fmt: skip
    for span in spans[:3]:
        assert span.parent is not None
        assert by_id[span.parent.span_id].name == "fabric.submit"
    assert not spans[-1].status.is_ok
    assert f"{spans[4].context.span_id:016x}" in seen[0]["traceparent"]
    assert MARKER not in "".join(span.to_json() for span in spans)


async def test_metrics_count_and_time(fake: FakeGateway, user: SigningIdentity) -> None:
    registry = CollectorRegistry()
    await use(fake, user, PrometheusObserver(registry))
    text = generate_latest(registry).decode()
    assert 'sovchain_client_calls_total{name="submit",status="OK"} 1.0' in text
    assert 'sovchain_client_calls_total{name="evaluate",status="EvaluateError"} 1.0' in text
    assert 'sovchain_client_calls_total{name="Evaluate",status="UNKNOWN"} 1.0' in text
    assert 'sovchain_client_in_progress{name="Evaluate"} 0.0' in text
    assert 'sovchain_client_seconds_count{name="Endorse"} 1.0' in text
    assert MARKER not in text


async def test_log_lines_hold_names_and_no_payload(fake: FakeGateway, user: SigningIdentity) -> None:
    with capture_logs() as lines:
        await use(fake, user, StructlogObserver())
    events = [(line["event"], line["status"], line["log_level"]) for line in lines]
    assert ("client.submit", "OK", "info") in events
    assert ("client.evaluate", "EvaluateError", "warning") in events
    assert ("client.Endorse", "OK", "debug") in events
    assert MARKER not in str(lines)
