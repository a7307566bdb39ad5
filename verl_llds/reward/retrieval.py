"""Whether what was retrieved holds the answer: what Search-R1 v0.3 rewards a search for (arXiv 2505.15117).

v0.3's ``is_retrieval_correct`` reads each ``<information>`` block as the policy saw it: passages run together with
their headings, cut to the token limit. Here it is the passages themselves, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

from verl_llds.reward.qa import normalize_answer, normalize_targets


def holds_target(passages: Iterable[str], targets: str | Iterable[str]) -> bool:
    """Return whether the normalised text of any passage contains a normalised target.

    Letters are compared, words are not, as in Search-R1. A target that normalises to nothing ("The") is in no
    passage; in Search-R1 it is in every one.
    """
    wanted = [target for target in normalize_targets(targets) if target]
    return any(target in text for text in map(normalize_answer, passages) for target in wanted)
