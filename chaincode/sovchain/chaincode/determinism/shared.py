"""State that outlives a transaction: globals of a module, attributes of a contract and of its class."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

_CHANGING: Final = frozenset(
    {
        "append",
        "extend",
        "insert",
        "remove",
        "pop",
        "popitem",
        "clear",
        "update",
        "setdefault",
        "add",
        "discard",
        "sort",
        "reverse",
        "appendleft",
        "popleft",
        "__setitem__",
        "__next__",
    }
)
_MUTABLE_CALLS: Final = frozenset(
    {"dict", "list", "set", "defaultdict", "deque", "Counter", "OrderedDict", "count", "bytearray"}
)
_SETUP: Final = frozenset({"__init__", "__new__", "__init_subclass__", "__set_name__", "__post_init__"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


def shared_changes(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Every place in a function that changes something that outlives the call, with its name."""
    globals_ = _mutable(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield from _global_changes(node, globals_)
        elif isinstance(node, ast.ClassDef) and _is_contract(node):
            shared = _mutable(node.body)
            for method in node.body:
                if isinstance(method, Function) and method.name not in _SETUP:
                    yield from _self_changes(method, node.name, shared)


def _mutable(body: list[ast.stmt]) -> set[str]:
    """Names that a body binds to something that can be changed."""
    found: set[str] = set()
    for node in body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is None or not _is_mutable(value):
            continue
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found.update(target.id for target in targets if isinstance(target, ast.Name))
    return found


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, ast.Dict | ast.List | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    if not isinstance(value, ast.Call):
        return False
    name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
    return name in _MUTABLE_CALLS


def _is_contract(node: ast.ClassDef) -> bool:
    """A class with operations, or derived from something that is called a contract."""
    for method in node.body:
        if isinstance(method, Function):
            for decorator in method.decorator_list:
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                if (target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "")) in (
                    "transaction",
                    "query",
                ):
                    return True
    return any("Contract" in ast.unparse(base) for base in node.bases)


def _global_changes(function: Function, mutable: set[str]) -> Iterator[tuple[ast.AST, str]]:
    declared = {name for node in ast.walk(function) if isinstance(node, ast.Global) for name in node.names}
    local = {
        node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    } | {argument.arg for argument in ast.walk(function) if isinstance(argument, ast.arg)}
    shared = (mutable - local) | declared
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del) and node.id in declared:
            yield node, f"the global {node.id}"
        changed = _changed(node)
        if isinstance(changed, ast.Name) and changed.id in shared:
            yield node, f"the global {changed.id}"


def _self_changes(method: Function, owner: str, shared: set[str]) -> Iterator[tuple[ast.AST, str]]:
    first = method.args.args[0].arg if method.args.args else ""
    owners = (first, owner, "cls")
    for node in ast.walk(method):
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del)
        changed = node if stored else _changed(node)
        if isinstance(changed, ast.Attribute) and isinstance(changed.value, ast.Name) and changed.value.id in owners:
            yield node, f"{changed.value.id}.{changed.attr}"


def _changed(node: ast.AST) -> ast.expr | None:
    """What a node changes in place: the dict of `d[k] = v`, the list of `l.append(x)`, the iterator of `next(i)`."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
        return node.func.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "next" and node.args:
        return node.args[0]
    return None
