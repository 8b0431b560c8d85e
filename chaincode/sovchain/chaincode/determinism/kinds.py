"""What kind of value an expression has, as far as a module tells by itself: set, map without order, int, exact, or unknown.

It follows literals, annotations, assignments in the same function, and functions of the module that say what they return.
What it does not know it calls unknown, and unknown is never reported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from sovchain.chaincode.determinism.names import Imports

Kind = Literal["set", "map", "int", "exact", ""]

_ANNOTATED: Final[dict[str, Kind]] = {
    "set": "set",
    "frozenset": "set",
    "Set": "set",
    "AbstractSet": "set",
    "MutableSet": "set",
    "FrozenSet": "set",
    "int": "int",
    "Decimal": "exact",
    "Fraction": "exact",
    "timedelta": "exact",
    "Path": "exact",
    "PurePath": "exact",
}
_CALLED: Final[dict[str, Kind]] = {
    "builtins.set": "set",
    "builtins.frozenset": "set",
    "builtins.int": "int",
    "builtins.len": "int",
    "builtins.ord": "int",
    "builtins.abs": "",
    "decimal.Decimal": "exact",
    "fractions.Fraction": "exact",
    "datetime.timedelta": "exact",
    "pathlib.Path": "exact",
}
_SET_METHODS: Final = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
_SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)
_UNORDERED: Final = frozenset({"transient", "decorations"})


class ModuleKinds:
    """The kinds of a module's expressions; `function` enters a function's own names."""

    def __init__(self, tree: ast.Module, imports: Imports) -> None:
        self._imports = imports
        self._returns: dict[str, Kind] = {
            node.name: self._annotated(node.returns)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.returns is not None
        }
        self._fields: dict[str, Kind] = {}
        for owner in ast.walk(tree):
            if isinstance(owner, ast.ClassDef):
                for node in owner.body:
                    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                        self._note(self._fields, node.target.id, self._annotated(node.annotation))
        self._scopes: list[dict[str, Kind]] = [{}]
        self._learn(tree.body)

    @contextmanager
    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[None]:
        """Know the parameters and assignments of a function for the length of the block."""
        scope: dict[str, Kind] = {}
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            scope[argument.arg] = self._annotated(argument.annotation) if argument.annotation else ""
        self._scopes.append(scope)
        try:
            self._learn(node.body)
            yield
        finally:
            self._scopes.pop()

    def of(self, node: ast.expr) -> Kind:
        """The kind of an expression."""
        match node:
            case ast.Set() | ast.SetComp():
                return "set"
            case ast.Constant(value=bool()):
                return ""
            case ast.Constant(value=int()):
                return "int"
            case ast.Name():
                return self._of_name(node.id)
            case ast.Call():
                return self._of_call(node)
            case ast.BinOp():
                return self._of_operation(node)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                return self.of(node.operand)
            case ast.IfExp():
                kind = self.of(node.body)
                return kind if kind == self.of(node.orelse) else ""
            case ast.Attribute():
                if node.attr in _UNORDERED:
                    return "map"
                return self._fields.get(node.attr, "")
        return ""

    def divides_to_float(self, node: ast.BinOp) -> bool:
        """Whether `/` is between integers, as far as is known of one side and not denied by the other."""
        kinds = (self.of(node.left), self.of(node.right))
        return "int" in kinds and "exact" not in kinds and not self._is_text(node.left)

    def _is_text(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)

    def _of_name(self, name: str) -> Kind:
        for scope in reversed(self._scopes):
            if name in scope:
                return scope[name]
        return ""

    def _of_call(self, node: ast.Call) -> Kind:
        dotted = self._imports.dotted(node.func)
        if dotted in _CALLED:
            return _CALLED[dotted]
        if isinstance(node.func, ast.Name):
            return self._returns.get(node.func.id, "")
        if isinstance(node.func, ast.Attribute):
            owner, method = node.func.value, node.func.attr
            kind = self.of(owner)
            if kind == "map" and method in ("items", "keys", "values"):
                return "map"
            if kind == "set" and method in _SET_METHODS:
                return "set"
            if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
                return self._returns.get(method, "")
        return ""

    def _of_operation(self, node: ast.BinOp) -> Kind:
        left, right = self.of(node.left), self.of(node.right)
        if isinstance(node.op, _SET_OPERATORS) and "set" in (left, right):
            return "set"
        if left == right == "int" and not isinstance(node.op, ast.Div | ast.Pow):
            return "int"
        return "exact" if "exact" in (left, right) else ""

    def _learn(self, body: list[ast.stmt]) -> None:
        """Note what a body assigns, in order, without entering functions and classes in it."""
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                self._scopes[-1][node.target.id] = self._annotated(node.annotation)
            elif isinstance(node, ast.Assign):
                kind = self.of(node.value)
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self._note(self._scopes[-1], target.id, kind)
            for name in ("body", "orelse", "finalbody"):
                self._learn(getattr(node, name, []))
            for handler in getattr(node, "handlers", []):
                self._learn(handler.body)

    def _note(self, scope: dict[str, Kind], name: str, kind: Kind) -> None:
        scope[name] = kind if scope.get(name, kind) == kind else ""

    def _annotated(self, node: ast.expr | None) -> Kind:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                return ""
        if isinstance(node, ast.Subscript):
            name = node.value
            if isinstance(name, ast.Name | ast.Attribute) and self._last(name) in ("Final", "ClassVar", "Annotated"):
                inner = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) else node.slice
                return self._annotated(inner)
            node = name
        if isinstance(node, ast.Name | ast.Attribute):
            return _ANNOTATED.get(self._last(node), "")
        return ""

    @staticmethod
    def _last(node: ast.Name | ast.Attribute) -> str:
        return node.id if isinstance(node, ast.Name) else node.attr
