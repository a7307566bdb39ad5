"""Settings of the two commands, checked once where they are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from verl_llds.data.published import MIXTURES, Mixture
from verl_llds.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareSettings:
    """What ``verl-llds data prepare`` makes."""

    dataset: str
    """One of `verl_llds.data.published.MIXTURES`."""

    out: Path
    """Directory for ``train.parquet``, ``test.parquet`` and ``manifest.json``."""

    source: Path | None = None
    """A file or a directory of published files; None is the hub."""

    allow_partial: bool = False
    """Whether fewer questions than published will do; the manifest then says so."""

    overwrite: bool = False
    """Whether what was made there of another data set or source is replaced."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.dataset not in MIXTURES:
            raise ConfigError(f"--dataset must be one of {', '.join(MIXTURES)}, got {self.dataset!r}: correct the name")
        check_paths(self.source, self.out)

    @property
    def mixture(self) -> Mixture:
        """The sets behind the name."""
        return MIXTURES[self.dataset]


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusSettings:
    """What ``verl-llds data corpus`` makes."""

    out: Path
    """Directory for ``wiki-18.jsonl``, ``e5_Flat.index`` and ``manifest.json``."""

    source: Path | None = None
    """A file of passages or a directory with them and the index; None is the hub."""

    index: bool = True
    """Whether the index is wanted too; without it the passages are enough for BM25, or for encoding them anew."""

    consume_parts: bool = False
    """Whether the parts of the index under ``source`` may be used up: they shrink while the index grows."""

    allow_partial: bool = False
    """Whether fewer passages than published will do; the manifest then says so."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_paths(self.source, self.out)
        if self.consume_parts and (self.source is None or not self.index):
            raise ConfigError(
                "--consume-parts would do nothing here: it is about the parts of an index under --source PATH; "
                "leave it out"
            )


def check_paths(source: Path | None, out: Path) -> None:
    """Refuse a source that is not there and an output that is a file.

    Raises:
        ConfigError: naming the option.
    """
    if source is not None and not source.exists():
        raise ConfigError(f"--source {source} does not exist: correct the path, or leave it out to fetch from the hub")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: give a directory")
