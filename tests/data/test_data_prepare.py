"""From published files to parquet: splits, counts, merging, hashes, what is refused and what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import REVISION, FolderHub, Make, flashrag, write_lines

from verl_llds.data.files import sha256_file, sole_writer
from verl_llds.data.manifest import read_manifest
from verl_llds.data.prepare import prepare
from verl_llds.data.published import FLASHRAG_REPO, MERGED_REPO, MIXTURES, PUBLISHED, Split
from verl_llds.data.settings import PrepareSettings
from verl_llds.errors import ConfigError, DataError
from verl_llds.reward.sources import SEVEN_SETS
from verl_llds.search.search_r1 import PROMPT_TEMPLATE

SEVEN = ["nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle"]


def rows(path: Path) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return table


def collection(root: Path) -> Path:
    """FlashRAG's collection, three questions a file."""
    for one in PUBLISHED.values():
        if one.train:
            write_lines(root / one.hub_file(Split.TRAIN), flashrag(3, "train"))
        write_lines(root / one.hub_file(Split.TEST), flashrag(3, one.test.split))
    return root


def test_the_published_counts_are_the_papers() -> None:
    assert [one.name for one in PUBLISHED.values()] == [one.name for one in SEVEN_SETS] == SEVEN
    merged = MIXTURES["nq_hotpotqa"]
    assert sum(one.train[0].num_questions for one in merged.sets(Split.TRAIN)) == 169_615
    assert sum(one.test.num_questions for one in merged.sets(Split.TEST)) == 51_713
    assert MIXTURES["seven"].test == merged.test


