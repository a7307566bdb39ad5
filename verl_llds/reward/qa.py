"""Answers compared with targets as Search-R1, SQuAD and FlashRAG do it: exact match, sub-EM and token F1.

Normalisation and EM are Search-R1's (``verl/utils/reward_score/qa_em.py``), which are SQuAD's; the best of several
targets counts. What differs:

* Search-R1's scorer reads prompt and response together and therefore needs two ``<answer>`` matches (the prompt
  holds an example). Here the prediction is the answer of the turn that answered
  (`verl_llds.search.trajectory.Trajectory.answer`), so neither the prompt nor a retrieved passage can be one.
* A blank answer scores 0. Search-R1's EM accepts it for a target that normalises to nothing, such as "The".
* A target that normalises to nothing is met by an answer that does so too ("a" for "The": EM 1, as in Search-R1)
  and by no other, in all three metrics. Search-R1's sub-EM finds it in every answer; FlashRAG's F1 of two texts
  without tokens is 0, SQuAD 2.0's is 1. So EM is at most sub-EM and at most F1, whatever the target.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED_ANSWERS = frozenset({"yes", "no", "noanswer"})
"""Right as a whole or not at all."""


def normalize_answer(text: str) -> str:
    """Lower-case, drop ASCII punctuation and English articles, squeeze white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalize_targets(targets: str | Iterable[str]) -> list[str]:
    """Return the normalised texts of one target or of several."""
    if isinstance(targets, str):
        # A lone target is itself iterable, and every one-letter answer in it would match.
        targets = [targets]
    return [normalize_answer(target) for target in targets]


def exact_match(prediction: str | None, targets: str | Iterable[str]) -> float:
    """Return 1.0 if the normalised prediction equals the normalised target or any of several, else 0.0."""
    answer = _normalized(prediction)
    return float(answer is not None and answer in normalize_targets(targets))


def substring_match(prediction: str | None, targets: str | Iterable[str]) -> float:
    """Return 1.0 if the normalised prediction contains the normalised target or any of several, else 0.0.

    Search-R1's ``subem_check``. Letters are compared, words are not: "Jerome" contains "Rome".
    """
    answer = _normalized(prediction)
    if answer is None:
        return 0.0
    return float(any(target in answer if target else not answer for target in normalize_targets(targets)))


def f1_score(prediction: str | None, targets: str | Iterable[str]) -> float:
    """Return the harmonic mean of token precision and recall, in [0, 1], of the target it is highest for.

    SQuAD's F1 of normalised texts split at white space, tokens counted as often as they occur. As in HotpotQA's
    evaluation and FlashRAG's ``F1_Score``, "yes", "no" and "noanswer" are compared as a whole: where either text is
    one of them and the other differs, that target gives 0 ("no" earns nothing for "no idea").
    """
    answer = _normalized(prediction)
    if answer is None:
        return 0.0
    return max((_token_f1(answer, target) for target in normalize_targets(targets)), default=0.0)


def _normalized(prediction: str | None) -> str | None:
    """Return the normalised prediction, or None if there is none."""
    return normalize_answer(prediction) if prediction is not None and prediction.strip() else None


def _token_f1(answer: str, target: str) -> float:
    if answer == target:
        return 1.0
    if answer in _CLOSED_ANSWERS or target in _CLOSED_ANSWERS:
        return 0.0
    given, wanted = Counter(answer.split()), Counter(target.split())
    # 2PR / (P + R) with P = same / given and R = same / wanted.
    return 2 * (given & wanted).total() / (given.total() + wanted.total())
