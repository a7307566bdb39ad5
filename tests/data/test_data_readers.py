"""Files: every form, in pieces of any size, and what is wrong with them named by line or row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verl_llds.data import readers
from verl_llds.data.readers import read_rows
from verl_llds.errors import DataError

values = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))
objects = st.lists(st.dictionaries(st.text(max_size=4), values, max_size=3), max_size=6)


@settings(deadline=None)
@given(rows=objects, indent=st.sampled_from([None, 1]), chunk=st.integers(1, 50), wrapped=st.booleans())
def test_an_array_is_read_in_pieces_of_any_size(
    rows: list[dict[str, Any]], indent: int | None, chunk: int, wrapped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("array") / "f.json"
    value = {"Data": rows, "Version": 1.0} if wrapped else rows
    path.write_text(json.dumps(value, indent=indent))
    # Long enough for the head, which is looked at as a whole.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_CHUNK_CHARS", max(chunk, 12 if wrapped else 1))
        read = list(read_rows(path))
    assert [row for _, row in read] == rows
    assert [where for where, _ in read] == [f"{path}, row {n + 1}" for n in range(len(rows))]


def test_a_json_file_may_hold_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(read_rows(path)) == [(f"{path}:1", {"a": 1}), (f"{path}:3", {"a": 2})]


def test_tables_keep_quoted_cells(tmp_path: Path) -> None:
    tsv = tmp_path / "popQA.tsv"
    tsv.write_text('id\tquestion\tpossible_answers\n1\tWho?\t"[""a\tb"", ""c""]"\n2\t"two\nlines"\t[]\n')
    rows = list(read_rows(tsv))
    assert rows[0][1]["possible_answers"] == '["a\tb", "c"]'
    assert [where for where, _ in rows] == [f"{tsv}:2", f"{tsv}:4"]
    comma = tmp_path / "b.csv"
    comma.write_text("\ufeffQuestion,Answer\nWho?,a\n", encoding="utf-8")
    assert list(read_rows(comma)) == [(f"{comma}:2", {"Question": "Who?", "Answer": "a"})]


def test_of_parquet_only_known_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.Table.from_pylist([{"question": "q", "context": ["long"], "_id": "x"}]), path)
    assert list(read_rows(path)) == [(f"{path}, row 1", {"question": "q", "_id": "x"})]


def text(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / name

    return write


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (text("f.jsonl", '{"a": 1}\n{"a": \n'), ":2: no JSON"),
        (text("f.jsonl", '{"a": 1}\n[1]\n'), ":2: not a JSON object but [1]"),
        (text("f.json", '[{"a": 1}, {"a": '), ", row 2: no JSON, or cut short"),
        (text("f.json", '[{"a": 1}'), ", row 2: no JSON, or cut short"),
        (text("f.json", "[1]"), ", row 1: not a JSON object"),
        (text("f.jsonl", b'{"a": "\xff"}\n'), "not UTF-8"),
        (text("f.csv", "a,b\n1,2\n1\n"), ":3: not the 2 cells"),
        (text("f.tsv", "a\tb\n1\t2\t3\n"), ":2: not the 2 cells"),
        (text("f.csv", 'a,b\n"1"x,2\n'), ":2: "),
        (text("f.parquet", b"PAR1 no"), "no parquet, or cut short"),
        (text("f.zip", ""), "cannot tell its form"),
        (lambda folder: folder / "absent.jsonl", "cannot be read (No such file"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_by_place(write: Callable[[Path], Path], said: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)


def test_parquet_without_a_known_column_names_those_it_has(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"query": ["q"], "gold": ["a"]}), path)
    with pytest.raises(DataError, match="none of its columns query, gold is known"):
        list(read_rows(path))


def test_damage_early_in_a_large_file_is_told_without_reading_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_CHUNK_CHARS", 100)
    monkeypatch.setattr(readers, "_MAX_OBJECT_CHARS", 1000)
    path = tmp_path / "f.json"
    path.write_text('[{"a" 1},' + '{"a": 1},' * 10_000 + '{"a": 1}]')
    with pytest.raises(DataError, match="row 1: no JSON"):
        list(read_rows(path))
