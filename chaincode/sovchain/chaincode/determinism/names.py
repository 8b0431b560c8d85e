"""What a name in a module stands for: its dotted path through imports, or the builtin of that name."""

from __future__ import annotations

import ast
import builtins

_BUILTINS = frozenset(dir(builtins))


class Imports:
    """The imports of a module, wherever they stand in it."""

    def __init__(self, tree: ast.Module) -> None:
        self._names: dict[str, str] = {}
        self._own = _defined(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    if name.asname:
                        self._names[name.asname] = name.name
                    else:
                        first = name.name.partition(".")[0]
                        self._names[first] = first
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for name in node.names:
                    self._names[name.asname or name.name] = f"{node.module}.{name.name}"

    def dotted(self, node: ast.expr) -> str | None:
        """The dotted path of a name or attribute; None if it begins with something of the module's own."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        root = self._names.get(node.id)
        if root is None:
            if node.id in self._own or node.id not in _BUILTINS:
                return None
            root = f"builtins.{node.id}"
        return ".".join([root, *reversed(parts)])


def _defined(tree: ast.Module) -> frozenset[str]:
    """Names that the module binds itself, anywhere: they hide builtins. Attributes of classes do not."""
    found: set[str] = set()
    members: set[ast.AST] = set()
    for owner in ast.walk(tree):
        if isinstance(owner, ast.ClassDef):
            for part in owner.body:
                targets = [part.target] if isinstance(part, ast.AnnAssign) else getattr(part, "targets", [])
                members.update([part, *targets])
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node not in members:
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in members:
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return frozenset(found)
