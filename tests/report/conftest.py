"""A real browser, and runs to look at: one that was recorded, and trajectories made up."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from verl_llds.report.page import render
from verl_llds.report.payload import payload
from verl_llds.report.run_data import figures_data, run_data
from verl_llds.report.run_folder import Run, read_run
from verl_llds.report.trajectories import Split, Tokens, Trajectory, Turn
from verl_llds.report.write import write_report

sys.path.insert(0, str(Path(__file__).parent))

DATA = Path(__file__).parent / "data"
LOGS = Path(__file__).parents[1] / "diagnostics" / "data"
WRITTEN = datetime(2026, 1, 31, 12, 0)
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Per module: as long as playwright's synchronous interface is open, asyncio takes its loop for one that runs here,
# and every asynchronous test after it would fail.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("chromium is not installed: apt-get install chromium, or let tests/run.sh do it as root")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open a file in a fresh profile and wait until its script has run.

    The test fails if the page wrote an error or a warning to the console, raised, showed a dialog, or asked for
    anything but the file.
    """
    contexts, complaints = [], []

    def open_file(path: Path, fragment: str = "", **settings: Any) -> Page:
        context = chromium.new_context(viewport={"width": 1400, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda one: one.url.startswith(("file:", "blob:", "data:")) or complaints.append(one.url))
        page.goto(path.as_uri() + fragment)
        page.wait_for_selector("html[data-ready]", state="attached", timeout=60_000)
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real run: two steps of verl's trainer and vLLM on the CPU, with native tool calls."""
    out = tmp_path_factory.mktemp("recorded") / "report.html"
    write_report([read_run(DATA / "run")], out, max_trajectories=5000, written=WRITTEN)
    return out


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a real run that recorded its tokens: tests/e2e/record_report_run.py."""
    out = tmp_path_factory.mktemp("searched") / "report.html"
    write_report([read_run(DATA / "searches")], out, max_trajectories=5000, written=WRITTEN)
    return out


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs, one of which collapses."""
    out = tmp_path_factory.mktemp("compared") / "report.html"
    runs = [read_run(LOGS / f"{name}.jsonl") for name in ("collapses", "holds")]
    write_report(runs, out, max_trajectories=0, written=WRITTEN)
    return out


@pytest.fixture(scope="session")
def write_page() -> Callable[..., Path]:
    """Write a page of one run with these trajectories."""

    def write(out: Path, trajectories: list[Trajectory], run: Run | None = None) -> Path:
        run = run or Run(name="run", folder=out.parent, metrics={1: {"critic/score/mean": 0.5}})
        page = render(
            title="trajectories",
            runs=[run_data(run)],
            figures=figures_data(),
            trajectories=payload([(0, one) for one in trajectories], [run.name]),
            written=WRITTEN,
        )
        out.write_text(page, encoding="utf-8")
        return out

    return write


@pytest.fixture(scope="session")
def make_trajectory() -> Callable[..., Trajectory]:
    """Make a trajectory of two turns whose tokens are words; the second turn is given."""

    def make(number: int = 0, *, answer: str = "Paris", correct: bool = True, **changes: Any) -> Trajectory:
        first = [
            "<think>",
            "I",
            "look",
            "it",
            "up",
            ".",
            "</think>",
            "<search>",
            "capital",
            "of",
            "France",
            "</search>",
        ]
        last = ["<answer>", f" {answer}", " </answer>"]
        fields: dict[str, Any] = {
            "split": Split.TRAINING,
            "step": 1 + number // 8,
            "key": f"group{number // 4}_{number % 4}_0",
            "group": f"group{number // 4}",
            "source": ("nq", "hotpotqa")[number // 4 % 2],
            "question": f"What is the capital of country {number // 4}?",
            "gold_answers": ["Paris"],
            "answer": answer,
            "reward": float(correct),
            "correct": correct,
            "status": "answered",
            "num_searches": 1,
            "advantage": 0.5 if correct else -0.5,
            "preserved": correct,
            "prompt": "Question: ...",
            "turns": (
                Turn(
                    text="".join(_spaced(first)),
                    tokens=_tokens(_spaced(first), 0.2),
                    observation='\n\n<information>Doc 1(Title: "France") The capital is Paris.\n'
                    'Doc 2(Title: "Italy") The capital is Rome.\n</information>\n\n',
                    kind="call",
                    status="result",
                    tool="search",
                    content="capital of France",
                    documents=["7", "8"],
                    attempts=1,
                    latency_s=0.01,
                ),
                Turn(text="".join(last), tokens=_tokens(last, -0.2), kind="answer", status="answer", content=answer),
            ),
        }
        return Trajectory(**{**fields, **changes})

    return make


def _spaced(words: list[str]) -> list[str]:
    return [words[0], *(f" {word}" for word in words[1:])]


def _tokens(texts: list[str], fall: float) -> Tokens:
    old = [round(-0.1 - 0.05 * place, 4) for place in range(len(texts))]
    return Tokens(
        texts=texts,
        old=old,
        new=[round(value - fall, 4) for value in old],
        gate=[fall > 0] * len(texts),
        penalty=[max(0.0, fall)] * len(texts),
        answer=["answer" in text for text in texts],
    )


@pytest.fixture(scope="session")
def write_log() -> Callable[..., Path]:
    """Write the metrics of a run as verl's file logger does."""

    def write(path: Path, steps: dict[int, dict[str, float]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"step": step, "data": data}) + "\n" for step, data in steps.items()))
        return path

    return write
