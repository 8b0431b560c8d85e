"""Writes the blocking client from the asynchronous one: `scripts/make_blocking.py`, or `--check` for CI.

Each class of `CLASSES` gets a twin with the same methods, parameters and texts. A twin holds its asynchronous original
and the thread that it runs in (`sovchain.client.blocking._portal`); a coroutine method is run there and waited for, and a
result that has a twin is wrapped. So there is one client, and one place where it can be wrong.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "client/sovchain/client"
TARGET = SOURCE / "blocking"
FILES = {
    "_steps": {"commit": ("Commit", "PendingCommit"), "transaction": ("Transaction",), "proposal": ("Proposal",)},
    "_streams": {
        "events": ("ChaincodeEvents",),
        "deliver": ("BlockStream",),
        "requests": ("EventsRequest", "BlocksRequest"),
    },
    "_contract": {"contract": ("Contract",)},
    "_network": {"network": ("Network",), "gateway": ("Gateway",)},
}
TWINS = {name: file for file, modules in FILES.items() for names in modules.values() for name in names}
RENAMED = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
}
LEFT_OUT = {"build", "discard", "sign", "over"}
"""What only the asynchronous client itself calls; and `over`, whose channel belongs to an event loop of the caller."""

HEADER = '''"""The blocking client. Written by scripts/make_blocking.py from the asynchronous one: change that, not this."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from fabric_protos.common import common_pb2
from fabric_protos.peer import events_pb2

from sovchain.chaincode.operation import Operation
from sovchain.client import commit, contract, deliver, events, gateway, network, proposal, requests, transaction
from sovchain.client.blocking._portal import Portal
{siblings}
from sovchain.client.checkpoint import Checkpointer, Position
from sovchain.client.commit import CommitStatus, Submitted
from sovchain.client.contract import TransientData
from sovchain.client.deliver import BlockAndPrivateData
from sovchain.client.events import ChaincodeEvent
from sovchain.client.identity import Identity
from sovchain.client.journal import Journal
from sovchain.client.network import ChainInfo
from sovchain.client.observe import Observer
from sovchain.client.options import MAX_IN_FLIGHT, MAX_MESSAGE_BYTES, Timeouts
from sovchain.client.profile import Profile
from sovchain.client.retry import RetryPolicy
from sovchain.client.session import EndorsementCheck

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
B = TypeVar("B")

'''


UNTYPED = '''def _untyped(method: Any) -> Any:
    """A method whose overloads stand above: its own signature is none of them."""
    return method


