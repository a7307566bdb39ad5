"""Whose checkpoints a folder holds, so that no run goes on from another experiment's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from verl_llds.data.files import write_json
from verl_llds.doctor.findings import Finding, Status
from verl_llds.errors import ConfigError, RunFolderError
from verl_llds.preflight.identity import find_differences, hash_questions, name_questions, run_identity

FILE = "experiment.json"
"""Beside verl's ``latest_checkpointed_iteration.txt``."""

_LATEST = "latest_checkpointed_iteration.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """What a run leaves in its checkpoint folder before it starts."""

    settings: dict[str, Any]
    """Those that make it this experiment, see `run_identity`."""
    questions: dict[str, str]
    """SHA-256 of each file of questions when the run was last started, by its name in the configuration."""
    is_mixed: bool
    """Whether checkpoints of another experiment lie there too."""


def read_claim(folder: Path) -> Claim | None:
    """Return what a run left in its checkpoint folder, or None.

    Raises:
        RunFolderError: for a file that is something else.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return Claim(
            settings=dict(values["settings"]), questions=dict(values["questions"]), is_mixed=bool(values["is_mixed"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file} cannot be read ({type(error).__name__}: {error}): remove it") from error


def claim_folder(config: DictConfig) -> None:
    """Leave the run's settings in its checkpoint folder, whole or not at all.

    Raises:
        ConfigError: if nothing can be written there.
    """
    folder = Path(config.trainer.default_local_dir)
    is_mixed = _latest_step(folder) is not None and bool(_foreign(folder, config)) and not _is_adopted(config)
    claim = Claim(settings=run_identity(config), questions=hash_questions(config), is_mixed=is_mixed)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, asdict(claim))
    except OSError as error:
        raise ConfigError(
            f"trainer.default_local_dir={folder} cannot be written to ({error}): set it to a folder that can"
        ) from error


def check_folder(config: DictConfig) -> Iterator[Finding]:
    """Compare the run with the one that the checkpoint folder was made for.

    Only a resume that would read another experiment's checkpoints fails. Without a checkpoint there is nothing to mix
    up, whoever has claimed the folder.
    """
    folder, mode = Path(config.trainer.default_local_dir), config.trainer.resume_mode
    if mode == "resume_path":
        yield _check_named(config)
    step = _latest_step(folder)
    if step is None:
        text = f"none yet in {folder}" if folder.is_dir() else f"a new folder, {folder}"
        yield Finding(Status.OK, "checkpoints", text)
        return
    foreign = _foreign(folder, config)
    if foreign and mode == "auto":
        text = (
            f"{folder}, at step {step}, {foreign}: set trainer.experiment_name or trainer.default_local_dir to a "
            "folder of its own; or, to go on from it all the same, trainer.resume_mode=resume_path "
            f"trainer.resume_from_path={folder / f'global_step_{step}'}"
        )
        yield Finding(Status.FAIL, "checkpoints", text)
    elif foreign and not _is_adopted(config):
        text = (
            f"{folder}, at step {step}, {foreign}; this run saves among its checkpoints: set trainer.default_local_dir "
            "to a folder of its own"
        )
        yield Finding(Status.WARN, "checkpoints", text)
    elif mode == "auto":
        yield Finding(Status.OK, "checkpoints", f"goes on after step {step} in {folder}")
    elif mode == "disable":
        yield Finding(Status.OK, "checkpoints", f"{folder}, from the start")


def _check_named(config: DictConfig) -> Finding:
    """Look at the checkpoint that the user names, which may be another experiment's on purpose."""
    named = config.trainer.get("resume_from_path")
    if not isinstance(named, str) or "global_step_" not in named or not Path(named).is_dir():
        text = (
            f"trainer.resume_mode=resume_path, but trainer.resume_from_path={named} is no folder global_step_N of a run"
        )
        return Finding(Status.FAIL, "checkpoints", text)
    foreign = _foreign(Path(named).parent, config)
    if foreign:
        return Finding(Status.WARN, "checkpoints", f"goes on after {named}, whose folder {foreign}")
    return Finding(Status.OK, "checkpoints", f"goes on after {named}")


def _is_adopted(config: DictConfig) -> bool:
    """Return whether the user has named the folder's own last checkpoint as the one to go on from."""
    folder, step = Path(config.trainer.default_local_dir), _latest_step(Path(config.trainer.default_local_dir))
    named = config.trainer.get("resume_from_path")
    return (
        config.trainer.resume_mode == "resume_path"
        and isinstance(named, str)
        and Path(named).resolve() == (folder / f"global_step_{step}").resolve()
    )


def _latest_step(folder: Path) -> int | None:
    """Return the step from which verl would go on with ``trainer.resume_mode=auto``, or None."""
    latest = folder / _LATEST
    step = latest.read_text(encoding="utf-8").strip() if latest.is_file() else ""
    return int(step) if step.isdecimal() and (folder / f"global_step_{step}").exists() else None


def _foreign(folder: Path, config: DictConfig) -> str:
    """Return in words why the checkpoints of a folder are not this experiment's; nothing if they are."""
    try:
        claim = read_claim(folder)
    except RunFolderError as error:
        return f"does not say whose it is ({error})"
    if claim is None:
        return "was left by a run that did not say its settings"
    differences = find_differences(claim.settings, run_identity(config)) + _other_questions(claim, config)
    if differences:
        return f"belongs to another experiment ({'; '.join(differences)})"
    return "holds checkpoints of several experiments" if claim.is_mixed else ""


def _other_questions(claim: Claim, config: DictConfig) -> list[str]:
    """Return in words which files to train on have other contents than when the run was started."""
    now = hash_questions(config)
    pairs = {name: (claim.questions.get(name), now[name]) for name in name_questions(config, "train_files")}
    return [
        f"{name} had the sha256 {was[:12]}, has now {is_now[:12]}"
        for name, (was, is_now) in pairs.items()
        if was and is_now and was != is_now
    ]
