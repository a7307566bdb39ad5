"""A hub that is a folder, and a preparation in a temporary directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

# The tests of this folder share modules, and one of them takes Qwen's tokenizer from the search tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
sys.path.insert(0, str(Path(__file__).parent))

from small_sets import FolderHub, Make

from verl_llds.data.prepare import Prepared, prepare
from verl_llds.data.settings import PrepareSettings


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    return FolderHub(tmp_path / "hub")


@pytest.fixture
def make(tmp_path: Path, hub: FolderHub) -> Make:
    """Prepare with fewer questions than published, into tmp_path/out."""

    def run(dataset: str, source: Path | None, **more: Any) -> Prepared:
        settings: dict[str, Any] = {"out": tmp_path / "out", "allow_partial": True, **more}
        return prepare(PrepareSettings(dataset=dataset, source=source, **settings), hub)

    return run
