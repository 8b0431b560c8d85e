"""Whatever arrives on the stream: no crash, no hang, one answer for each transaction."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fabric_protos.ledger.queryresult import kv_query_result_pb2
from fabric_protos.peer import chaincode_shim_pb2 as shim
from fabric_protos.peer import proposal_response_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_model import run_http2, run_messages

HERE = Path(__file__).parent
FUZZ_S = 120


def answers() -> st.SearchStrategy[bytes]:
    """Payloads that some request would take, and some that none would."""
    key_values = st.builds(
        lambda key, value: kv_query_result_pb2.KV(key=key, value=value).SerializeToString(),
        st.text(max_size=5), st.binary(max_size=5),
    )  # fmt: skip
    responses = st.builds(
        lambda results, more: shim.QueryResponse(
            results=[shim.QueryResultBytes(resultBytes=each) for each in results], has_more=more, id="q"
        ).SerializeToString(),
        st.lists(key_values | st.binary(max_size=4), max_size=3), st.booleans(),
    )  # fmt: skip
    values = st.lists(st.binary(max_size=4), max_size=4).map(
        lambda found: shim.GetStateMultipleResult(values=found).SerializeToString()
    )
    inner = st.builds(
        lambda kind, status: shim.ChaincodeMessage(
            type=kind, payload=proposal_response_pb2.Response(status=status).SerializeToString()
        ).SerializeToString(),
        st.sampled_from([6, 7]), st.integers(0, 600),
    )  # fmt: skip
    return st.one_of(st.binary(max_size=30), responses, values, inner, st.just(b""))


def script(steps: list[tuple[int, bytes]]) -> bytes:
    return b"".join(bytes([kind, len(payload[:255])]) + payload[:255] for kind, payload in steps)


@settings(max_examples=150, deadline=None)
@given(
    st.binary(min_size=1, max_size=1),
    st.sampled_from([b"t", b"i"]),
    st.binary(min_size=20, max_size=20),
    st.lists(st.tuples(st.integers(0, 255), answers()), max_size=40),
)
def test_any_answers_leave_each_transaction_answered_once(
    first: bytes, kind: bytes, call: bytes, steps: list[tuple[int, bytes]]
) -> None:
    run_messages(first + kind + call + b"tt" + script(steps))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_leave_each_transaction_answered_once(data: bytes) -> None:
    run_messages(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_leave_each_stream_ended_once(data: bytes) -> None:
    run_http2(data)


@pytest.mark.long
@pytest.mark.timeout(FUZZ_S + 60)
@pytest.mark.parametrize("target", ["http2", "handler"])
def test_atheris_finds_nothing(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("missing program: atheris: it has no wheel for this Python; use 3.11 to 3.13 on Linux")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    options = [f"-max_total_time={FUZZ_S}", "-timeout=25", "-rss_limit_mb=2048", "-max_len=4096"]
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz_stream.py"), target, str(corpus), *options],
        cwd=tmp_path, env={**os.environ, "SOVCHAIN_LOG_LEVEL": "error", "PYTHONPATH": str(HERE)},
        capture_output=True, text=True, check=False, timeout=FUZZ_S + 50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    print(done.stderr.splitlines()[-1])
