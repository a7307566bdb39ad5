"""Which trajectories of a run the page shows: as many as fit, whole groups, spread over its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from verl_llds.report.dumps import read_dump
from verl_llds.report.run_folder import Run
from verl_llds.report.trajectories import Split, Trajectory, from_token_row
from verl_llds.trajectories.reader import list_steps, read_step

_LEAST_PER_STEP = 40
"""Trajectories below which a step is rather left out than cut shorter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFiles:
    """Where the trajectories of one step lie."""

    split: Split
    """What they are from."""
    step: int
    """The training step."""
    dump: Path | None = None
    """verl's own dump."""
    recorded: Path | None = None
    """The folder with token-level records of the step."""


def list_files(run: Run) -> list[StepFiles]:
    """Return every step that has trajectories, in order."""
    recorded = list_steps(run.trajectories) if run.trajectories else []
    training = [
        StepFiles(
            split=Split.TRAINING,
            step=step,
            dump=run.rollouts.get(step),
            recorded=run.trajectories if step in recorded else None,
        )
        for step in sorted({*recorded, *run.rollouts})
    ]
    evaluations = [
        StepFiles(split=Split.EVALUATION, step=step, dump=path) for step, path in sorted(run.validations.items())
    ]
    return training + evaluations


def gather(
    runs: Sequence[Run], limit: int, progress: Callable[[list[tuple[int, StepFiles]]], Iterator[tuple[int, StepFiles]]]
) -> list[tuple[int, Trajectory]]:
    """Return at most ``limit`` trajectories of all runs, each with its run's number.

    Every file gets an equal share. Where that is too little to be worth reading, files are left out, evenly over
    the steps, token-level records last.

    Args:
        runs: in the order of the page.
        limit: at least 1.
        progress: called with the files; yields them, and may show how far it is.

    Raises:
        RunFolderError: a file is broken.
    """
    files = [(number, one) for number, run in enumerate(runs) for one in list_files(run)]
    chosen = _spread(files, max(1, limit // _LEAST_PER_STEP))
    found: list[tuple[int, Trajectory]] = []
    for place, (number, one) in enumerate(progress(chosen)):
        share = (limit - len(found)) // (len(chosen) - place)
        found += [(number, trajectory) for trajectory in _whole_groups(_read(one), share)]
    return found


def _spread(files: list[tuple[int, StepFiles]], most: int) -> list[tuple[int, StepFiles]]:
    if len(files) <= most:
        return files
    ranked = [place for place, (_, one) in enumerate(files) if one.recorded]
    ranked = _evenly(ranked, most)
    others = [place for place in range(len(files)) if place not in set(ranked) and not files[place][1].recorded]
    return [files[place] for place in sorted(ranked + _evenly(others, most - len(ranked)))]


def _evenly(places: list[int], num: int) -> list[int]:
    if num >= len(places) or not places:
        return places[:num]
    return [places[int(which * len(places) / num)] for which in range(num)]


def _read(files: StepFiles) -> Iterator[Trajectory]:
    """Yield a step's trajectories, token-level records first, none twice."""
    known: set[str] = set()
    if files.recorded is not None:
        for row in read_step(files.recorded, files.step):
            known.add(row["key"])
            yield from_token_row(row)
    if files.dump is not None:
        for trajectory in read_dump(files.dump, files.split):
            if not trajectory.key or trajectory.key not in known:
                yield trajectory


def _whole_groups(trajectories: Iterator[Trajectory], limit: int) -> list[Trajectory]:
    """Return groups until the next one would be too many; at least one, cut if it must be."""
    found: list[Trajectory] = []
    for _, members in groupby(trajectories, key=lambda one: one.group):
        siblings = list(islice(members, limit + 1))
        if len(found) + len(siblings) > limit:
            return found or siblings[:limit]
        found += siblings
    return found
