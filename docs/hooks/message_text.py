"""What a message says, from the expression that makes it: what is only known at run time becomes a gap."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Scope:
    """What names stand for in a module or a function."""

    assigned: dict[str, list[tuple[ast.expr, int]]] = field(default_factory=dict)
    """By name, each value assigned to it, and the block of statements that the assignment is in."""
    parameters: frozenset[str] = frozenset()
    """Names whose values come from outside."""


class MessageText:
    """Reads expressions of one module."""

    def __init__(self, tree: ast.Module, gap: str) -> None:
        self._gap = gap
        self._module = _Scope()
        self._uses: dict[int, tuple[_Scope, int]] = {}
        """By name in an expression: its scope, and its block of statements."""
        self._visit(tree.body, self._module)

    def of(self, node: ast.expr) -> list[str]:
        """Return each text the expression may come to; none for one that is nothing but a gap."""
        texts = [" ".join(text.split()) for text in self._texts(node)]
        return [text for text in dict.fromkeys(texts) if text.replace(self._gap, "").strip(" :;,.")]

    def _visit(self, block: list[ast.stmt], scope: _Scope) -> None:
        for statement in block:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                scope.assigned.setdefault(statement.targets[0].id, []).append((statement.value, id(block)))
            inner = scope
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                arguments = [node.arg for node in ast.walk(statement.args) if isinstance(node, ast.arg)]
                inner = _Scope(parameters=frozenset(arguments))
            for name in ("body", "orelse", "finalbody"):
                self._visit(getattr(statement, name, []), inner)
            for handler in getattr(statement, "handlers", []):
                self._visit(handler.body, inner)
            for node in ast.walk(statement):
                if isinstance(node, ast.Name):
                    # Inner blocks were first.
                    self._uses.setdefault(id(node), (scope, id(block)))

    def _texts(self, node: ast.expr) -> list[str]:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return [node.value]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return [left + right for left in self._texts(node.left) for right in self._texts(node.right)]
        if isinstance(node, ast.IfExp):
            return self._texts(node.body) + self._texts(node.orelse)
        if isinstance(node, ast.JoinedStr):
            texts = [""]
            for part in node.values:
                expression = part.value if isinstance(part, ast.FormattedValue) else part
                texts = [text + more for text in texts for more in self._texts(expression)]
            return texts
        return self._named(node) if isinstance(node, ast.Name) else [self._gap]

    def _named(self, node: ast.Name) -> list[str]:
        scope, block = self._uses[id(node)]
        if node.id in scope.parameters:
            return [self._gap]
        values = scope.assigned.get(node.id) or self._module.assigned.get(node.id, [])
        before = [(value, where) for value, where in values if value.lineno < node.lineno] or values
        # What was assigned last in the same block counts alone.
        same = [value for value, where in before if where == block]
        chosen = same[-1:] or [value for value, _ in before]
        texts = [text for value in chosen if not _mentions(value, node.id) for text in self._texts(value)]
        return texts or [self._gap]


def _mentions(node: ast.expr, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))
