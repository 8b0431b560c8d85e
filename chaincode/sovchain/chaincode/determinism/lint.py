"""Reads the source of contracts for what would make two peers come to different results.

Names are followed through imports and aliases, and every mention counts, also one that is passed on uncalled
(`default_factory=uuid4`). Sets, floats and mutable globals are followed by a light inference inside a function (`kinds`).
A line may be excused, with a reason: `x = hash(y)  # sovchain: allow[hash-seed] compared within one call only`.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sovchain.chaincode.determinism.kinds import ModuleKinds
from sovchain.chaincode.determinism.names import Imports
from sovchain.chaincode.determinism.rules import METHODS, RULES, SUPPRESSION, SYNTAX, Rule, rule_of, rules_within
from sovchain.chaincode.determinism.shared import shared_changes

MAX_SOURCE_BYTES: Final = 4 * 1024 * 1024
_SKIPPED: Final = frozenset({"tests", "test", "node_modules", "build", "dist", "__pycache__", "venv", "site-packages"})
_ALLOW: Final = re.compile(r"#\s*sovchain:\s*allow\[([^\]]*)\]\s*(.*)")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One place that would make endorsements differ. Lines and columns count from 1."""

    path: str
    line: int
    column: int
    rule: str
    message: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.rule}: {self.message}; {self.instead}"


def lint_paths(paths: Iterable[Path]) -> list[Finding]:
    """Read files, and folders without their tests, virtual environments and hidden folders.

    Raises:
        OSError: a path cannot be read.
    """
    found: list[Finding] = []
    for path in paths:
        for file in [path] if path.is_file() else sorted(_sources(path)):
            found += lint_source(file.read_bytes()[: MAX_SOURCE_BYTES + 1], str(file))
    return sorted(found)


