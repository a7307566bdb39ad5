"""The tool of the custom_tool example."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from calculator import Calculator, evaluate
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.search.environment import make_environment
from verl_llds.search.settings import SearchConfig

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "custom_tool"


def test_it_is_shorter_than_sixty_lines() -> None:
    assert len((EXAMPLE / "calculator.py").read_text().splitlines()) < 60


def test_the_package_takes_it_by_its_import_path() -> None:
    environment = make_environment(SearchConfig(tools=("calculator.Calculator",)), searcher=None, tokenizer=None)
    action = environment.protocol.parse("<think> x </think><calculate> 6 * 7 </calculate>")
    assert (action.tool, action.content) == ("calculate", "6 * 7")


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("6 * 7", "42"),
        ("(1 + 2) * -3", "-9"),
        ("1 / 3", "0.3333333333"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 0", "No result"),
        ("2 ** 999999999", "No result: only numbers"),
        ("__import__('os')", "No result: only numbers"),
        ("1e400", "No result"),
        ("1e308 * 1e308 / 3", "No result"),
        ("", "No result"),
        ("(" * 150, "No result"),
        ("9" * 300, "No result: the expression is longer"),
    ],
)
async def test_it_calculates_or_says_why_not(expression: str, said: str) -> None:
    result = await Calculator()(expression)
    assert result.text.startswith(said)


@given(st.integers(-999, 999), st.integers(-999, 999), st.sampled_from("+-*"))
def test_it_agrees_with_python(left: int, right: int, operation: str) -> None:
    expression = f"{left} {operation} ({right})"
    assert evaluate(expression) == Fraction(eval(expression))
