"""The question files of a run: whether they are there and hold what training reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig

from verl_llds.doctor.findings import Finding, Status


def check_questions(config: DictConfig) -> Iterator[Finding]:
    """Read the columns and the first row of every file to train and to evaluate on."""
    for key, least in (("train_files", config.data.train_batch_size), ("val_files", 1)):
        chosen = config.data[key]
        paths = list(chosen) if isinstance(chosen, ListConfig) else [chosen]
        for path in paths:
            yield check_file(Path(path).expanduser(), config.data.prompt_key, least if len(paths) == 1 else 1)


def check_file(path: Path, prompt_key: str, least: int) -> Finding:
    """Return what there is to say of one parquet file.

    Args:
        path: the file.
        prompt_key: verl's ``data.prompt_key``, the column of the chats.
        least: questions there must be, one batch of the trainer's.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    if not path.is_file():
        remedy = "make it with `verl-llds data prepare --dataset nq_hotpotqa --out DIR` (or nq, ...) and set DATA=DIR"
        return Finding(Status.FAIL, "data", f"{path} is not there: {remedy}")
    try:
        with pq.ParquetFile(path) as file:
            columns = {prompt_key, "data_source", "reward_model"}
            missing = sorted(columns - set(file.schema_arrow.names))
            num_rows = file.metadata.num_rows
            row = {} if missing or not num_rows else next(file.iter_batches(1, columns=sorted(columns))).to_pylist()[0]
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        return Finding(Status.FAIL, "data", f"{path} cannot be read as parquet ({reason}): make it anew")
    problem = _problem(missing, num_rows, row, prompt_key, least)
    if problem:
        return Finding(Status.FAIL, "data", f"{path}: {problem}; `verl-llds data prepare` writes what is needed")
    return Finding(Status.OK, "data", f"{path}, {num_rows:,} questions")


def _problem(missing: list[str], num_rows: int, row: dict[str, Any], prompt_key: str, least: int) -> str:
    if missing:
        return f"no column {', '.join(missing)}"
    if num_rows < least:
        return f"{num_rows} questions, but one step needs {least}"
    prompt, reward_model = row[prompt_key], row["reward_model"]
    if not (isinstance(prompt, list) and prompt and isinstance(prompt[0], dict) and "content" in prompt[0]):
        return f"column {prompt_key} holds no chats (lists of role and content)"
    truth = reward_model.get("ground_truth") if isinstance(reward_model, dict) else None
    if not (isinstance(truth, dict) and truth.get("target")):
        return "column reward_model has no ground_truth.target with the right answers"
    return ""