def lint_source(source: str | bytes, path: str = "<source>") -> list[Finding]:
    """Read one module's source."""
    data = source.encode() if isinstance(source, str) else source
    if len(data) > MAX_SOURCE_BYTES:
        return [_finding(path, 1, 1, SYNTAX, f"the file has more than {MAX_SOURCE_BYTES} bytes")]
    try:
        tree = ast.parse(data, path)
        comments = _comments(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        line = getattr(error, "lineno", None) or 1
        return [_finding(path, line, 1, SYNTAX, SYNTAX.what)]
    try:
        reader = _Reader(path, tree)
        reader.visit(tree)
    except RecursionError:
        return [_finding(path, 1, 1, SYNTAX, "the file is nested too deeply to be read")]
    return sorted(_excused(path, reader.found, comments))


def _sources(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no {folder}")
    for path in folder.rglob("*.py"):
        inner = path.relative_to(folder).parts
        is_test = inner[-1].startswith("test_") or inner[-1] == "conftest.py"
        if not is_test and not any(part in _SKIPPED or part.startswith(".") for part in inner[:-1]):
            yield path


class _Reader(ast.NodeVisitor):
    """Walks one module."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.path = path
        self.found: set[Finding] = set()
        self._imports = Imports(tree)
        self._kinds = ModuleKinds(tree, self._imports)
        self._excluded: set[ast.AST] = set()
        for node, name in shared_changes(tree):
            self._add(node, RULES["globals"], f"{name} is changed, and outlives the transaction")

    # -- names -------------------------------------------------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:
        self._mention(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if not self._mention(node):
            if isinstance(node.ctx, ast.Load) and node.attr in METHODS and not self._imports.dotted(node.value):
                self._add(node, METHODS[node.attr], f"{node.attr}: {METHODS[node.attr].what}")
            self.visit(node.value)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and any(name.name == "*" for name in node.names):
            for rule in rules_within(node.module):
                self._add(node, rule, f"everything of {node.module}: {rule.what}")

    def _mention(self, node: ast.Name | ast.Attribute) -> bool:
        dotted = self._imports.dotted(node)
        hit = rule_of(dotted) if dotted else None
        if hit is None or node in self._excluded or not isinstance(node.ctx, ast.Load):
            return False
        name = hit[0].removeprefix("builtins.")
        self._add(node, hit[1], f"{name}: {hit[1].what}")
        return True

    # -- what is not run ---------------------------------------------------------------------------------------------

    def visit_If(self, node: ast.If) -> None:
        test = ast.unparse(node.test)
        if test in ("TYPE_CHECKING", "typing.TYPE_CHECKING") or test.startswith("__name__ =="):
            for part in node.orelse:
                self.visit(part)
        else:
            self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._annotation(node.annotation)
        if node.value is not None:
            self.visit(node.value)
        self.visit(node.target)

    def visit_arg(self, node: ast.arg) -> None:
        if node.annotation is not None:
            self._annotation(node.annotation)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for decorator in node.decorator_list:
            self.visit(decorator)
        self.visit(node.args)
        if node.returns is not None:
            self._annotation(node.returns)
        with self._kinds.function(node):
            for part in node.body:
                self.visit(part)

    def _annotation(self, node: ast.expr) -> None:
        """Only a float is wrong in an annotation; `pathlib.Path` or `Random` do nothing there."""
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and part.id in ("float", "complex") and self._imports.dotted(part):
                self._add(part, RULES["float"], f"{part.id}: {RULES['float'].what}")

    # -- order -------------------------------------------------------------------------------------------------------

    def visit_For(self, node: ast.For) -> None:
        self._iterated(node.iter)
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._iterated(node.iter)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    def _comprehension(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> None:
        if node not in self._excluded:
            for part in node.generators:
                self._iterated(part.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if node not in self._excluded:
            self._iterated(node.value)
        self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> None:
        self._excluded.update(part for part in node.elts if isinstance(part, ast.Starred))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = self._imports.dotted(node.func) or ""
        short = name.removeprefix("builtins.")
        if short in _ORDERLESS:
            # sorted(x for x in a_set) and the like do not see the order.
            self._excluded.update(arg for arg in node.args if isinstance(arg, ast.GeneratorExp | ast.ListComp))
        elif short in ("isinstance", "issubclass"):
            self._excluded.update(part for arg in node.args[1:] for part in ast.walk(arg))
        elif short in _ORDERED and node.args:
            self._iterated(node.args[-1 if short == "map" else 0])
        self._call(node, name)
        self.generic_visit(node)

    def _call(self, node: ast.Call, name: str) -> None:
        if name == "json.dumps" and not any(keyword.arg == "sort_keys" for keyword in node.keywords):
            self._add(node, RULES["map-order"], "json.dumps without sort_keys: members come in the order of insertion")
        if not isinstance(node.func, ast.Attribute) or name.startswith("builtins."):
            return
        method = node.func.attr
        if method == "join" and node.args:
            self._iterated(node.args[0])
        elif method == "pop" and not node.args and self._kinds.of(node.func.value) == "set":
            self._add(node, RULES["set-order"], "pop takes any element of a set")
        elif method == "astimezone" and not node.args and not node.keywords:
            self._add(node, RULES["locale"], "astimezone without a zone takes the machine's")
        elif method in ("fromtimestamp",) and len(node.args) < 2 and not node.keywords:
            self._add(node, RULES["locale"], "fromtimestamp without a zone takes the machine's")
        elif method == "timestamp" and not node.args and not node.keywords:
            self._add(node, RULES["float"], "timestamp() gives a float")

    def _iterated(self, node: ast.expr) -> None:
        kind = self._kinds.of(node)
        if kind == "set":
            self._add(node, RULES["set-order"], "the elements of a set are taken in their order")
        elif kind == "map":
            self._add(node, RULES["map-order"], f"{ast.unparse(node)[:60]} comes in no fixed order")

    # -- floats ------------------------------------------------------------------------------------------------------

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, float | complex):
            self._add(node, RULES["float"], f"{node.value!r} is a float")

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.Div) and self._kinds.divides_to_float(node):
            self._add(node, RULES["float"], "/ of integers gives a float")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.op, ast.Div) and self._kinds.divides_to_float(ast.BinOp(node.target, node.op, node.value)):
            self._add(node, RULES["float"], "/= of integers gives a float")
        self.generic_visit(node)

    def _add(self, node: ast.AST, rule: Rule, message: str) -> None:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
        self.found.add(_finding(self.path, line, column, rule, message))


_ORDERLESS: Final = frozenset({"sorted", "len", "any", "all", "sum", "min", "max", "set", "frozenset"})
_ORDERED: Final = frozenset({"list", "tuple", "enumerate", "iter", "map", "zip", "reversed", "dict.fromkeys", "filter"})


def _finding(path: str, line: int, column: int, rule: Rule, message: str) -> Finding:
    return Finding(path, line, column, rule.name, message, rule.instead)


def _comments(data: bytes) -> dict[int, str]:
    return {
        token.start[0]: token.string
        for token in tokenize.tokenize(io.BytesIO(data).readline)
        if token.type == tokenize.COMMENT and _ALLOW.search(token.string)
    }


def _excused(path: str, found: Iterable[Finding], comments: dict[int, str]) -> Iterator[Finding]:
    """The findings that no comment excuses, and the comments that are wrong or excuse nothing."""
    used: set[tuple[int, str]] = set()
    allowed: dict[int, set[str]] = {}
    for line, comment in comments.items():
        matched = _ALLOW.search(comment)
        assert matched is not None
        rules, reason = {name.strip() for name in matched[1].split(",")}, matched[2].strip()
        unknown = sorted(rules - RULES.keys())
        if unknown:
            yield _finding(path, line, 1, SUPPRESSION, f"there is no rule {', '.join(unknown)}")
        elif not reason:
            yield _finding(path, line, 1, SUPPRESSION, "it gives no reason")
        else:
            allowed[line] = rules
    for finding in found:
        if finding.rule in allowed.get(finding.line, ()):
            used.add((finding.line, finding.rule))
        else:
            yield finding
    for line, rules in allowed.items():
        for rule in sorted(rules):
            if (line, rule) not in used:
                yield _finding(path, line, 1, SUPPRESSION, f"nothing on this line is of the rule {rule}")
