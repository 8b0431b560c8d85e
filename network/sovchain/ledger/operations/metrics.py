"""Fabric's metrics of peers and ordering nodes, as Prometheus reads them.

Names, labels, buckets and help are those of Fabric's metrics reference (docs/source/metrics_reference.rst). They are
written here and not by Prometheus' own Python library, which adds `_total` to the name of every counter, so that no
dashboard or alert made for Fabric would find them.
"""

from __future__ import annotations

import os
import resource
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

DEFAULT_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LEDGER_BUCKETS_S: Final = (0.005, 0.01, 0.015, 0.05, 0.1, 1.0, 10.0)
MAX_SERIES: Final = 10_000
"""Label values come from clients too (chaincode names): beyond this many of one metric, further ones are not kept."""
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, ...]
_Samples = Iterable[tuple[str, Sequence[str], Labels, float]]
_STARTED: Final = time.time()


class Counter:
    """A number that grows, for each combination of label values."""

    kind: Final = "counter"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002  Prometheus' word
        self.name = name
        self.help = help
        self.labels = labels
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, *values: str, by: float = 1.0) -> None:
        """Count once, or `by`."""
        known = self._values.get(values)
        if known is not None:
            self._values[values] = known + by
        elif len(self._values) < MAX_SERIES:
            self._values[values] = by

    def value(self, *values: str) -> float:
        """The present value."""
        return self._values.get(values, 0.0)

    def samples(self) -> _Samples:
        """(suffix of the name, label names, label values, value)."""
        return (("", self.labels, values, number) for values, number in list(self._values.items()))


class Histogram:
    """Observed durations in seconds, counted by buckets, for each combination of label values."""

    kind: Final = "histogram"

    def __init__(self, name: str, help: str, labels: Labels = (), buckets: Sequence[float] = DEFAULT_BUCKETS_S) -> None:  # noqa: A002
        self.name = name
        self.help = help
        self.labels = labels
        self._buckets = tuple(buckets)
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, *values: str) -> None:
        """Take in one duration."""
        counts = self._counts.get(values)
        if counts is None:
            if len(self._counts) >= MAX_SERIES:
                return
            self._sums[values] = 0.0
            counts = self._counts[values] = [0] * (len(self._buckets) + 1)
        counts[bisect_left(self._buckets, value)] += 1
        self._sums[values] += value

    def samples(self) -> _Samples:
        """See `Counter.samples`."""
        for values, counts in list(self._counts.items()):  # commits are counted in threads of their own
            total = 0
            for bound, count in zip((*map(_number, self._buckets), "+Inf"), counts, strict=True):
                total += count
                yield "_bucket", (*self.labels, "le"), (*values, bound), total
            yield "_sum", self.labels, values, self._sums[values]
            yield "_count", self.labels, values, total


@dataclass(frozen=True)
class Gauge:
    """A number that is read when it is asked for: (label values, value) of each combination."""

    name: str
    help: str
    labels: Labels
    read: Callable[[], Iterable[tuple[Labels, float]]]
    kind: str = "gauge"

    def samples(self) -> _Samples:
        """See `Counter.samples`."""
        return (("", self.labels, values, number) for values, number in self.read())


Metric = Counter | Histogram | Gauge


def exposition(metrics: Iterable[Metric], only: Callable[[Sequence[str], Labels], bool] = lambda *_: True) -> bytes:
    """Write metrics in Prometheus' text format; `only` says which samples, by label names and values."""
    lines: list[str] = []
    for metric in sorted(metrics, key=lambda metric: metric.name):
        written = [
            f"{metric.name}{suffix}{_labels(names, values)} {_number(number)}"
            for suffix, names, values, number in metric.samples()
            if only(names, values)
        ]
        if written:
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}", *written]
    return "".join(f"{line}\n" for line in lines).encode()


def _labels(names: Sequence[str], values: Labels) -> str:
    shown = ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return f"{{{shown}}}" if shown else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