def test_a_row_is_what_verl_and_search_r1_read(tmp_path: Path, make: Make) -> None:
    write_lines(tmp_path / "in" / "train.jsonl", flashrag(2, "train"))
    write_lines(tmp_path / "in" / "test.jsonl", [{"id": "test_0", "question": " who ", "golden_answers": ["a"]}])
    make("nq", tmp_path / "in")
    (row,) = rows(tmp_path / "out" / "test.parquet")
    assert row == {
        "id": "nq_test_0",
        "question": "who?",
        "golden_answers": ["a"],
        "data_source": "nq",
        "prompt": [{"role": "user", "content": PROMPT_TEMPLATE.format(question="who?")}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": ["a"]}},
        "extra_info": {"split": "test", "index": 0, "set_index": 0},
    }
    # verl looks the agent loop up by this column; an empty one stops the rollout.
    assert "agent_name" not in row
    assert [one["extra_info"]["index"] for one in rows(tmp_path / "out" / "train.parquet")] == [0, 1]


def test_merged_sets_have_unique_ids_and_indices(tmp_path: Path, make: Make) -> None:
    made = make("nq_hotpotqa", collection(tmp_path / "in")).manifest
    train, test = (rows(tmp_path / "out" / f"{split}.parquet") for split in ("train", "test"))
    assert [row["data_source"] for row in train] == ["nq"] * 3 + ["hotpotqa"] * 3
    assert [row["data_source"] for row in test] == [name for name in SEVEN for _ in range(3)]
    for table in (train, test):
        assert len({row["id"] for row in table}) == len(table)
        assert [row["extra_info"]["index"] for row in table] == list(range(len(table)))
        assert [row["extra_info"]["set_index"] for row in table] == [0, 1, 2] * (len(table) // 3)
    assert [(one.name, one.first_row, one.num_rows) for one in made.files[1].sets] == [
        (name, 3 * n, 3) for n, name in enumerate(SEVEN)
    ]
    assert made.is_partial
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["partial"] is True


def test_the_right_split_is_chosen(tmp_path: Path, make: Make) -> None:
    source = tmp_path / "in"
    for name in ("train", "dev", "test"):
        write_lines(source / f"{name}.jsonl", flashrag(1, name))
    for dataset, split in (("nq", "test"), ("triviaqa", "test"), ("hotpotqa", "dev"), ("musique", "dev")):
        make(dataset, source, out=tmp_path / dataset)
        assert [row["id"] for row in rows(tmp_path / dataset / "test.parquet")] == [f"{dataset}_{split}_0"]
        assert [row["id"] for row in rows(tmp_path / dataset / "train.parquet")] == [f"{dataset}_train_0"]


def test_the_authors_own_files_are_found_among_others(tmp_path: Path, make: Make) -> None:
    source = tmp_path / "in"
    answers = [{"question": "q", "answer": ["a"]}]
    for name in ("NQ-open.train.jsonl", "NQ-open.dev.jsonl", "NQ-open.efficientqa.dev.1.1.jsonl", "odqa_nq200.jsonl"):
        write_lines(source / name, answers)
    assert [one.name for one in make("nq", source).manifest.sources] == ["NQ-open.train.jsonl", "NQ-open.dev.jsonl"]


def test_shards_are_one_file(tmp_path: Path, make: Make) -> None:
    source = tmp_path / "in"
    for n in range(2):
        write_lines(source / f"test-0000{n}-of-00002.jsonl", flashrag(4, "test")[2 * n : 2 * n + 2])
    make("popqa", source)
    assert len(rows(tmp_path / "out" / "test.parquet")) == 4


def test_search_r1s_merged_files_from_the_hub(tmp_path: Path, hub: FolderHub, make: Make) -> None:
    made = make("nq_hotpotqa", collection(tmp_path / "in")).manifest
    repo = hub.root / MERGED_REPO
    repo.parent.mkdir(parents=True)
    (tmp_path / "out").rename(repo)
    again = make("nq_hotpotqa", None).manifest
    assert [one.rows_sha256 for one in again.files] == [one.rows_sha256 for one in made.files]
    assert [(one.name, one.repo, one.revision) for one in again.sources] == [
        (name, MERGED_REPO, REVISION) for name in ("train.parquet", "test.parquet")
    ]
    # One set of a merged file.
    make("musique", repo / "test.parquet", out=tmp_path / "one")
    assert [row["id"] for row in rows(tmp_path / "one" / "test.parquet")] == [f"musique_dev_{n}" for n in range(3)]


def test_seven_sets_from_the_hub_are_one_test_file(hub: FolderHub, tmp_path: Path, make: Make) -> None:
    collection(hub.root / FLASHRAG_REPO)
    make("seven", None)
    assert len(rows(tmp_path / "out" / "test.parquet")) == 21
    assert not (tmp_path / "out" / "train.parquet").exists()
    assert all("/train" not in name for name in hub.asked)


def test_a_full_set_is_not_partial(tmp_path: Path, make: Make) -> None:
    source = write_lines(tmp_path / "bamboogle.jsonl", flashrag(125))
    made = make("bamboogle", source, allow_partial=False).manifest
    assert not made.is_partial
    assert made.files[0].sets[0].edition == "the published test split"


@pytest.mark.parametrize(
    ("count", "partial", "said"),
    [
        (124, False, "124 test questions of bamboogle, published are 125"),
        (126, False, "126 test questions of bamboogle, published are 125 .*give the published file"),
        (126, True, "give the published file"),
    ],
)
def test_another_count_is_refused(count: int, partial: bool, said: str, tmp_path: Path, make: Make) -> None:
    source = write_lines(tmp_path / "test.jsonl", flashrag(count))
    with pytest.raises(DataError, match=said):
        make("bamboogle", source, allow_partial=partial)
    assert not (tmp_path / "out" / "test.parquet").exists()


def test_a_repeated_id_is_refused_with_both_lines(tmp_path: Path, make: Make) -> None:
    lines = flashrag(3)
    lines[2]["id"] = "test_0"
    source = write_lines(tmp_path / "test.jsonl", lines)
    with pytest.raises(DataError, match=rf"^{source}:3: the id bamboogle_test_0 is taken by {source}:1"):
        make("bamboogle", source)


@pytest.mark.parametrize(
    ("files", "dataset", "said"),
    [
        (
            ["test"],
            "nq",
            "no file of the train questions of nq, 79,168 .FlashRAG. or 87,925 .NQ-open., such as",
        ),
        (["train"], "hotpotqa", "no file of the test questions of hotpotqa, 7,405 .*such as dev.jsonl"),
        (["a_test", "b_test"], "bamboogle", "a_test.jsonl, b_test.jsonl could all hold the test questions"),
        (["train", "test"], "nq_hotpotqa", ":1: no column data_source, so nothing tells nq from the other sets"),
        ([], "seven", "neither a folder nq/ nor a file of the test questions of nq"),
    ],
)
def test_a_missing_split_or_an_unclear_one_is_named(
    files: list[str], dataset: str, said: str, tmp_path: Path, make: Make
) -> None:
    (tmp_path / "in").mkdir()
    for name in files:
        write_lines(tmp_path / "in" / f"{name}.jsonl", flashrag(1))
    with pytest.raises(DataError, match=said):
        make(dataset, tmp_path / "in")


@pytest.mark.parametrize(
    ("name", "dataset", "said"),
    [
        ("questions.jsonl", "nq", "cannot tell whether its questions are to train or to test on"),
        ("train.jsonl", "popqa", "is a train file by its name, and popqa has no such questions"),
    ],
)
def test_a_file_whose_name_does_not_fit_is_refused(
    name: str, dataset: str, said: str, tmp_path: Path, make: Make
) -> None:
    with pytest.raises(DataError, match=said):
        make(dataset, write_lines(tmp_path / name, flashrag(1)))


def test_rows_of_other_sets_are_no_rows(tmp_path: Path, make: Make) -> None:
    source = write_lines(tmp_path / "test.jsonl", flashrag(2, data_source="searchR1_nq"))
    with pytest.raises(DataError, match="no question of popqa in it but those of searchR1_nq"):
        make("popqa", source)


def test_the_same_again_changes_nothing(tmp_path: Path, make: Make) -> None:
    source = write_lines(tmp_path / "test.jsonl", flashrag(5))
    first = make("bamboogle", source)
    made = tmp_path / "out" / "test.parquet"
    before = made.stat().st_mtime_ns
    again = make("bamboogle", source)
    assert (first.was_there, again.was_there) == (False, True)
    assert made.stat().st_mtime_ns == before
    # A file that was changed since is made again, to the same bytes.
    made.write_bytes(b"")
    third = make("bamboogle", source)
    assert not third.was_there
    assert sha256_file(made) == third.manifest.files[0].sha256 == first.manifest.files[0].sha256
    with pytest.raises(DataError, match="5 test questions"):
        make("bamboogle", source, allow_partial=False)


def test_another_data_set_in_out_is_replaced_only_on_demand(tmp_path: Path, make: Make) -> None:
    for name in ("train", "test"):
        write_lines(tmp_path / "in" / f"{name}.jsonl", flashrag(2, name))
    make("nq", tmp_path / "in")
    with pytest.raises(DataError, match="holds --dataset nq: choose another --out, or add --overwrite"):
        make("popqa", tmp_path / "in" / "test.jsonl")
    make("popqa", tmp_path / "in" / "test.jsonl", overwrite=True)
    assert not (tmp_path / "out" / "train.parquet").exists()
    with pytest.raises(DataError, match="popqa from other files"):
        make("popqa", write_lines(tmp_path / "test.jsonl", flashrag(3)))


def test_files_of_somebody_else_are_left_alone(tmp_path: Path, make: Make) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test.parquet").write_text("mine")
    source = write_lines(tmp_path / "test.jsonl", flashrag(2))
    with pytest.raises(DataError, match="was not made by this command"):
        make("bamboogle", source)
    (tmp_path / "out" / "manifest.json").write_text('{"something": "else"}')
    with pytest.raises(DataError, match="is no manifest of"):
        make("bamboogle", source)
    assert (tmp_path / "out" / "test.parquet").read_text() == "mine"


def test_a_call_that_was_stopped_goes_on(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from verl_llds.data import prepare as module

    write_lines(tmp_path / "in" / "train.jsonl", flashrag(2, "train"))
    write_lines(tmp_path / "in" / "test.jsonl", flashrag(2))
    write = module.write_questions

    def stop(path: Path, split: Split, sets: Any) -> None:
        if split is Split.TEST:
            raise KeyboardInterrupt
        write(path, split, sets)

    monkeypatch.setattr(module, "write_questions", stop)
    with pytest.raises(KeyboardInterrupt):
        make("nq", tmp_path / "in")
    assert (tmp_path / "out" / "train.parquet").exists()
    monkeypatch.undo()
    assert not make("nq", tmp_path / "in").was_there
    assert read_manifest(tmp_path / "out") == make("nq", tmp_path / "in").manifest


def test_one_writer_at_a_time(tmp_path: Path, make: Make) -> None:
    source = write_lines(tmp_path / "test.jsonl", flashrag(2))
    with sole_writer(tmp_path / "out"), pytest.raises(DataError, match="another process is writing there"):
        make("bamboogle", source)


def test_settings_are_checked_at_construction(tmp_path: Path, hub: FolderHub) -> None:
    with pytest.raises(ConfigError, match=r"--dataset must be one of nq, .*seven, got 'nqq'"):
        PrepareSettings(dataset="nqq", out=tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        PrepareSettings(dataset="nq", out=tmp_path, source=tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file: give a directory"):
        prepare(PrepareSettings(dataset="nq", out=tmp_path / "file"), hub)


texts = st.text(min_size=1, max_size=8).filter(lambda text: bool(text.strip()))


@settings(deadline=None, max_examples=40)
@given(pairs=st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_what_is_asked_survives_the_way_whatever_the_letters(
    pairs: list[tuple[str, list[str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("way")
    lines = [{"question": question, "answer": answers} for question, answers in pairs]
    source = write_lines(folder / "test.jsonl", lines)
    prepare(
        PrepareSettings(dataset="bamboogle", source=source, out=folder / "out", allow_partial=True), FolderHub(folder)
    )
    for row, (question, answers) in zip(rows(folder / "out" / "test.parquet"), pairs, strict=True):
        assert row["golden_answers"] == row["reward_model"]["ground_truth"]["target"] == answers
        assert row["question"].rstrip("?").strip() == question.strip().rstrip("?").strip()
        assert row["question"] in row["prompt"][0]["content"]
