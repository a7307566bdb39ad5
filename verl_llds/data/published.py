"""What is published of the seven question sets and of the passages: places, file names and counts.

Every count here is checked against what is read. A split may have several: FlashRAG's collection, which Search-R1
trains on, holds fewer training questions of some sets than their authors publish. The test questions are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from verl_llds.reward.sources import SEVEN_SETS, QuestionSet

FLASHRAG_REPO = "RUC-NLPIR/FlashRAG_datasets"
"""One folder a set, one JSONL file a split (arXiv 2405.13576)."""

MERGED_REPO = "PeterJinGo/nq_hotpotqa_train"
"""Search-R1's ``train.parquet`` and ``test.parquet``, made from FlashRAG's files."""


class Split(str, Enum):
    """What questions are for."""

    TRAIN = "train"
    """To train on."""
    TEST = "test"
    """To evaluate on: a set's test split, or its dev split where the test answers are not public."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """How many questions a split holds, according to whom."""

    num_questions: int
    """Questions in the split."""
    edition: str
    """Who publishes that many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedSet:
    """One question set."""

    test: QuestionSet
    """Its name and its test questions."""
    train: tuple[Count, ...] = ()
    """Its training questions; none if it has test questions only."""
    authors_train: tuple[str, ...] = ()
    """What its authors call the file with the training questions."""
    authors_test: tuple[str, ...] = ()
    """What its authors call the file with the questions that serve as test."""

    @property
    def name(self) -> str:
        """FlashRAG's name."""
        return self.test.name

    def counts(self, split: Split) -> tuple[Count, ...]:
        """The published sizes of a split."""
        if split is Split.TRAIN:
            return self.train
        return (Count(num_questions=self.test.num_questions, edition=f"the published {self.test.split} split"),)

    def authors_files(self, split: Split) -> tuple[str, ...]:
        """The authors' names of a split's file, the first one first."""
        return self.authors_train if split is Split.TRAIN else self.authors_test

    def hub_file(self, split: Split) -> str:
        """Where the split lies in FlashRAG's repository."""
        return f"{self.name}/{'train' if split is Split.TRAIN else self.test.split}.jsonl"


_TEST = {one.name: one for one in SEVEN_SETS}

# FlashRAG's counts: the table "Datasets" of its README (github.com/RUC-NLPIR/FlashRAG, read at 1ee5249). The authors':
# nq         NQ-open in github.com/google-research-datasets/natural-questions; FlashRAG keeps 79,168 of the 87,925
# triviaqa   arXiv 1705.03551, unfiltered; its dev split is what FlashRAG calls test, and FlashRAG's train (78,785) and
#            dev (8,837) are its training split
# hotpotqa   arXiv 1809.09600, table 1: 90,447 are train-easy, -medium and -hard together
# 2wiki      arXiv 2011.01060, table 2; FlashRAG keeps 15,000
# musique    arXiv 2108.00573, MuSiQue-Ans
# popqa      arXiv 2212.10511; no training split
# bamboogle  arXiv 2210.03350; no training split
PUBLISHED = {
    one.name: one
    for one in (
        PublishedSet(
            test=_TEST["nq"],
            train=(Count(num_questions=79_168, edition="FlashRAG"), Count(num_questions=87_925, edition="NQ-open")),
            authors_train=("NQ-open.train.jsonl",),
            authors_test=("NQ-open.dev.jsonl",),
        ),
        PublishedSet(
            test=_TEST["triviaqa"],
            train=(
                Count(num_questions=78_785, edition="FlashRAG"),
                Count(num_questions=87_622, edition="TriviaQA unfiltered"),
            ),
            authors_train=("unfiltered-web-train.json",),
            authors_test=("unfiltered-web-dev.json",),
        ),
        PublishedSet(test=_TEST["popqa"], authors_test=("popQA.tsv",)),
        PublishedSet(
            test=_TEST["hotpotqa"],
            train=(Count(num_questions=90_447, edition="HotpotQA and FlashRAG"),),
            authors_train=("hotpot_train_v1.1.json",),
            authors_test=("hotpot_dev_distractor_v1.json", "hotpot_dev_fullwiki_v1.json"),
        ),
        PublishedSet(
            test=_TEST["2wikimultihopqa"],
            train=(
                Count(num_questions=15_000, edition="FlashRAG"),
                Count(num_questions=167_454, edition="2WikiMultihopQA"),
            ),
            authors_train=("train.json",),
            authors_test=("dev.json",),
        ),
        PublishedSet(
            test=_TEST["musique"],
            train=(Count(num_questions=19_938, edition="MuSiQue-Ans and FlashRAG"),),
            authors_train=("musique_ans_v1.0_train.jsonl",),
            authors_test=("musique_ans_v1.0_dev.jsonl",),
        ),
        PublishedSet(test=_TEST["bamboogle"], authors_test=("Bamboogle Prerelease - Sheet1.csv",)),
    )
}
"""The seven sets by name, in the order of the papers' tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """What ``--dataset`` names: the sets that make the training file and those that make the test file."""

    name: str
    """Value of ``--dataset``."""
    train: tuple[str, ...]
    """Sets in the training file, in order."""
    test: tuple[str, ...]
    """Sets in the test file, in order."""
    hub_merged: bool = False
    """Whether the hub has it merged, in `MERGED_REPO`."""

    def sets(self, split: Split) -> tuple[PublishedSet, ...]:
        """The sets of a split's file, in order."""
        return tuple(PUBLISHED[name] for name in (self.train if split is Split.TRAIN else self.test))


def _mixtures() -> tuple[Mixture, ...]:
    alone = (
        Mixture(name=one.name, train=(one.name,) if one.train else (), test=(one.name,)) for one in PUBLISHED.values()
    )
    return (
        *alone,
        # Search-R1's and the LLDS paper's training data: 169,615 training and 51,713 test questions.
        Mixture(name="nq_hotpotqa", train=("nq", "hotpotqa"), test=tuple(PUBLISHED), hub_merged=True),
        Mixture(name="seven", train=(), test=tuple(PUBLISHED)),
    )


MIXTURES = {mixture.name: mixture for mixture in _mixtures()}
"""Everything that can be prepared, by name."""


CORPUS_REPO = "PeterJinGo/wiki-18-corpus"
CORPUS_FILE = "wiki-18.jsonl.gz"
INDEX_REPO = "PeterJinGo/wiki-18-e5-index"
INDEX_PARTS = ("part_aa", "part_ab")

NUM_PASSAGES = 21_015_324
"""Passages of 100 words: DPR's cut of Wikipedia of December 2018 (arXiv 2004.04906)."""

INDEX_DIM = 768
"""Dimension of ``intfloat/e5-base-v2``, which made the index."""