class LedgerMetrics:
    """What is the same for every node that has a channel: counted once for all of them."""

    def __init__(self) -> None:
        channel = ("channel",)
        self.processing = Histogram("ledger_block_processing_time", "Time taken in seconds for ledger block processing.", channel, LEDGER_BUCKETS_S)  # fmt: skip
        self.commit = Histogram("ledger_blockstorage_and_pvtdata_commit_time", "Time taken in seconds for committing the block and private data to storage.", channel, LEDGER_BUCKETS_S)  # fmt: skip
        self.storage = Histogram("ledger_blockstorage_commit_time", "Time taken in seconds for committing the block to storage.", channel, LEDGER_BUCKETS_S)  # fmt: skip
        self.transactions = Counter("ledger_transaction_count", "Number of transactions processed.", ("channel", "transaction_type", "chaincode", "validation_code"))  # fmt: skip

    def committed(
        self, channel: str, processing_s: float, writing_s: float, kinds: Iterable[tuple[str, str, str]]
    ) -> None:
        """Count a block: how long it took in all and to write, and (type, chaincode, code) of its transactions."""
        self.processing.observe(processing_s, channel)
        self.commit.observe(writing_s, channel)
        self.storage.observe(writing_s, channel)
        for kind in kinds:
            self.transactions.add(channel, *kind)

    def of_peers(self) -> tuple[Metric, ...]:
        """Those that a peer shows."""
        return self.processing, self.commit, self.storage, self.transactions

    def of_orderers(self) -> tuple[Metric, ...]:
        """Those that an ordering node shows."""
        return (self.storage,)


_ENDORSER: Final = ("channel", "chaincode")
_CALL: Final = ("service", "method")
_STREAM: Final = ("channel", "filtered", "data_type")
_BROADCAST: Final = ("channel", "type", "status")


class NodeMetrics:
    """What one node counts."""

    def __init__(self) -> None:
        self.unary_received = Counter("grpc_server_unary_requests_received", "The number of unary requests received.", _CALL)  # fmt: skip
        self.unary_completed = Counter("grpc_server_unary_requests_completed", "The number of unary requests completed.", (*_CALL, "code"))  # fmt: skip
        self.unary_duration = Histogram("grpc_server_unary_request_duration", "The time to complete a unary request.", (*_CALL, "code"))  # fmt: skip
        self.stream_received = Counter("grpc_server_stream_requests_received", "The number of stream requests received.", _CALL)  # fmt: skip
        self.stream_completed = Counter("grpc_server_stream_requests_completed", "The number of stream requests completed.", (*_CALL, "code"))  # fmt: skip
        self.stream_duration = Histogram("grpc_server_stream_request_duration", "The time to complete a stream request.", (*_CALL, "code"))  # fmt: skip
        self.streams_opened = Counter("deliver_streams_opened", "The number of GRPC streams that have been opened for the deliver service.")  # fmt: skip
        self.streams_closed = Counter("deliver_streams_closed", "The number of GRPC streams that have been closed for the deliver service.")  # fmt: skip
        self.deliver_received = Counter("deliver_requests_received", "The number of deliver requests that have been received.", _STREAM)  # fmt: skip
        self.deliver_completed = Counter("deliver_requests_completed", "The number of deliver requests that have been completed.", (*_STREAM, "success"))  # fmt: skip
        self.blocks_sent = Counter("deliver_blocks_sent", "The number of blocks sent by the deliver service.", _STREAM)

    def all(self) -> tuple[Metric, ...]:
        """All that the node counts."""
        return tuple(value for value in vars(self).values() if isinstance(value, Counter | Histogram))

    @contextmanager
    def call(self, service: str, method: str, *, is_stream: bool) -> Iterator[Call]:
        """Count one gRPC call (common/grpcmetrics/interceptor.go); the block says with which code it ended."""
        received, completed, duration = (
            (self.stream_received, self.stream_completed, self.stream_duration)
            if is_stream
            else (self.unary_received, self.unary_completed, self.unary_duration)
        )
        labels = (service.replace(".", "_"), method)
        received.add(*labels)
        started, call = time.perf_counter(), Call()
        try:
            yield call
        finally:
            duration.observe(time.perf_counter() - started, *labels, call.code)
            completed.add(*labels, call.code)


class Call:
    """A gRPC call that is being counted. `code` as Go's gRPC names codes."""

    __slots__ = ("code",)

    def __init__(self) -> None:
        self.code = "Canceled"

    def ended(self, code: str) -> None:
        """`code` as Python's gRPC names it, such as INVALID_ARGUMENT."""
        self.code = _GO_CODES.get(code) or "".join(part.title() for part in code.split("_"))


