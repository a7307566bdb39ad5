"""Result directories that are whole or not there, and are made again only when their inputs change."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

FINGERPRINT_FILE = "fingerprint.json"


def fingerprint(*, code: Sequence[Path], settings: Mapping[str, Any], packages: Sequence[str]) -> dict[str, Any]:
    """Describe the inputs of a result: hashes of the code files, the settings, the package versions."""
    return {
        "code": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(code)},
        "settings": json.loads(json.dumps(settings, sort_keys=True)),
        "packages": {name: version(name) for name in sorted(packages)},
    }


def is_current(directory: Path, inputs: Mapping[str, Any]) -> bool:
    """Tell whether the directory holds a whole result of exactly these inputs."""
    try:
        return bool(json.loads((directory / FINGERPRINT_FILE).read_text(encoding="utf-8")) == inputs)
    except (OSError, ValueError):
        return False


def rebuild(directory: Path, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    """Make a result beside its place and swap it in; the fingerprint is written last.

    A kill before the swap leaves the old result and a stray temporary folder, a kill within it no result at
    all; neither is ever taken for a new one.
    """
    if directory.exists() and not (directory / FINGERPRINT_FILE).exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} holds something else: give an empty or a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    # The suffixes are hidden names, so a glob over results does not see a half-made one.
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}.building-", dir=directory.parent))
    try:
        building.chmod(0o755)
        make(building)
        (building / FINGERPRINT_FILE).write_text(json.dumps(inputs, indent=1) + "\n", encoding="utf-8")
        if directory.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{directory.name}.retired-", dir=directory.parent))
            os.replace(directory, retired / "old")
            os.replace(building, directory)
            shutil.rmtree(retired)
        else:
            os.replace(building, directory)
    finally:
        shutil.rmtree(building, ignore_errors=True)
