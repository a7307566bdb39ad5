"""Question and gold answers of a dataset row, in the shapes people train on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def question_of(row: Mapping[str, Any]) -> str:
    """Return the question of a row: its own column, that of ``extra_info``, or the last user message."""
    extra = row.get("extra_info")
    named = row.get("question") or (extra.get("question") if isinstance(extra, Mapping) else None)
    if named:
        return str(named)
    messages = row.get("raw_prompt")
    users = [message for message in ([] if messages is None else messages) if message.get("role") == "user"]
    return _message_text(users[-1].get("content")) if users else ""


def gold_answers_of(reward_model: Any) -> list[str]:
    """Return the accepted answers that a row's ``reward_model`` names: one, several, or none."""
    truth = reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None
    target = truth.get("target") if isinstance(truth, Mapping) else truth
    if target is None:
        return []
    return [target] if isinstance(target, str) else [str(one) for one in np.atleast_1d(np.asarray(target, object))]


def _message_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [] if isinstance(part, Mapping))
