"""The real files of the sets' authors, where they are: their counts, and every row accepted.

They are not part of this repository: they are read from ../shared/data, and the tests skip without them.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_sets import Make

DATA = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not (DATA / "nq_open").is_dir(), reason=f"{DATA} is absent: no published files")

WHOLE = {
    "nq": ("nq_open/NQ-open.dev.jsonl", 3_610, "when was the last time anyone was on the moon?"),
    "hotpotqa": (
        "hotpotqa/hotpot_dev_v1_simplified.json",
        7_405,
        "Were Scott Derrickson and Ed Wood of the same nationality?",
    ),
    "2wikimultihopqa": (
        "2wikimultihopqa/2wikimultihop_test_questions_and_answers.json",
        12_576,
        "Who is the mother of the director of film Polish-Russian War (Film)?",
    ),
    "musique": (
        "musique/musique_test_questions_and_answers.json",
        2_417,
        "Who is the spouse of the Green performer?",
    ),
    "bamboogle": (
        "bamboogle",
        125,
        "Who was president of the United States in the year that Citibank was founded?",
    ),
}


@pytest.mark.parametrize("dataset", WHOLE)
def test_the_whole_test_split_has_the_published_count(dataset: str, tmp_path: Path, make: Make) -> None:
    name, count, first = WHOLE[dataset]
    made = make(dataset, DATA / name, allow_partial=False)
    (file,) = made.manifest.files
    assert file.num_rows == count
    assert not made.manifest.is_partial
    questions = pq.read_table(tmp_path / "out" / "test.parquet")["question"].to_pylist()
    assert questions[0] == first
    assert all(question.endswith("?") for question in questions)


@pytest.mark.parametrize(
    ("dataset", "name", "count", "first"),
    [
        ("hotpotqa", "hotpotqa/hotpotqa_train.json", 100, "hotpotqa_"),
        ("musique", "musique/musique_train.json", 100, "musique_2hop__150763_14904"),
        (
            "2wikimultihopqa",
            "2wikimultihopqa/2wiki_train_500_annotated.json",
            500,
            "2wikimultihopqa_93402d",
        ),
        (
            "2wikimultihopqa",
            "2wikimultihopqa/2wiki_dev_200_with_passages.jsonl",
            200,
            "2wikimultihopqa_b088d3",
        ),
        ("popqa", "popqa/popqa_1000_subsample.jsonl", 1_000, "popqa_test_10207"),
    ],
)
def test_samples_are_read_in_the_authors_form(
    dataset: str, name: str, count: int, first: str, tmp_path: Path, make: Make
) -> None:
    (file,) = make(dataset, DATA / name).manifest.files
    assert file.num_rows == count
    assert pq.read_table(tmp_path / "out" / file.name)["id"].to_pylist()[0].startswith(first)