'''


def text_of(docstring: str) -> str:
    """A docstring of the blocking twin."""
    text = docstring.replace("async with", "with").replace("async for", "for").replace("`aclose`", "`close`")
    text = text.replace("async iterator", "iterator")
    text = re.sub(r"\bawait ", "", text)
    return text.replace("belongs to the event loop that it was made in", "may be used from any thread")


def decorators(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [ast.unparse(one) for one in node.decorator_list]


def twin_of(annotation: str) -> str | None:
    """The twin that a return annotation names, without its parameters."""
    name = annotation.split("[")[0]
    return name if name in TWINS else None


class Method:
    """One method of a class, and its twin's source."""

    def __init__(self, node: ast.FunctionDef | ast.AsyncFunctionDef, *, overloaded: bool = False) -> None:
        self.node = node
        self.name = RENAMED.get(node.name, node.name)
        self.returns = ast.unparse(node.returns) if node.returns else "Any"
        self.decorators = decorators(node)
        self.is_async = isinstance(node, ast.AsyncFunctionDef)
        self.overloaded = overloaded

    def signature(self) -> str:
        return f"def {self.name}({ast.unparse(self.node.args)}) -> {self.returns}:"

    def arguments(self) -> str:
        args = self.node.args
        parts = [arg.arg for arg in (*args.posonlyargs, *args.args)][1:]
        parts += [f"*{args.vararg.arg}"] if args.vararg else []
        parts += [f"{arg.arg}={arg.arg}" for arg in args.kwonlyargs]
        parts += [f"**{args.kwarg.arg}"] if args.kwarg else []
        return ", ".join(parts)

    def body(self) -> str:
        if "overload" in self.decorators:
            return "..."
        original = f"self._original.{self.node.name}"
        if self.overloaded:
            original = f"_untyped({original})"
        if self.name in ("__enter__", "__iter__"):
            opened = f"self._portal.run({original}())\n" if self.name == "__enter__" else ""
            return f"{opened}return self"
        if self.name == "__next__":
            return (
                f"try:\n    return self._portal.run({original}())\nexcept StopAsyncIteration:\n"
                "    raise StopIteration from None"
            )
        call = original if "property" in self.decorators else f"{original}({self.arguments()})"
        if self.is_async:
            call = f"self._portal.run({call})"
        elif "property" not in self.decorators and twin_of(self.returns):
            call = f"self._portal.call(lambda: {call})"
        twin = twin_of(self.returns)
        return f"return {twin}({call}, self._portal)" if twin else f"return {call}"

    def source(self) -> str:
        lines = [f"@{one}" for one in self.decorators]
        if "overload" in self.decorators:
            return "\n".join([*lines, f"{self.signature()} ..."])
        lines.append(self.signature())
        docstring = ast.get_docstring(self.node)
        if docstring:
            lines.append(
                indented(f'"""{text_of(docstring)}\n"""' if "\n" in docstring else f'"""{text_of(docstring)}"""')
            )
        lines.append(indented(self.body()))
        return "\n".join(lines)


def indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


CONNECT = """@classmethod
@contextlib.contextmanager
def connect({arguments}) -> Iterator[Gateway]:
{docstring}
    portal = Portal()
    portal.wrap_commit = lambda one: Commit(one, portal)
    try:
        entered = gateway.Gateway.connect({passed})
        original = portal.run(entered.__aenter__())
        try:
            yield cls(original, portal)
        finally:
            portal.run(entered.__aexit__(None, None, None))
    finally:
        portal.close()
"""


def connect(node: ast.AsyncFunctionDef) -> str:
    docstring = indented(f'"""{text_of(ast.get_docstring(node) or "")}\n"""')
    return CONNECT.format(arguments=ast.unparse(node.args), docstring=docstring, passed=Method(node).arguments())


def class_source(module: str, node: ast.ClassDef) -> str:
    generic = [ast.unparse(base) for base in node.bases]
    parameter = next((base for base in generic if base.startswith("Generic[")), None)
    parents = ", ".join(generic)
    original = f"{module}.{node.name}" + (parameter.removeprefix("Generic") if parameter else "")
    functions = [part for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
    overloaded = {part.name for part in functions if "overload" in decorators(part)}
    lines = [
        f"class {node.name}{f'({parents})' if parents else ''}:",
        indented(f'"""{text_of(ast.get_docstring(node) or "")}\n"""'),
        "",
        f"    def __init__(self, original: {original}, portal: Portal) -> None:",
        '        """Made by the class that returns it."""',
        *(["        super().__init__(original, portal)"] if node.name == "PendingCommit" else []),
        f"        self._original{f': {original}' if node.name == 'PendingCommit' else ''} = original",
        "        self._portal = portal",
        "",
    ]
    for part in functions:
        if part.name in LEFT_OUT:
            continue
        if part.name == "connect":
            assert isinstance(part, ast.AsyncFunctionDef)
            lines += [indented(connect(part)), ""]
        elif not part.name.startswith("_") or part.name in RENAMED or part.name == "__repr__":
            source = Method(part, overloaded=part.name in overloaded).source()
            if part.name == "__repr__":
                source = source.replace("self._original.__repr__()", "repr(self._original)")
            lines += [indented(source), ""]
    return "\n".join(lines)


def generated(file: str) -> str:
    """The source of one file of twins."""
    siblings = "\n".join(
        f"from sovchain.client.blocking.{home} import {name}" for name, home in TWINS.items() if home != file
    )
    parts = [HEADER.replace("{siblings}", siblings)]
    for module, names in FILES[file].items():
        tree = ast.parse((SOURCE / f"{module}.py").read_text())
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        parts += [class_source(module, classes[name]) + "\n\n" for name in names]
    if any("_untyped(" in part for part in parts):
        parts.insert(1, UNTYPED)
    text = "".join(parts)
    for fix in (["check", "--fix", "--select", "F401,I"], ["format"]):
        command = [sys.executable, "-m", "ruff", *fix, "--quiet", "--stdin-filename", str(TARGET / f"{file}.py"), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


def main() -> None:
    for file in FILES:
        path, text = TARGET / f"{file}.py", generated(file)
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            raise SystemExit(
                f"{path.relative_to(ROOT)} is not what the asynchronous client makes: run scripts/make_blocking.py"
            )


if __name__ == "__main__":
    main()
