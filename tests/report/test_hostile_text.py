"""Text of models and passages that means harm: nothing of it runs, and the page stays whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from verl_llds.report.run_folder import read_run
from verl_llds.report.write import write_report

Open = Callable[..., Page]
WRITTEN = datetime(2026, 1, 31)

HOSTILE = {
    "script": "</script><script>alert(1)</script><img src=x onerror=alert(2)>",
    "comment": "<!--<script>",
    "attribute": "\" onfocus=alert(3) autofocus x=\"' onload='alert(4)",
    "link": "<a href=javascript:alert(5)>x</a> javascript:alert(6)",
    "template": "${alert(7)} $policy {{constructor.constructor('alert(8)')()}}",
    "style": "</style><style>body{display:none}</style>",
    "surrogate": "\ud83d alone \udc00",
    "nul": "a\x00b\x07c\x1b[31m",
    "right_to_left": "\u202egnp.exe\u202c \u2066x\u2069 \u05d0\u05d1",
    "prototype": "__proto__",
    "separators": "line\u2028paragraph\u2029end\x85",
    "wide": "\ufdfd" * 50 + "Z\u0351\u036b\u0343" * 200,
}


def dump(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    with (folder / "1.jsonl").open("w", encoding="utf-8") as lines:
        for number, (name, text) in enumerate(texts.items()):
            turn = {
                "kind": "call",
                "status": "result",
                "tool": text,
                "content": text,
                "documents": [text, text],
                "attempts": 1,
                "latency_s": 0.1,
            }
            found = f"\n\n<information>Doc 1(Title: {text}) {text}\nDoc 2(Title: x) {text}</information>\n\n"
            row = {
                "input": f"Question: {text}",
                "output": f"{text}<search>{text}</search>{found}{text}",
                "gts": {"target": [text]},
                "score": number % 2,
                "step": 1,
                "uid": f"{text}_{number}_0",
                "data_source": text,
                "status": name,
                "error": text,
                "num_searches": 1,
                "turns": [turn],
            }
            lines.write(json.dumps(row) + "\n")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A report whose every text is hostile, the run's name included."""
    run = tmp_path / "<img src=x onerror=alert(9)>"
    dump(run / "rollouts", HOSTILE)
    metrics = {"critic/score/mean": 0.5, "</script><script>alert(10)</script>": 1.0, "val-core/<b>x</b>/__proto__": 0.5}
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "data": metrics}) + "\n")
    out = tmp_path / "report.html"
    write_report([read_run(run)], out, max_trajectories=100, written=WRITTEN)
    return out


def test_nothing_runs_and_every_text_is_shown(hostile: Path, open_page: Open) -> None:
    page = open_page(hostile)
    expect(page.locator(".verdict .run")).to_have_text("<img src=x onerror=alert(9)>")
    page.locator("#panel-evaluation").scroll_into_view_if_needed()
    page.wait_for_selector("#panel-evaluation [data-drawn]")
    expect(page.locator("#panel-evaluation .legendtext")).to_contain_text("<b>x</b>")
    page.goto(f"{hostile.as_uri()}#trajectories")
    expect(page.locator("#summary")).to_have_text(f"{len(HOSTILE)} of {len(HOSTILE)} trajectories")
    scripts, images = page.locator("script").count(), page.locator("img").count()
    for place, name in enumerate(HOSTILE):
        page.goto(f"{hostile.as_uri()}#trajectories/{place}")
        expect(page.locator(".side .facts").first).to_contain_text(name.replace("_", " "))
        for summary in page.locator("details:not([open]) > summary").all():
            if summary.is_visible():
                summary.click()
        expect(page.locator(".turn").first).to_be_visible()
    assert (page.locator("script").count(), page.locator("img").count()) == (scripts, images)
    assert page.locator("b b, .detail a, .detail style").count() == 0


def test_what_hides_is_made_visible(hostile: Path, open_page: Open) -> None:
    names = list(HOSTILE)
    page = open_page(hostile, f"#trajectories/{names.index('right_to_left')}")
    expect(page.locator(".question")).to_contain_text("\u27e8U+202E\u27e9gnp.exe")
    page.goto(f"{hostile.as_uri()}#trajectories/{names.index('nul')}")
    expect(page.locator(".question")).to_contain_text("a\u2400b\u2407c\u241b[31m")
    page.goto(f"{hostile.as_uri()}#trajectories/{names.index('surrogate')}")
    expect(page.locator(".question")).to_contain_text("\u27e8U+D83D\u27e9 alone \u27e8U+DC00\u27e9")


def test_the_policy_stops_script_that_gets_in(hostile: Path, chromium: Browser) -> None:
    """Even where markup entered the document, neither inline script nor a handler would run, nor anything load."""
    page = chromium.new_page()
    page.goto(hostile.as_uri())
    page.evaluate(
        """() => {
            window.ran = [];
            const image = "<img src='https://example.invalid/x' onerror='ran.push(1)'>";
            document.body.insertAdjacentHTML("beforeend", image);
            const script = document.createElement("script");
            script.textContent = "ran.push(2)";
            document.body.append(script);
        }"""
    )
    page.wait_for_timeout(300)
    assert page.evaluate("ran") == []
    page.close()


def test_a_line_of_a_megabyte_opens(tmp_path: Path, open_page: Open) -> None:
    run = tmp_path / "run"
    dump(run / "rollouts", {"long": "x" * 1_000_000})
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "data": {"critic/score/mean": 0.5}}) + "\n")
    out = tmp_path / "report.html"
    write_report([read_run(run)], out, max_trajectories=100, written=WRITTEN)
    page = open_page(out, "#trajectories/0")
    expect(page.locator(".turn").first).to_be_visible()
    page.get_by_role("button", name="Show all 2,000,0").first.click()
    expect(page.locator(".policy").first).to_contain_text("</search>")
