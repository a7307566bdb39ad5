"""The command line: what is said before anything heavy, and one episode on the screen."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from verl_llds import cli
from verl_llds.evaluation.ask import Screen
from verl_llds.evaluation.expected_corpus import expected_corpus
from verl_llds.search.environment import make_environment
from verl_llds.search.episode import run_episode
from verl_llds.search.settings import SearchConfig

from .conftest import OneDocument, ScriptedSampler, question_row, searches_then_answers

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize("command", ["eval", "compare", "export"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = f"""
import sys
from verl_llds.cli import main
try:
    main(["{command}", "--help"])
except SystemExit:
    heavy = ("verl", "torch", "ray", "vllm", "transformers", "numpy", "pyarrow", "rich", "matplotlib")
    print([name for name in heavy if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[]"


def test_the_evaluation_needs_no_trainer() -> None:
    code = """
import sys
import verl_llds.evaluation.run, verl_llds.evaluation.ask, verl_llds.evaluation.compare
print([name for name in ("verl", "ray", "torch", "vllm") if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines()[-1] == "[]"


def evaluate(*arguments: object) -> int:
    return cli.main(["eval", "--retriever", NOWHERE, *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "m"], "eval needs --data and --out"),
        (["--model", "m", "--ask", "Q?", "--out", "o"], "--ask plays one episode"),
        (["--model", "m", "--ask", " "], "--ask is empty"),
        (["--model", "m", "--ask", "Q?", "--ask-prompt", "no place"], "--ask-prompt has no {question}"),
        (["--model", "m", "--data", "d", "--out", "o", "--ask-prompt", "{question}"], "--ask-prompt is of --ask alone"),
        (["--model", "m", "--data", "d", "--out", "o", "--num-samples", "3"], "--num-samples 3 with --temperature 0"),
        (["--model", "m", "--data", "nowhere.parquet", "--out", "o"], "nowhere.parquet is not there"),
        (["--model", "m", "--data", "d", "--out", "o", "--max-turns", "0"], "search.max_turns"),
        (["--model", "m", "--data", "d", "--out", "o", "--max-response-tokens", "0"], "--max-response-tokens must be"),
        (["--model", "m", "--data", "d", "--out", "o", "--seed", "-1"], "--seed must be a whole number from 0"),
        (["--model", "m", "--data", "d", "--out", "o", "--seed", "4294967296"], "--seed must be a whole number from 0"),
        (["--model", "m", "--data", "d", "--out", "o", "--expect-corpus", "wiki-18"], "wiki-18 is no directory here"),
        (["--model", "m", "--data", "d", "--out", "o", "--retokenize"], "--retokenize is of --server alone"),
        (
            ["--model", "m", "--ask", "Q?", "--retokenize", "--server", NOWHERE, "--temperature", "1", "--top-k", "5"],
            "--top-k with --retokenize",
        ),
        (["--model", "m", "--data", "d", "--out", "o", "--run-config", "nowhere.yaml"], "--run-config nowhere.yaml"),
    ],
)
def test_one_line_says_what_is_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verl-llds: ")
    assert message in line


def test_a_model_that_is_none_is_said_before_the_retriever_is_asked(
    write_rows: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_rows([question_row(0)]), tmp_path / "out"
    assert evaluate("--model", tmp_path / "empty", "--data", data, "--out", out, "--server", NOWHERE) == 1
    assert "is no model in Hugging Face's format" in capsys.readouterr().err
    assert not out.exists()


def test_questions_of_no_full_batch_are_said_before_the_model_is_read(
    write_rows: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_rows([question_row(number) for number in range(6)]), tmp_path / "out"
    arguments = ("--model", tmp_path / "empty", "--data", data, "--out", out, "--server", NOWHERE)
    assert evaluate(*arguments, "--limit", "4", "--compat-drop-last", "5") == 1
    assert "--compat-drop-last 5 would drop all 4 questions" in capsys.readouterr().err
    assert evaluate(*arguments, "--limit", "5", "--compat-drop-last", "5") == 1
    assert "is no model in Hugging Face's format" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("option", [("--limit", "0"), ("--compat-drop-last", "-1")])
def test_nonsense_is_a_usage_error(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        evaluate("--model", "m", *option)
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "manifest", [{"passages": {"sha256": "AB12" * 16}}, {"inputs": {"corpus_sha256": "ab12" * 16, "type": "flat"}}]
)
def test_a_corpus_is_expected_by_the_directory_of_it_or_of_its_index(manifest: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert expected_corpus(str(tmp_path)) == "ab12" * 16


@pytest.mark.parametrize("text", [None, "[]", "{", '{"inputs": {}}', '{"passages": {"sha256": 5}}'])
def test_a_directory_of_no_corpus_is_said(text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    assert evaluate("--model", "m", "--data", "d", "--out", "o", "--expect-corpus", tmp_path) == 1
    assert "holds no manifest.json" in capsys.readouterr().err


def test_evaluations_that_are_none_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(tmp_path), str(tmp_path)]) == 1
    assert "holds no evaluation" in capsys.readouterr().err


def test_a_seed_that_is_none_is_said_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", str(tmp_path), str(tmp_path), "--seed", "-1"]) == 1
    assert capsys.readouterr().err.startswith("verl-llds: --seed must be a whole number from 0")


def test_an_episode_is_shown_whole_in_order_and_coloured(tokenizer: PreTrainedTokenizerFast) -> None:
    console = Console(record=True, width=200, force_terminal=True, file=open("/dev/null", "w"))  # noqa: SIM115
    spoken = searches_then_answers

    def with_thought(text: str) -> str:
        return f"café {spoken(text)}"

    prompt_ids = tokenizer.encode("prompt", add_special_tokens=False)
    screen = Screen(
        sampler=ScriptedSampler(tokenizer, with_thought),
        tokenizer=tokenizer,
        console=console,
        num_shown=len(prompt_ids),
    )

    async def generate(token_ids: list[int], limit: int) -> object:
        return await screen.sample(token_ids, limit, seed=0)

    trajectory = asyncio.run(
        run_episode(
            prompt_ids=prompt_ids,
            generate=generate,  # type: ignore[arg-type]
            environment=make_environment(SearchConfig(), OneDocument(), tokenizer),
            tokenizer=tokenizer,
            max_response_tokens=2000,
        )
    )
    shown = console.export_text(clear=False, styles=False)
    assert shown == tokenizer.decode(trajectory.response_ids)
    assert "prompt" not in shown
    coloured = console.export_text(styles=True)
    assert coloured.index("\x1b[36m") < coloured.index("\x1b[2m") < coloured.index("\x1b[1;32m")
    answer = "".join(part.partition("\x1b[0m")[0] for part in coloured.split("\x1b[1;32m")[1:])
    assert answer == "<answer> Paris </answer>"
