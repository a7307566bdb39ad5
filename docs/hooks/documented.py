"""The typed settings as the documentation sees them: fields with their types, defaults and docstrings.

Python keeps no docstrings of fields, so they are read from the source.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentedField:
    """One setting."""

    name: str
    """As in the class."""
    type: str
    """As written in the class."""
    default: str
    """As YAML would write it; empty if there is none, or a settings class."""
    text: str
    """The docstring under it."""


def documented_fields(cls: type[Any]) -> list[DocumentedField]:
    """Return the fields of a settings class, those of its bases first.

    Raises:
        ValueError: naming a field without a docstring.
    """
    written: dict[str, DocumentedField] = {}
    for base in filter(is_dataclass, reversed(cls.__mro__)):
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        written |= {field.name: field for field in _fields(tree.body[0])}
    return [
        DocumentedField(
            name=field.name, type=written[field.name].type, default=_default(field), text=written[field.name].text
        )
        for field in fields(cls)
    ]


def source_fields(path: str, name: str) -> list[DocumentedField]:
    """Return the fields of a class of a module that is not imported, defaults as they are written."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return _fields(next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name))


def documented_members(choices: type[Enum]) -> dict[str, str]:
    """Return the values of an enum with their docstrings."""
    body = _body(ast.parse(textwrap.dedent(inspect.getsource(choices))).body[0])
    texts = {
        statement.targets[0].id: _docstring(following)
        for statement, following in pairwise(body)
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }
    return {str(member.value): texts[member.name] for member in choices}


def _fields(node: ast.stmt) -> list[DocumentedField]:
    body = _body(node)
    found = []
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = _docstring(following)
            if not text:
                raise ValueError(f"the setting {statement.target.id} has no docstring under it: add one")
            default = ast.literal_eval(statement.value) if isinstance(statement.value, ast.Constant) else ""
            found.append(
                DocumentedField(
                    name=statement.target.id, type=ast.unparse(statement.annotation), default=_shown(default), text=text
                )
            )
    return found


def _body(node: ast.stmt) -> list[ast.stmt]:
    assert isinstance(node, ast.ClassDef), "settings are classes"
    return node.body


def _docstring(statement: ast.stmt) -> str:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return inspect.cleandoc(value.value) if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return _shown(field.default)
    made = "" if field.default_factory is MISSING else field.default_factory()
    return "" if is_dataclass(made) else _shown(made)


def _shown(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)
