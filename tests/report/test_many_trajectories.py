"""5,000 trajectories of 300 tokens stay usable in headless Chromium: first paint, opening, filtering, scrolling."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from verl_llds.report.trajectories import Tokens, Trajectory, Turn

NUM = 5000
FIRST_PAINT_MS = 2000
"""What issue 7 asks for."""
WORDS = [line for line in Path(__file__).read_text().split() if line.isalpha()]


@pytest.fixture(scope="module")
def many(
    tmp_path_factory: pytest.TempPathFactory,
    write_page: Callable[..., Path],
    make_trajectory: Callable[..., Trajectory],
) -> Path:
    rng = random.Random(0)

    def turn(size: int, observation: str) -> Turn:
        old = [round(-rng.expovariate(3), 4) for _ in range(size)]
        new = [round(value + rng.gauss(0, 0.1), 4) for value in old]
        texts = [f" {rng.choice(WORDS)}" for _ in range(size)]
        penalty = [max(0.0, round(before - after, 4)) for before, after in zip(old, new, strict=True)]
        tokens = Tokens(texts=texts, old=old, new=new, gate=[True] * size, penalty=penalty, answer=[False] * size)
        return Turn(text="".join(texts), tokens=tokens, observation=observation, kind="call", status="result")

    passages = "".join(
        f"Doc {number}(Title: T{number}) {' '.join(rng.choices(WORDS, k=100))}\n" for number in (1, 2, 3)
    )
    trajectories = [
        make_trajectory(
            number,
            correct=rng.random() < 0.5,
            step=1 + number // 100,
            turns=(turn(100, f"\n\n<information>{passages}</information>\n\n"), turn(100, passages), turn(100, "")),
        )
        for number in range(NUM)
    ]
    return write_page(tmp_path_factory.mktemp("many") / "many.html", trajectories)


def test_first_paint(many: Path, chromium: Browser, record_property: Callable[[str, object], None]) -> None:
    paints = []
    for _ in range(3):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{many.as_uri()}#trajectories")
        expect(page.locator("#summary")).to_have_text("5,000 of 5,000 trajectories", timeout=60_000)
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        listed = page.evaluate("performance.now()")
        context.close()
    size = many.stat().st_size / 1e6
    print(f"\nfirst paint {min(paints):.0f} ms (best of {[round(paint) for paint in paints]})")
    print(f"list after {listed:.0f} ms, {size:.1f} MB")
    record_property("first_paint_ms", min(paints))
    # The best of three: other work on the machine is not the page's.
    assert min(paints) < FIRST_PAINT_MS


def test_it_stays_usable(many: Path, open_page: Callable[..., Page]) -> None:
    page = open_page(many, "#trajectories")
    expect(page.locator("#summary")).to_have_text("5,000 of 5,000 trajectories")
    # Only rows in sight are built.
    assert page.locator(".space .row").count() < 100
    page.locator(".rows").focus()
    page.keyboard.press("End")
    expect(page.locator(".space .row.active")).to_have_attribute("aria-rowindex", str(NUM + 1))
    page.keyboard.press("Enter")
    expect(page.locator(".policy .token")).to_have_count(300)
    took = page.evaluate(
        """async () => {
            const before = performance.now();
            const box = document.querySelector("input[type=search]");
            box.value = "country 7";
            box.dispatchEvent(new Event("input"));
            return performance.now() - before;
        }"""
    )
    assert took < 500, "filtering must feel immediate"
    expect(page.locator("#summary")).not_to_have_text("5,000 of 5,000 trajectories")
