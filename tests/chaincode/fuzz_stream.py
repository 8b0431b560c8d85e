"""Coverage-guided fuzzing of the chaincode's side of the stream, with atheris.

    python tests/chaincode/fuzz_stream.py http2|handler CORPUS_FOLDER [libFuzzer options, such as -max_total_time=60]

`http2` feeds bytes to a connection of either role; `handler` feeds messages to a handler that is ready, and answers its
requests with what the fuzzer says. An exception, a call that is not answered exactly once, or a hang is a find.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["sovchain.chaincode", "hpack"]):
    from stream_model import run_http2, run_messages


def main() -> None:
    target = {"http2": run_http2, "handler": run_messages}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
