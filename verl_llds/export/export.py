"""A checkpoint to a model folder, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from verl_llds.data.files import read_json
from verl_llds.errors import ExportError
from verl_llds.evaluation.folder import SUMMARY
from verl_llds.evaluation.header import versions
from verl_llds.export.card import CONFIG, CURVES, Card
from verl_llds.export.checkpoint import check_room, find_checkpoint
from verl_llds.export.curves import draw_curves
from verl_llds.export.recipe import read_recipe
from verl_llds.export.weights import write_weights
from verl_llds.report.run_folder import read_run


def export(checkpoint: Path, out: Path, *, run: Path | None, evaluation: Path | None, name: str) -> None:
    """Make a model folder.

    Args:
        checkpoint: ``global_step_N``, or the folder of all checkpoints.
        out: the folder, which must be new or empty.
        run: the run's folder, for recipe and curves.
        evaluation: folder of an evaluation, for the table.
        name: title of the card.

    Raises:
        LLDSError: before anything is merged, if part of it is not there; or if the merging fails.
    """
    found = find_checkpoint(checkpoint)
    check_room(found, out)
    recipe = read_recipe(run) if run is not None else None
    metrics = read_run(run).metrics if run is not None else {}
    results = _results(evaluation) if evaluation is not None else None
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_name(f".{out.name}.building")
    # Left by an export that was killed.
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        write_weights(found, building)
        has_curves = draw_curves(metrics, building / CURVES)
        if recipe is not None:
            (building / CONFIG).write_text(recipe.text, encoding="utf-8")
        card = Card(
            name=name,
            step=found.step,
            versions=versions(),
            recipe=recipe,
            has_curves=has_curves,
            evaluation=results,
        )
        (building / "README.md").write_text(card.render(), encoding="utf-8")
        if out.exists():
            out.rmdir()
        os.replace(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _results(folder: Path) -> dict[str, Any]:
    values = read_json(folder / SUMMARY)
    if values is None or "summary" not in values:
        raise ExportError(f"{folder} has no {SUMMARY} of a finished evaluation: let `verl-llds eval` end first")
    return values
