"""Which trajectories of a run the page shows: as many as fit, whole groups, spread over its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from verl_llds.diagnostics.settings import DiagnosticsConfig
from verl_llds.errors import RunFolderError
from verl_llds.report.dumps import read_dump
from verl_llds.report.metrics_log import parse_json
from verl_llds.report.run_folder import Run
from verl_llds.report.trajectories import Split, Trajectory, from_token_row
from verl_llds.trajectories.reader import list_steps, read_info, read_step, step_path

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """What the page shows, and of how many."""

    rows: list[tuple[int, Trajectory]]
    """Trajectories, each with its run's number."""
    num_found: int
    """Trajectories that all runs left, shown or not."""


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
    runs: Sequence[Run],
    limit: int,
    progress: Callable[[list[tuple[int, StepFiles]]], Iterator[tuple[int, StepFiles]]],
    correct_reward: float | None = None,
) -> Gathered:
    """Return at most ``limit`` trajectories of all runs.

    Every file gets an equal share. Where that is too little to be worth reading, files are left out, evenly over
    the steps, token-level records last.

    Args:
        runs: in the order of the page.
        limit: at least 1.
        progress: called with the files; yields them, and may show how far it is.
        correct_reward: reward from which a trajectory in a dump counts as correct; None asks the run's token-level
            records, which say it of their own.

    Raises:
        RunFolderError: a file is broken.
    """
    files = [(number, one) for number, run in enumerate(runs) for one in list_files(run)]
    chosen = _spread(files, max(1, limit // _LEAST_PER_STEP))
    rewards = [_correct_reward(run) if correct_reward is None else correct_reward for run in runs]
    found: list[tuple[int, Trajectory]] = []
    for place, (number, one) in enumerate(progress(chosen)):
        share = (limit - len(found)) // (len(chosen) - place)
        found += [(number, trajectory) for trajectory in _whole_groups(_read(one, rewards[number]), share)]
    # A last line that lacks its end may be a trajectory all the same.
    return Gathered(rows=found, num_found=max(len(found), sum(_count(one) for _, one in files)))


def _correct_reward(run: Run) -> float:
    """Return what the run called correct, as its token-level records say; without any, the default."""
    steps = list_steps(run.trajectories) if run.trajectories else []
    if run.trajectories is None or not steps:
        return DiagnosticsConfig().correct_reward
    info = read_info(run.trajectories, steps[-1])
    # Earlier versions recorded it for the penalty alone.
    return float(info["correct_reward"] if "correct_reward" in info else info["llds"]["correct_reward"])


def _count(files: StepFiles) -> int:
    """Return how many trajectories a step left; what is both recorded and dumped is one."""
    try:
        recorded: set[str] = set()
        if files.recorded is not None:
            table = pq.read_table(step_path(files.recorded, files.step), columns=["key"])
            recorded.update(table["key"].to_pylist())
        if files.dump is None:
            return len(recorded)
        with files.dump.open("rb") as lines:
            whole = (line for line in lines if line.endswith(b"}\n"))
            return len(recorded) + sum(not recorded or _key(line) not in recorded for line in whole)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"cannot count the trajectories of step {files.step}: {error}") from error


def _key(line: bytes) -> str | None:
    """Return the name of a dumped trajectory; None for a line that is none."""
    try:
        row = parse_json(line)
    except ValueError:
        return None
    key = row.get("uid") if isinstance(row, dict) else None
    return key if isinstance(key, str) else None


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


def _read(files: StepFiles, correct_reward: float) -> Iterator[Trajectory]:
    """Yield a step's trajectories, token-level records first, none twice."""
    known: set[str] = set()
    if files.recorded is not None:
        for row in read_step(files.recorded, files.step):
            known.add(row["key"])
            yield from_token_row(row)
    if files.dump is not None:
        for trajectory in read_dump(files.dump, files.split, correct_reward):
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
