"""The table of what is needed of verl: complete, met by the installed verl, and able to notice a change."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import verl_llds
from verl_llds.contract import NEEDS, Need, check_contract

FAKE = "verl_llds_fake_api"


@pytest.fixture
def fake_api(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType(FAKE)
    monkeypatch.setitem(sys.modules, FAKE, module)
    return module


def problems(need: Need) -> list[str]:
    return [breach.problem for breach in check_contract({FAKE: (need,)}, {})]


def imports_of_verl() -> Iterator[tuple[str, str, str]]:
    """Yield file, module and name of each import from verl or its queue in this package."""
    for path in sorted(Path(verl_llds.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "verl":
                yield from ((path.name, node.module or "", alias.name) for alias in node.names)


def test_the_installed_verl_meets_every_need() -> None:
    assert check_contract() == []


def test_the_table_has_every_name_this_package_imports() -> None:
    known = set(NEEDS) | {f"{module}.{need.path.split('.')[0]}" for module in NEEDS for need in NEEDS[module]}
    imported = list(imports_of_verl())
    assert imported
    assert [entry for entry in imported if f"{entry[1]}.{entry[2]}" not in known] == []


def test_every_need_has_a_reason() -> None:
    assert all(need.why for needs in NEEDS.values() for need in needs)


def test_a_missing_module_is_reported_once() -> None:
    needs = {"verl.no_such_module": (Need("a", "is one"), Need("b", "is another"))}
    (breach,) = check_contract(needs, {})
    assert str(breach).startswith("verl.no_such_module: cannot be imported (No module named")


def test_a_missing_name_is_reported_with_its_use(fake_api: ModuleType) -> None:
    (problem,) = problems(Need("Trainer.no_such_method", "follows each rollout"))
    assert problem.startswith("missing (")
    assert problem.endswith("; it follows each rollout")


def test_a_missing_parameter_is_reported(fake_api: ModuleType) -> None:
    fake_api.f = lambda data: data  # type: ignore[attr-defined]
    assert problems(Need("f", "trains", takes=("data",))) == []
    assert problems(Need("f", "trains", takes=("data", "loss_fn"))) == ["no parameter loss_fn; it trains"]


def test_a_new_parameter_matters_only_without_a_default(fake_api: ModuleType) -> None:
    fake_api.f = lambda data, extra=None, *args, **kwargs: data  # type: ignore[attr-defined]
    fake_api.g = lambda data, extra: data  # type: ignore[attr-defined]
    assert problems(Need("f", "trains", takes=("data",))) == []
    assert problems(Need("g", "trains", takes=("data",))) == ["unknown parameter without a default: extra; it trains"]


def test_a_change_of_the_code_that_is_relied_on_is_reported(fake_api: ModuleType) -> None:
    class Worker:
        def init_model(self) -> None:
            self.actor = None

    fake_api.Worker = Worker  # type: ignore[attr-defined]
    assert problems(Need("Worker.init_model", "builds", body=("actor",))) == []
    assert problems(Need("Worker.init_model", "builds", body=("actor", "loss_fn"))) == [
        "its code no longer has loss_fn; it builds"
    ]


def test_a_new_abstract_method_is_reported(fake_api: ModuleType) -> None:
    class Incomplete:
        __abstractmethods__ = frozenset({"warm_up"})

    fake_api.Incomplete = Incomplete  # type: ignore[attr-defined]
    (breach,) = check_contract({}, {FAKE: ("Incomplete",)})
    assert str(breach) == f"{FAKE}.Incomplete: verl asks for methods it does not implement: warm_up"


def test_an_override_that_refuses_a_parameter_of_verls_is_reported(fake_api: ModuleType) -> None:
    class Stock:
        __module__ = "verl.workers"

        def train_batch(self, data: object, step: int = 0) -> None: ...

        def reset(self, hard: bool = False) -> None: ...

    class Ours(Stock):
        __module__ = "verl_llds.worker"

        def train_batch(self, data: object) -> None: ...

        def reset(self, **kwargs: object) -> None: ...

    fake_api.Ours = Ours  # type: ignore[attr-defined]
    (breach,) = check_contract({}, {FAKE: ("Ours",)})
    assert breach.problem == "train_batch does not accept verl's parameter step"
