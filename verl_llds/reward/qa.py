"""Exact match as Search-R1 scores it, of the policy's own answer.

Deviation from Search-R1: its scorer reads prompt and response together and therefore needs two ``<answer>``
matches (the prompt holds an example). Here the prediction is the answer of the turn that answered
(`verl_llds.search.trajectory.Trajectory.answer`), so neither the prompt nor a retrieved passage can be one.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Lower-case, drop ASCII punctuation and English articles, squeeze white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str | None, targets: str | Iterable[str]) -> float:
    """Return 1.0 if the normalised prediction equals the normalised target or any of several, else 0.0."""
    if prediction is None:
        return 0.0
    if isinstance(targets, str):
        # A lone target is itself iterable, and every one-letter answer in it would match.
        targets = [targets]
    normalized = normalize_answer(prediction)
    return float(any(normalized == normalize_answer(target) for target in targets))
