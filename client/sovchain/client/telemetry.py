"""Observers for OpenTelemetry, Prometheus and structlog. None of them sees an argument, a result or a key.

    async with Gateway.connect(profile, identity, observers=[OpenTelemetryObserver(), PrometheusObserver()]) as gateway:

`StructlogObserver` comes with the client; the others need the extra `sovchain[telemetry]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from sovchain.client.observe import Observation

_WHOLE: Final = frozenset({"evaluate", "submit"})
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class StructlogObserver:
    """Logs each evaluation and submit, and at debug level each call to a gateway: names, status, milliseconds."""

    def __init__(self, logger: Any = None) -> None:
        self._logger = logger or structlog.get_logger("sovchain.client")

    def begin(self, name: str, attributes: Mapping[str, str]) -> Observation:
        """Something begins."""
        return _Logged(self._logger, name, attributes)


class _Logged:
    metadata: Sequence[tuple[str, str]] = ()

    def __init__(self, logger: Any, name: str, attributes: Mapping[str, str]) -> None:
        self._logger, self._name, self._attributes = logger, name, attributes

    def end(self, status: str, elapsed_s: float) -> None:
        level = self._logger.debug if self._name not in _WHOLE else self._logger.info
        if status != "OK" and self._name in _WHOLE:
            level = self._logger.warning
        level(f"client.{self._name}", **self._attributes, status=status, elapsed_ms=round(1000 * elapsed_s, 1))


class OpenTelemetryObserver:
    """Makes a span of each evaluation and submit, with one below it for each call, and sends `traceparent` along."""

    def __init__(self, tracer: Any = None) -> None:
        """Take a tracer, by default that of the global provider. Raises ImportError without the extra."""
        from opentelemetry import trace

        self._tracer = tracer or trace.get_tracer("sovchain.client")

    def begin(self, name: str, attributes: Mapping[str, str]) -> Observation:
        """Something begins."""
        return _Span(self._tracer, name, attributes)


class _Span:
    def __init__(self, tracer: Any, name: str, attributes: Mapping[str, str]) -> None:
        from opentelemetry import context, propagate, trace

        kind = trace.SpanKind.INTERNAL if name in _WHOLE else trace.SpanKind.CLIENT
        values = {f"fabric.{key}": value for key, value in attributes.items()}
        self._span = tracer.start_span(f"fabric.{name}", kind=kind, attributes=values)
        self._token = context.attach(trace.set_span_in_context(self._span))
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        self.metadata: Sequence[tuple[str, str]] = [(key.lower(), value) for key, value in carrier.items()]

    def end(self, status: str, elapsed_s: float) -> None:
        from opentelemetry import context, trace

        if status != "OK":
            self._span.set_attribute("fabric.status", status)
            self._span.set_status(trace.StatusCode.ERROR, status)
        context.detach(self._token)
        self._span.end()


class PrometheusObserver:
    """Counts and times: `sovchain_client_calls_total`, `sovchain_client_seconds`, `sovchain_client_in_progress`.

    The labels are the name of the call and its status: no channel, no transaction, nothing that grows.
    """

    def __init__(self, registry: Any = None) -> None:
        """Register the metrics, by default with the global registry. Raises ImportError without the extra."""
        import prometheus_client

        chosen = registry or prometheus_client.REGISTRY
        self._calls = prometheus_client.Counter(
            "sovchain_client_calls", "Calls, evaluations and submits that ended", ["name", "status"], registry=chosen
        )
        self._seconds = prometheus_client.Histogram(
            "sovchain_client_seconds", "How long they took", ["name"], buckets=_BUCKETS, registry=chosen
        )
        self._running = prometheus_client.Gauge(
            "sovchain_client_in_progress", "Those that have not ended", ["name"], registry=chosen
        )

    def begin(self, name: str, attributes: Mapping[str, str]) -> Observation:
        """Something begins."""
        self._running.labels(name).inc()
        return _Counted(self, name)

    def count(self, name: str, status: str, elapsed_s: float) -> None:
        """Something has ended."""
        self._running.labels(name).dec()
        self._calls.labels(name, status).inc()
        self._seconds.labels(name).observe(elapsed_s)


class _Counted:
    metadata: Sequence[tuple[str, str]] = ()

    def __init__(self, observer: PrometheusObserver, name: str) -> None:
        self._observer, self._name = observer, name

    def end(self, status: str, elapsed_s: float) -> None:
        self._observer.count(self._name, status, elapsed_s)
