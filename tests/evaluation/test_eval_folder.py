"""The folder: begun, gone on with after any cut, refused to others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.folder import FILE, FORMAT, EvalFolder, read_evaluation

BEGUN = {"kind": "header", "format": FORMAT}
HEADER: dict[str, Any] = {"settings": {"model": "m", "temperature": 0.0}, "facts": {"model": "m"}}


def row(uid: str, status: str = "answered", **values: Any) -> dict[str, Any]:
    scores = {"em": 0.0, "f1": 0.0, "sub_em": 0.0}
    place = {"question": uid, "sample": 0, "number": 0, "data_source": "nq", "gts": ["x"]}
    counts = {"turns": [], "num_searches": 0, "num_policy": 1, "num_observation": 0, "seconds": 0.1}
    return {"kind": "trajectory", "uid": uid, "status": status, **place, **scores, **counts, **values}


def begin(path: Path, *rows: dict[str, Any]) -> None:
    with EvalFolder(path) as folder:
        folder.open(HEADER)
        for one in rows:
            folder.add(one)


def test_what_is_missing_is_what_has_no_line_or_failed(tmp_path: Path) -> None:
    begin(tmp_path / "e", row("a"), row("b", "retrieval_failed"), row("c", "out_of_turns"))
    with EvalFolder(tmp_path / "e") as folder:
        folder.open(HEADER)
        assert folder.missing(["a", "b", "c", "d"]) == ["b", "d"]
        folder.add(row("b", em=1.0))
    _, rows = read_evaluation(tmp_path / "e")
    assert rows["b"] == row("b", em=1.0)
    assert len(rows) == 3


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 1400))
def test_a_file_cut_anywhere_is_gone_on_with(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "e"
    begin(path, *(row(name, text="é" * 20) for name in "abc"))
    data = (path / FILE).read_bytes()
    kept = data[: min(cut, len(data))]
    (path / FILE).write_bytes(kept)
    # Lines that were whole, after the header's.
    num_whole = max(0, kept.count(b"\n") - 1)
    with EvalFolder(path) as folder:
        folder.open(HEADER)
        assert folder.missing(["a", "b", "c"]) == ["a", "b", "c"][num_whole:]
        for name in folder.missing(["a", "b", "c"]):
            folder.add(row(name, text="é" * 20))
    assert (path / FILE).read_bytes() == data


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    begin(tmp_path / "e", row("a"))
    other = {**HEADER, "settings": {"model": "m", "temperature": 1.0, "limit": 3}}
    with EvalFolder(tmp_path / "e") as folder, pytest.raises(EvaluationError) as caught:
        folder.open(other)
    assert "temperature is 0.0 there and 1.0 here; limit is None there and 3 here" in str(caught.value)
    assert read_evaluation(tmp_path / "e")[1].keys() == {"a"}


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with EvalFolder(tmp_path) as folder, pytest.raises(EvaluationError, match="holds something else"):
        folder.open(HEADER)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_writers_do_not_share_a_folder(tmp_path: Path) -> None:
    with EvalFolder(tmp_path / "e") as first, EvalFolder(tmp_path / "e") as second:
        first.open(HEADER)
        with pytest.raises(EvaluationError, match="another evaluation is writing"):
            second.open(HEADER)


@pytest.mark.parametrize(
    "text", ["", *(json.dumps(line) + "\n" for line in ({"kind": "other"}, {**BEGUN, "format": 99}, BEGUN))]
)
def test_a_file_of_another_kind_is_no_evaluation(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(EvaluationError, match="does not begin with the header"):
        read_evaluation(tmp_path)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    begin(tmp_path / "e", row("a"))
    with (tmp_path / "e" / FILE).open("a") as file:
        file.write("no json\n")
    with pytest.raises(EvaluationError, match=r"trajectories\.jsonl, line 3 is no JSON"):
        read_evaluation(tmp_path / "e")


@pytest.mark.parametrize("name", ["uid", "question", "em", "turns"])
def test_a_line_that_lacks_something_is_named(tmp_path: Path, name: str) -> None:
    begin(tmp_path / "e", row("a"))
    damaged = {key: value for key, value in row("b").items() if key != name}
    with (tmp_path / "e" / FILE).open("a") as file:
        file.write(json.dumps(damaged) + "\n")
    message = rf"trajectories\.jsonl, line 3 has no {name}:"
    with pytest.raises(EvaluationError, match=message):
        read_evaluation(tmp_path / "e")
    with EvalFolder(tmp_path / "e") as folder, pytest.raises(EvaluationError, match=message):
        folder.open(HEADER)


def test_a_status_nobody_knows_is_named(tmp_path: Path) -> None:
    begin(tmp_path / "e", row("a", "unheard_of"))
    with pytest.raises(EvaluationError, match=r"line 2 has the unknown status 'unheard_of'"):
        read_evaluation(tmp_path / "e")


def test_no_evaluation_is_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="holds no evaluation"):
        read_evaluation(tmp_path / "nowhere")
