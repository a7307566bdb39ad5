"""Published figures, kept as data in ``published.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from verl_llds.reward.sources import SEVEN_SETS


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """Exact match of one model."""

    source: str
    """Who published it."""
    model: str
    """The model that was trained."""
    method: str
    """How."""
    em: Mapping[str, float]
    """By question set, in [0, 1]; sets that the source does not give are missing."""

    @property
    def macro(self) -> float | None:
        """The mean over the seven sets; None if any is missing."""
        return fmean(self.em.values()) if len(self.em) == len(SEVEN_SETS) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where figures come from and what to know about them."""

    name: str
    """Its short name."""
    url: str
    """Its address."""
    where: str
    """Version, table, training data."""
    caveat: str
    """Why its figures and others may differ for other reasons than the method."""
    rows: tuple[PublishedRow, ...]
    """Its figures."""


@cache
def published_sources() -> tuple[Source, ...]:
    """Return everything in the file."""
    text = resources.files(__package__).joinpath("published.yaml").read_text(encoding="utf-8")
    values: Any = OmegaConf.to_container(OmegaConf.create(text))
    return tuple(map(_source, values["sources"]))


def _source(entry: Mapping[str, object]) -> Source:
    values = dict(entry)
    rows = values.pop("rows")
    assert isinstance(rows, list), "a source has rows"
    name = str(values["name"])
    return Source(**{key: str(value) for key, value in values.items()}, rows=tuple(_row(name, row) for row in rows))


def _row(source: str, row: Mapping[str, object]) -> PublishedRow:
    figures = row["em"]
    assert isinstance(figures, list), "a row has a list of figures"
    em = {one.name: float(value) for one, value in zip(SEVEN_SETS, figures, strict=True) if value is not None}
    return PublishedRow(source=source, model=str(row["model"]), method=str(row["method"]), em=em)


def matching_sources(text: str) -> tuple[Source, ...]:
    """Return the sources with the rows whose source, model or method contains a text, in any case."""
    wanted = text.lower()
    found = []
    for source in published_sources():
        rows = tuple(row for row in source.rows if wanted in f"{row.source} {row.model} {row.method}".lower())
        if rows:
            found.append(Source(name=source.name, url=source.url, where=source.where, caveat=source.caveat, rows=rows))
    return tuple(found)