_GO_CODES: Final = {"OK": "OK", "CANCELLED": "Canceled"}


class PeerMetrics(NodeMetrics):
    """What one peer counts."""

    def __init__(self) -> None:
        super().__init__()
        self.proposals_received = Counter("endorser_proposals_received", "The number of proposals received.")
        self.proposals_successful = Counter("endorser_successful_proposals", "The number of successful proposals.")
        self.validation_failures = Counter("endorser_proposal_validation_failures", "The number of proposals that have failed initial validation.")  # fmt: skip
        self.acl_failures = Counter("endorser_proposal_acl_failures", "The number of proposals that failed ACL checks.", _ENDORSER)  # fmt: skip
        self.duplicates = Counter("endorser_duplicate_transaction_failures", "The number of failed proposals due to duplicate transaction ID.", _ENDORSER)  # fmt: skip
        self.simulation_failures = Counter("endorser_proposal_simulation_failures", "The number of failed proposal simulations", _ENDORSER)  # fmt: skip
        self.endorsement_failures = Counter("endorser_endorsement_failures", "The number of failed endorsements.", (*_ENDORSER, "chaincodeerror"))  # fmt: skip
        self.proposal_duration = Histogram("endorser_proposal_duration", "The time to complete a proposal.", (*_ENDORSER, "success"))  # fmt: skip
        self.execute_timeouts = Counter("chaincode_execute_timeouts", "The number of chaincode executions (Init or Invoke) that have timed out.", ("chaincode",))  # fmt: skip

    def refused(self, rule: Literal["validation", "duplicate", "access"], channel: str, chaincode: str) -> None:
        """Count a proposal that is refused before it is simulated (core/endorser/endorser.go preProcess)."""
        self.proposals_received.add()
        if rule == "validation":
            self.validation_failures.add()
        else:
            (self.duplicates if rule == "duplicate" else self.acl_failures).add(channel, chaincode)

    @contextmanager
    def proposal(self, channel: str, chaincode: str) -> Iterator[Proposal]:
        """Count one proposal that is processed (core/endorser/endorser.go ProcessProposal)."""
        self.proposals_received.add()
        started, proposal = time.perf_counter(), Proposal()
        try:
            yield proposal
        finally:
            success = "true" if proposal.is_success else "false"
            self.proposal_duration.observe(time.perf_counter() - started, channel, chaincode, success)
            if proposal.is_success:
                self.proposals_successful.add()


class Proposal:
    """A proposal that is being counted."""

    __slots__ = ("is_success",)

    def __init__(self) -> None:
        self.is_success = False


class OrdererMetrics(NodeMetrics):
    """What one ordering node counts."""

    def __init__(self) -> None:
        super().__init__()
        self.processed = Counter("broadcast_processed_count", "The number of transactions processed.", _BROADCAST)
        self.enqueue = Histogram("broadcast_enqueue_duration", "The time to enqueue a transaction in seconds.", _BROADCAST)  # fmt: skip

    def broadcast(self, channel: str, kind: str, status: str, duration_s: float) -> None:
        """Count an envelope that was answered. Checking it is a part of taking it here, so there is one duration."""
        self.processed.add(channel, kind, status)
        self.enqueue.observe(duration_s, channel, kind, status)


def process_metrics() -> Iterator[Gauge]:
    """What Prometheus' Go library says of a process; the nodes of one process all say the same."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        pages = file.read().split()
    page = os.sysconf("SC_PAGE_SIZE")
    for name, help_text, kind, value in (
        ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter", usage.ru_utime + usage.ru_stime),
        ("process_max_fds", "Maximum number of open file descriptors.", "gauge", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ("process_open_fds", "Number of open file descriptors.", "gauge", len(os.listdir("/proc/self/fd"))),
        ("process_resident_memory_bytes", "Resident memory size in bytes.", "gauge", int(pages[1]) * page),
        ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", "gauge", _STARTED),
        ("process_virtual_memory_bytes", "Virtual memory size in bytes.", "gauge", int(pages[0]) * page),
    ):  # fmt: skip
        yield Gauge(name, help_text, (), lambda value=value: [((), float(value))], kind)  # type: ignore[misc]
