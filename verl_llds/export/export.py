"""A checkpoint to a model folder, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from verl_llds.data.files import read_json, replacing
from verl_llds.errors import ExportError, RunFolderError
from verl_llds.evaluation.folder import SUMMARY
from verl_llds.evaluation.header import versions
from verl_llds.evaluation.model import fingerprint
from verl_llds.export.card import CONFIG, CURVES, Card
from verl_llds.export.checkpoint import check_room, find_checkpoint
from verl_llds.export.curves import draw_curves
from verl_llds.export.recipe import Recipe, find_run, read_recipe
from verl_llds.export.weights import write_weights
from verl_llds.preflight.run_folder import FILE, read_claim
from verl_llds.report.run_folder import read_run


class _Record(NamedTuple):
    """What a run left of itself, for the card."""

    recipe: Recipe | None
    """Its configuration."""
    metrics: dict[int, dict[str, float]]
    """What it logged, by step."""
    lacks: list[str]
    """What the card will lack of it, in words."""


def export(checkpoint: Path, out: Path, *, run: Path | None, evaluation: Path | None, name: str) -> list[str]:
    """Make a model folder.

    Args:
        checkpoint: ``global_step_N``, or the folder of all checkpoints.
        out: the folder, which must be new or empty; with ``evaluation`` it may be an earlier export of the checkpoint,
            whose card is then written anew.
        run: the run's folder, for recipe and curves; None looks for it where the checkpoint lies.
        evaluation: folder of an evaluation of the exported model, for the table.
        name: title of the card.

    Returns:
        What the card lacks, in words.

    Raises:
        LLDSError: before anything is merged, if part of it is not there; or if the merging fails, or the evaluation is
            of another model.
    """
    found = find_checkpoint(checkpoint)
    record = _read_record(found.actor.parent.parent, run)
    results = _results(evaluation) if evaluation is not None else None
    if results is not None and (out / "config.json").is_file():
        _check_same(results, out)
        _describe(out, name, found.step, record, results)
        return record.lacks
    check_room(found, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = out.with_name(f".{out.name}.building")
    # Left by an export that was killed.
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        write_weights(found, building)
        if results is not None:
            _check_same(results, building)
        _describe(building, name, found.step, record, results)
        if out.exists():
            out.rmdir()
        os.replace(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return record.lacks


def _read_record(checkpoints: Path, run: Path | None) -> _Record:
    """Read what is there of the run that made a folder of checkpoints.

    Raises:
        LLDSError: for what is no record of one run; or, in a folder that the user named, for the lack of one.
    """
    found = run if run is not None else find_run(checkpoints)
    if found is None:
        return _Record(None, {}, [f"recipe, hashes and curves: {checkpoints} has no .hydra/config.yaml, give --run"])
    lacks = []
    claim = read_claim(checkpoints)
    if claim is None:
        lacks.append(f"the hashes of the questions: the run left no {FILE} in {checkpoints}")
    elif claim.is_mixed:
        lacks.append(f"a sure origin: {checkpoints} holds checkpoints of several experiments, the recipe is the last's")
    try:
        metrics = read_run(found).metrics
    except RunFolderError as error:
        if run is not None:
            raise
        metrics = {}
        lacks.append(f"curves: {error}")
    return _Record(read_recipe(found, claim.questions if claim is not None else {}), metrics, lacks)


def _describe(folder: Path, name: str, step: int, record: _Record, results: dict[str, Any] | None) -> None:
    """Write a model folder's card, and what it shows."""
    recipe, has_curves = record.recipe, draw_curves(record.metrics, folder / CURVES)
    if recipe is not None:
        (folder / CONFIG).write_text(recipe.text, encoding="utf-8")
    card = Card(name=name, step=step, versions=versions(), recipe=recipe, has_curves=has_curves, evaluation=results)
    with replacing(folder / "README.md") as temporary:
        temporary.write_text(card.render(), encoding="utf-8")


def _check_same(results: dict[str, Any], folder: Path) -> None:
    """Refuse the numbers of another model than the one in a folder.

    Raises:
        ExportError: if the evaluated model's fingerprint is another.
    """
    evaluated, exported = str(results["settings"]["model"]), fingerprint(folder)
    if evaluated.split()[-1] != exported:
        raise ExportError(
            f"--eval is of another model ({evaluated}) than this checkpoint's ({exported}): export, evaluate the "
            "folder, then start this command again"
        )


def _results(folder: Path) -> dict[str, Any]:
    values = read_json(folder / SUMMARY)
    if values is None or "summary" not in values:
        raise ExportError(f"{folder} has no {SUMMARY} of a finished evaluation: let `verl-llds eval` end first")
    return values
