"""The laptop job from nothing to a before/after table; called by recipes/laptop_llds.sh.

    python examples/laptop_search/run.py --out DIR [-- HYDRA OVERRIDES]

Phases: world, index, policy, retriever, evaluation + training + evaluation in one verl run, table. The first
three are kept in DIR and made again only when what they are made from changes. Each call trains anew, in a
directory of its own under DIR/runs. Other jobs of the same kind are a `Job` of their own.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import Run, own_processes
from progress import explain_failure, follow
from report import dumps, read_dump, table
from rich.console import Console

HERE = Path(__file__).resolve().parent
READY_TIMEOUT_S = 180.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One step of the preparation."""

    title: str
    """What it is, for the terminal."""
    command: Sequence[str]
    """What is run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What distinguishes one job on a small world from another."""

    experiment: str
    """Name of the file in config/experiment."""
    num_steps: int
    """Its ``trainer.total_training_steps``."""
    phases: Callable[[Path], Sequence[Phase]]
    """What makes world, index and policy under a directory, in order, each cached by its own command."""
    overrides: Sequence[str] = ()
    """Hydra overrides that the machine asks for; those of the command line come after them."""


def laptop_phases(out: Path) -> list[Phase]:
    """Return what makes the laptop's world, index and cold-started policy."""
    build = [sys.executable, str(HERE / "build.py")]
    return [
        Phase(title="world: passages and questions", command=[*build, "world", f"--out={out / 'world'}"]),
        # Beside other work, two threads waiting for each other took three times the CPU time.
        index_phase(out, "--threads=1"),
        Phase(
            title="policy: cold start by supervised training",
            command=[*build, "policy", f"--world={out / 'world'}", f"--out={out / 'policy'}"],
        ),
    ]


def index_phase(out: Path, *options: str) -> Phase:
    """Return what encodes a world's passages."""
    paths = [f"--corpus={out / 'world' / 'passages.jsonl'}", f"--out={out / 'index'}"]
    command = [script("retriever-server"), "index", "--overwrite", *options, *paths]
    return Phase(title="index: encoding the passages", command=command)


def main(job: Job) -> int:
    """Run a job from the command line's arguments; return the exit status."""
    own, overrides = split(sys.argv[1:])
    parser = argparse.ArgumentParser(description=f"Prepare, evaluate, train and evaluate: {job.experiment}.")
    parser.add_argument("--out", type=Path, required=True, help="directory for everything made")
    out: Path = parser.parse_args(own).out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with own_processes() as run:
        run_dir = new_run_dir(out)
        prepare(run, out, overrides, job)
        with phase("retriever: serving the index"):
            url = serve(run, out, run_dir)
        status = train(run, out, run_dir, url, overrides, job)
    if status == 0:
        summarise(out, run_dir)
        print(f"All of it took {time.monotonic() - started:.0f} s.")
    return status


def prepare(run: Run, out: Path, overrides: Sequence[str], job: Job) -> None:
    """Make the world, its index and the policy, unless they are there."""
    if overrides and not (out / "policy").exists():
        # The next phases take minutes: a typo should not wait for them.
        with phase("configuration: checking the overrides"):
            _must(run.call([script("verl-llds"), "check", f"experiment={job.experiment}", *job.overrides, *overrides]))
    for part in job.phases(out):
        with phase(part.title):
            _must(run.call(part.command))


def serve(run: Run, out: Path, run_dir: Path) -> str:
    """Start the retriever on a free loopback port and return its URL once it answers."""
    ready, log = run_dir / "retriever.json", run_dir / "retriever.log"
    command = [script("retriever-server"), "serve", "--index", str(out / "index"), "--port", "0"]
    # One thread: the other core belongs to the policy.
    process = run.start([*command, "--threads", "1", "--ready-file", str(ready)], log=log)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the retriever did not start; the end of {log}:\n{explain_failure(log)}")
        time.sleep(0.2)
    url = str(json.loads(ready.read_text())["url"])
    print(f"  {url}")
    return url


def train(run: Run, out: Path, run_dir: Path, url: str, overrides: Sequence[str], job: Job) -> int:
    """Train and evaluate in one run of verl's trainer; return its exit status."""
    log, metrics = run_dir / "train.log", run_dir / "metrics.jsonl"
    command = [sys.executable, "-m", "verl.trainer.main_ppo", f"experiment={job.experiment}"]
    command += [f"laptop.world={out / 'world'}", f"laptop.policy={out / 'policy'}", f"laptop.run={run_dir}"]
    command += [f"search.url={url.rstrip('/')}/retrieve", *job.overrides, *overrides]
    print(f"training: {shlex.join(command)}\n  log: {log}")
    process = run.start(command, log=log, env={"VERL_FILE_LOGGER_PATH": str(metrics), "HYDRA_FULL_ERROR": "1"})
    follow(process, metrics, _num_steps(overrides, job.num_steps))
    status = process.wait()
    if status != 0:
        print(
            f"training failed with status {status}:\n{explain_failure(log)}\n  in full: {log}",
            file=sys.stderr,
        )
        return 1
    return 0


def summarise(out: Path, run_dir: Path) -> None:
    """Print the table and where everything lies."""
    evaluations = dumps(run_dir / "evaluations")
    if len(evaluations) > 1:
        first, last = evaluations[0], evaluations[-1]
        Console().print(table(read_dump(first), read_dump(last), int(last.stem)))
    print(f"world, index, policy before training: {out}")
    print(f"this run's log, metrics, evaluations and checkpoint: {run_dir}")


@contextmanager
def phase(title: str) -> Iterator[None]:
    """Say what is done and how long it took."""
    print(title, flush=True)
    started = time.monotonic()
    yield
    print(f"  done in {time.monotonic() - started:.1f} s", flush=True)


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments before and after ``--``."""
    if "--" not in arguments:
        return list(arguments), []
    middle = arguments.index("--")
    return list(arguments[:middle]), list(arguments[middle + 1 :])


def _num_steps(overrides: Sequence[str], default: int) -> int:
    """Return the number of training steps, for the progress bar."""
    name = "trainer.total_training_steps="
    given = [override.removeprefix(name) for override in overrides if override.startswith(name)]
    return int(given[-1]) if given and given[-1].isdigit() else default


def new_run_dir(out: Path) -> Path:
    """Return a fresh numbered directory under ``out/runs``."""
    runs = out / "runs"
    runs.mkdir(exist_ok=True)
    number = 1 + max((int(path.name) for path in runs.iterdir() if path.name.isdigit()), default=0)
    directory = runs / f"{number:03d}"
    directory.mkdir()
    return directory


def script(name: str) -> str:
    """Return the path of a console script of this environment."""
    return str(Path(sys.executable).parent / name)


def _must(status: int) -> None:
    if status != 0:
        raise SystemExit(status)


LAPTOP = Job(experiment="laptop_llds", num_steps=20, phases=laptop_phases)
"""The job of recipes/laptop_llds.sh."""


if __name__ == "__main__":
    try:
        sys.exit(main(LAPTOP))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
