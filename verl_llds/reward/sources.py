"""The seven question sets of Search-R1 and their names.

A row's ``data_source`` is the set's name in Search-R1's and FlashRAG's files (``nq``) and has a prefix in verl's
(``searchR1_nq``). Sizes are those of the merged test file that Search-R1 publishes from FlashRAG's sets: a set's test
split, or its dev split where the test answers are not public.
"""

from __future__ import annotations

from dataclasses import dataclass

_VERL_PREFIX = "searchR1_"


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionSet:
    """One question set as it is evaluated."""

    name: str
    """Canonical name: FlashRAG's."""
    split: str
    """Split of FlashRAG's that serves as test set."""
    num_questions: int
    """Questions in that split."""


SINGLE_HOP = (
    QuestionSet(name="nq", split="test", num_questions=3_610),
    QuestionSet(name="triviaqa", split="test", num_questions=11_313),
    QuestionSet(name="popqa", split="test", num_questions=14_267),
)
"""One passage can hold the answer."""

MULTI_HOP = (
    QuestionSet(name="hotpotqa", split="dev", num_questions=7_405),
    QuestionSet(name="2wikimultihopqa", split="dev", num_questions=12_576),
    QuestionSet(name="musique", split="dev", num_questions=2_417),
    QuestionSet(name="bamboogle", split="test", num_questions=125),
)
"""The answer needs facts of several passages."""

SEVEN_SETS = SINGLE_HOP + MULTI_HOP
"""All seven, in the order of the papers' tables and of Search-R1's test file: 51,713 questions."""

_NAMES = frozenset(one.name for one in SEVEN_SETS)


def canonical_source(name: str) -> str:
    """Return the canonical name of a row's ``data_source``, or the name itself if it is none of the seven sets."""
    bare = name.removeprefix(_VERL_PREFIX)
    return bare if bare in _NAMES else name
