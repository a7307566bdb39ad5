"""From files to the trajectories and the payload of a page."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verl_llds.errors import RunFolderError
from verl_llds.report.dumps import from_dump_row, read_dump
from verl_llds.report.embed import content_hash, packed_json, rounded
from verl_llds.report.gather import gather, list_files
from verl_llds.report.payload import CHUNK, index, payload
from verl_llds.report.run_folder import Run
from verl_llds.report.trajectories import Split, Trajectory, from_token_row
from verl_llds.trajectories.reader import step_path
from verl_llds.trajectories.schema import FORMAT, INFO_KEY, SCHEMA

TURN = {
    "kind": "call",
    "status": "result",
    "tool": "search",
    "content": "q",
    "documents": ["1"],
    "attempts": 1,
    "latency_s": 0.5,
}


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "input": "user\nAnswer the given question. Question: Who?\nassistant\n",
        "output": "<search>q</search>\n\n<information>Doc 1(Title: T) x\n</information>\n\n<answer>A</answer>",
        "gts": {"target": ["A", "B"]},
        "score": 1.0,
        "step": 3,
        "uid": f"u{number // 4}_{number % 4}_0",
        "status": "answered",
        "num_searches": 1,
        "turns": [TURN, {**TURN, "kind": "answer", "status": "answer", "content": "A", "documents": []}],
        **changes,
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def test_a_dump_is_divided_into_turns() -> None:
    made = from_dump_row(row(), Split.TRAINING, 1.0)
    assert [turn.text for turn in made.turns] == ["<search>q</search>", "<answer>A</answer>"]
    assert [turn.kind for turn in made.turns] == ["call", "answer"]
    assert made.turns[0].observation.strip().startswith("<information>Doc 1")
    assert made.response == row()["output"]
    assert (made.question, made.gold_answers, made.answer, made.group) == ("Who?", ["A", "B"], "A", "u0")
    assert made.correct
    assert not made.has_tokens


def test_a_chat_templates_role_words_belong_to_the_observation() -> None:
    call, answer = '<tool_call>\n{"name": "search"}\n</tool_call>', "<answer> Paris </answer>"
    reply = "\nuser\n<tool_response>\nDoc 1(Title: France) Paris.\n</tool_response>\nassistant\n"
    made = from_dump_row(row(output=call + reply + answer), Split.TRAINING, 1.0)
    assert [(turn.text, turn.observation) for turn in made.turns] == [(call, reply), (answer, "")]


@pytest.mark.parametrize("gold", [None, "A", ["A"], {"target": "A"}])
def test_ground_truths_of_any_kind(gold: Any) -> None:
    assert from_dump_row(row(gts=gold), Split.TRAINING, 1.0).gold_answers == ([] if gold is None else ["A"])


@given(st.text(), st.integers(0, 3))
def test_no_character_of_a_response_is_lost(text: str, num_turns: int) -> None:
    made = from_dump_row(row(output=text, turns=[TURN] * num_turns), Split.TRAINING, 1.0)
    assert made.response == text


def test_a_half_written_last_line_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "1.jsonl", [row(), row(1)])
    path.write_text(path.read_text() + '{"input": "Ques')
    assert len(list(read_dump(path, Split.TRAINING, 1.0))) == 2
    path.write_text('{"no": "trajectory"}\n' + path.read_text())
    with pytest.raises(RunFolderError, match="line 1 is no trajectory"):
        list(read_dump(path, Split.TRAINING, 1.0))
    with pytest.raises(RunFolderError, match="cannot read"):
        list(read_dump(tmp_path / "none.jsonl", Split.TRAINING, 1.0))


@pytest.mark.parametrize("line", ["[" * 100_000, json.dumps(row(score=10**400)), json.dumps(row(step=float("inf")))])
def test_a_line_that_cannot_be_read_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text(f"{line}\n{json.dumps(row())}\n")
    with pytest.raises(RunFolderError, match="line 1 is no trajectory"):
        list(read_dump(tmp_path / "1.jsonl", Split.TRAINING, 1.0))


def test_the_limit_is_spread_over_steps_in_whole_groups(tmp_path: Path) -> None:
    dumps = {
        step: write(tmp_path / f"{step}.jsonl", [row(number, step=step) for number in range(100)]) for step in range(10)
    }
    run = Run(name="run", folder=tmp_path, metrics={}, rollouts=dumps, validations={9: dumps[9]})
    assert len(list_files(run)) == 11
    gathered = gather([run, run], 410, iter)
    assert gathered.num_found == 2200
    found = gathered.rows
    assert len(found) <= 410
    steps = {(number, one.split, one.step) for number, one in found}
    assert len(steps) == 10, "40 trajectories a step are the least, so half of the files are left out"
    assert {number for number, _ in found} == {0, 1}
    groups: dict[Any, int] = {}
    for number, one in found:
        groups[number, one.split, one.step, one.group] = groups.get((number, one.split, one.step, one.group), 0) + 1
    assert set(groups.values()) == {4}
    assert len(gather([run], 10**6, iter).rows) == 1100
    assert len(gather([run], 1, iter).rows) == 1


def test_all_that_was_found_is_counted_half_written_lines_not(tmp_path: Path) -> None:
    # The recorded one of step 3 is among them.
    dump = write(tmp_path / "rollouts" / "3.jsonl", [row(number) for number in range(8)])
    dump.write_text(dump.read_text() + '{"input": "Ques')
    run = Run(name="run", folder=tmp_path, metrics={}, rollouts={3: dump}, trajectories=record(tmp_path, steps=(3, 4)))
    assert (len(gather([run], 4, iter).rows), gather([run], 4, iter).num_found) == (4, 9)
    assert (len(gather([run], 400, iter).rows), gather([run], 400, iter).num_found) == (9, 9)
    write(dump, [row(number) for number in range(1, 8)])
    assert gather([run], 4, iter).num_found == 9, "one was recorded and not dumped"
    step_path(tmp_path / "trajectories", 4).write_bytes(b"broken")
    for reward, message in ((1.0, "cannot count the trajectories of step 4"), (None, "step_00000004.parquet")):
        with pytest.raises(RunFolderError, match=message):
            gather([run], 1, iter, reward)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    shown = [(0, from_dump_row(row(), Split.TRAINING, 1.0))]
    assert unpacked(payload(shown, ["run"], 1).index)["note"] == ""
    note = unpacked(payload(shown, ["run"], 1234).index)["note"]
    assert note == "1,234 were found: --max-trajectories sets how many the file holds"


def test_token_records_come_first_and_dumps_fill_up(tmp_path: Path) -> None:
    dump = write(tmp_path / "rollouts" / "3.jsonl", [row(number) for number in range(8)])
    run = Run(name="run", folder=tmp_path, metrics={}, rollouts={3: dump}, trajectories=record(tmp_path))
    found = [one for _, one in gather([run], 100, iter).rows]
    assert [one.key for one in found] == ["u0_0_0", *(row(number)["uid"] for number in range(1, 8))]
    first = found[0].turns[0]
    assert (first.text, first.observation) == ("<search>q", "found")
    assert first.tokens
    assert (first.tokens.old, first.tokens.new) == ([-0.1, -0.2], [-0.3, -0.1])
    assert (first.tokens.gate, first.tokens.penalty) == ([True, True], [0.2, 0.0])
    assert found[0].response == "<search>qfound<answer>"


@pytest.mark.parametrize(
    ("info", "given", "expected"),
    [
        (None, None, 1.0),
        (None, 0.7, 0.7),
        ({"llds": {"correct_reward": 0.5}}, None, 0.5),
        # A baseline's penalty is the paper's, whatever the run calls correct.
        ({"llds": {"correct_reward": 1.0}, "correct_reward": 0.6}, None, 0.6),
        ({"llds": {"correct_reward": 0.5}}, 0.7, 0.7),
    ],
)
def test_what_is_correct_in_a_dump_is_what_the_run_called_so(
    info: dict[str, Any] | None, given: float | None, expected: float, tmp_path: Path
) -> None:
    rewards = [0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.95, 1.0]
    rows = [row(number, score=reward) for number, reward in enumerate(rewards)]
    dumps = {step: write(tmp_path / "rollouts" / f"{step}.jsonl", rows) for step in (4, 5)}
    recorded = None if info is None else record(tmp_path, **info)
    run = Run(name="run", folder=tmp_path, metrics={}, rollouts=dumps, validations=dumps, trajectories=recorded)
    found = [one for _, one in gather([run], 1000, iter, given).rows if not one.has_tokens]
    assert len(found) == 32
    assert all(one.correct == (one.reward >= expected) for one in found)


def record(folder: Path, steps: Sequence[int] = (3,), **info: Any) -> Path:
    """Record one trajectory token by token in each step."""
    recorded = folder / "trajectories"
    recorded.mkdir()
    text = json.dumps({"format": FORMAT, "llds": {"correct_reward": 1.0}, **info})
    for step in steps:
        table = pa.Table.from_pylist([{**token_row(), "step": step}], schema=SCHEMA.with_metadata({INFO_KEY: text}))
        pq.write_table(table, step_path(recorded, step))
    return recorded


def test_another_agent_loops_turns_follow_the_mask() -> None:
    made = from_token_row({**token_row(), "turns": [], "status": None, "num_searches": None})
    assert [(turn.text, turn.observation) for turn in made.turns] == [("<search>q", "found"), ("<answer>", "")]
    unmeasured = from_token_row({**token_row(), "new_log_probs": None, "gate": None, "penalty": None})
    assert unmeasured.turns[0].tokens
    assert unmeasured.turns[0].tokens.new is None


def token_row() -> dict[str, Any]:
    """Return a row of four tokens: two sampled, one observed, one sampled."""
    turn = {**TURN, "start": 0, "num_tokens": 2, "num_observation_tokens": 1, "is_truncated": False}
    return {
        "step": 3, "key": "u0_0_0", "uid": "u0", "data_source": "nq", "question": "Who?", "gold_answers": ["A"],
        "prompt": "Question: Who?", "num_prompt_tokens": 4, "answer": None, "score": 0.0, "correct": False,
        "advantage": -1.0, "preserved": False, "status": "out_of_turns", "error": "", "num_searches": 1,
        "turns": [turn, {**turn, "start": 3, "num_tokens": 1, "num_observation_tokens": 0}],
        "token_ids": [1, 2, 3, 4], "tokens": ["<search>", "q", "found", "<answer>"],
        "response_mask": [True, True, False, True], "answer_mask": [False, False, False, True],
        "action_ids": [1, 1, 0, 2], "old_log_probs": [-0.1, -0.2, None, -0.3],
        "new_log_probs": [-0.3, -0.1, None, -0.3], "gate": [True, True, False, False],
        "penalty": [0.2, 0.0, 0.0, 0.0],
    }  # fmt: skip


def test_the_index_says_how_much_siblings_share(make_trajectory: Callable[..., Trajectory]) -> None:
    right, wrong = make_trajectory(0), make_trajectory(1, answer="Rome", correct=False)
    alone = make_trajectory(4)
    columns = index([(0, right), (0, wrong), (0, alone)])["columns"]
    common = len(right.turns[0].text + right.turns[0].observation + "<answer> ")
    assert columns["shared"] == [common, common, None]
    assert columns["sibling"] == [1, 0, None]
    assert columns["group"] == [0, 0, 1]
    # The same group of another run is another group.
    assert index([(0, right), (1, wrong)])["columns"]["shared"] == [None, None]


def test_the_index_names_the_sibling_that_shares_the_most(make_trajectory: Callable[..., Trajectory]) -> None:
    def made(number: int, text: str, *, correct: bool, tokens: bool = False) -> Trajectory:
        turn = make_trajectory().turns[0]
        turn = replace(turn, text=text, observation="", tokens=turn.tokens if tokens else None)
        return make_trajectory(number, correct=correct, turns=[turn])

    rows = [
        made(0, "abcdefgh", correct=False),
        made(1, "zy", correct=True),
        made(2, "abcdx", correct=True),
        made(3, "abcdy", correct=True, tokens=True),
        made(4, "zyx", correct=False),
    ]
    rows = [replace(one, step=1) for one in rows]
    columns = index([(0, replace(one, group="same")) for one in rows])["columns"]
    assert columns["shared"] == [4, 2, 4, 4, 2]
    assert columns["sibling"] == [3, 4, 0, 0, 1], "of two that share as much, the one with log-probabilities"


def test_chunks_hold_the_bodies_in_order(make_trajectory: Callable[..., Trajectory]) -> None:
    made = payload([(0, make_trajectory(number)) for number in range(CHUNK + 3)], ["run"])
    assert [len(unpacked(chunk)) for chunk in made.chunks] == [CHUNK, 3]
    body = unpacked(made.chunks[1])[0]
    assert body["key"] == make_trajectory(CHUNK).key
    assert body["turns"][0]["tokens"]["old"][0] == -0.1
    assert unpacked(made.index)["names"]["source"] == ["nq", "hotpotqa"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
        lambda one: st.lists(one) | st.dictionaries(st.text(), one),
    )
)
def test_packed_values_come_back_and_mean_nothing_to_html(value: Any) -> None:
    text = packed_json(value)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    if "NaN" not in repr(value) and "inf" not in repr(value) and "nan" not in repr(value):
        assert unpacked(text) == value
    assert packed_json(value) == text


def test_numbers_that_are_not_finite_have_names() -> None:
    assert unpacked(packed_json([float("nan"), float("inf"), float("-inf"), "\ud800"])) == [
        "NaN",
        "Infinity",
        "-Infinity",
        "\ud800",
    ]
    assert rounded(0.123456789) == 0.123457
    assert content_hash("") == "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
