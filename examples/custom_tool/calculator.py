"""A second tool beside search: arithmetic. ``search.tools=[calculator.Calculator]`` is all it takes to add it."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from fractions import Fraction

from verl_llds.search.tools import ToolResult

_OPERATORS: dict[type[ast.AST], Callable[..., Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}

_LONGEST = 200
"""Characters of an expression; the numbers it can make stay small enough to print."""


class Calculator:
    """The four operations on exact numbers; the policy reads what was wrong with anything else."""

    name = "calculate"
    description = "Calculate an arithmetic expression of numbers, + - * / and parentheses."
    parameter = "expression"

    async def __call__(self, argument: str) -> ToolResult:
        """Return the value, or one sentence on why there is none."""
        try:
            return ToolResult(text=_text(evaluate(argument)))
        except (ArithmeticError, SyntaxError, ValueError) as error:
            return ToolResult(text=f"No result: {error}")


def evaluate(expression: str) -> Fraction:
    """Return the value of an expression, which is never executed as Python."""
    if len(expression) > _LONGEST:
        raise ValueError(f"the expression is longer than {_LONGEST} characters")
    return _value(ast.parse(expression.strip(), mode="eval").body)


def _value(node: ast.AST) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return Fraction(str(node.value))
    parts = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    operation = _OPERATORS.get(type(getattr(node, "op", None)))
    if operation is None:
        raise ValueError("only numbers, + - * / and parentheses can be calculated")
    return operation(*map(_value, parts))


def _text(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"
