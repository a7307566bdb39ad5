"""Hold the table of needs against the verl that is installed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from verl_llds.contract.needs import NEEDS, SUBCLASSES, Need


class Breach(NamedTuple):
    """One need that the installed verl does not meet."""

    name: str
    """The name at fault."""
    problem: str
    """What is wrong with it, and what it is needed for."""

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


def check_contract(
    needs: Mapping[str, Sequence[Need]] = NEEDS, subclasses: Mapping[str, Sequence[str]] = SUBCLASSES
) -> list[Breach]:
    """Return what the installed verl does not offer as this package needs it; empty if all is well."""
    breaches: list[Breach] = []
    for name in dict.fromkeys([*needs, *subclasses]):
        try:
            module = importlib.import_module(name)
        # The plugin ends the process where one of its hooks fails; here that is a finding like any other.
        except (ImportError, SystemExit) as error:
            breaches.append(Breach(name, f"cannot be imported ({error.__cause__ or error})"))
            continue
        for need in needs.get(name, ()):
            breaches.extend(Breach(f"{name}.{need.path}", problem) for problem in _problems(module, need))
        for cls in subclasses.get(name, ()):
            found = _subclass_problems(getattr(module, cls))
            breaches.extend(Breach(f"{name}.{cls}", problem) for problem in found)
    return breaches


def _problems(module: ModuleType, need: Need) -> Iterator[str]:
    try:
        found: Any = reduce(_member, need.path.split("."), module)
    except (ImportError, AttributeError) as error:
        yield f"missing ({error}); it {need.why}"
        return
    if need.takes is not None:
        yield from (f"{problem}; it {need.why}" for problem in _signature_problems(found, need.takes))
    if need.body:
        code = inspect.unwrap(found).__code__
        lacking = [word for word in need.body if word not in (*code.co_names, *code.co_consts)]
        if lacking:
            yield f"its code no longer has {', '.join(lacking)}; it {need.why}"


def _member(owner: Any, name: str) -> Any:
    # A submodule that nothing has imported yet is no attribute of its package.
    if inspect.ismodule(owner) and not hasattr(owner, name):
        return importlib.import_module(f"{owner.__name__}.{name}")
    return getattr(owner, name)


def _signature_problems(found: Any, wanted: tuple[str, ...]) -> Iterator[str]:
    parameters = inspect.signature(found).parameters
    lacking = [name for name in wanted if name not in parameters]
    if lacking:
        yield f"no parameter {', '.join(lacking)}"
    added = [
        name
        for name, parameter in parameters.items()
        if name not in (*wanted, "self")
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if added:
        yield f"unknown parameter without a default: {', '.join(added)}"


def _subclass_problems(cls: type) -> Iterator[str]:
    abstract = sorted(getattr(cls, "__abstractmethods__", ()))
    if abstract:
        yield f"verl asks for methods it does not implement: {', '.join(abstract)}"
    for method, ours, theirs in _overrides(cls):
        refused = sorted(_named(theirs) - _named(ours))
        if refused and not _takes_any(ours):
            yield f"{method} does not accept verl's parameter {', '.join(refused)}"


def _overrides(cls: type) -> Iterator[tuple[str, FunctionType, FunctionType]]:
    """Yield each method that code of ours defines over code of verl's."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("verl_llds.")]
    theirs = [base for base in cls.__mro__ if base.__module__.startswith("verl.")]
    for name in {name for base in ours for name in vars(base)}:
        mine = next(vars(base)[name] for base in ours if name in vars(base))
        stock = next((vars(base)[name] for base in theirs if name in vars(base)), None)
        if isinstance(mine, FunctionType) and isinstance(stock, FunctionType):
            yield name, mine, stock


def _named(function: FunctionType) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _takes_any(function: FunctionType) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
