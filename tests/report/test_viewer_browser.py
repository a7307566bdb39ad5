"""The trajectory viewer in a real browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from verl_llds.report.run_folder import read_run
from verl_llds.report.trajectories import Trajectory, Turn
from verl_llds.report.write import write_report

SEARCHES = Path(__file__).parent / "data" / "searches"
Open = Callable[..., Page]


@pytest.fixture(scope="session")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    write_page: Callable[..., Path],
    make_trajectory: Callable[..., Trajectory],
) -> Path:
    """Forty trajectories in groups of four, of which the first is wrong in every second group."""
    trajectories = [
        make_trajectory(number, answer="Rome", correct=False)
        if number % 8 == 0
        else make_trajectory(number, num_searches=number % 3)
        for number in range(40)
    ]
    return write_page(tmp_path_factory.mktemp("made") / "made.html", trajectories)


def count(page: Page, text: str) -> None:
    expect(page.locator("#summary")).to_have_text(f"{text} trajectories")


def test_filters_keep_what_they_say(made: Path, open_page: Open) -> None:
    page = open_page(made, "#trajectories")
    count(page, "40 of 40")
    page.get_by_label("Outcome", exact=True).select_option("wrong")
    count(page, "5 of 40")
    page.get_by_label("Outcome", exact=True).select_option("")
    page.get_by_label("Data set", exact=True).select_option("hotpotqa")
    count(page, "20 of 40")
    page.get_by_label("Data set", exact=True).select_option("")
    page.get_by_label("Searches", exact=True).select_option("2")
    count(page, "11 of 40")
    page.get_by_label("Searches", exact=True).select_option("")
    page.get_by_label("Step, least", exact=True).fill("2")
    page.get_by_label("Step, most", exact=True).fill("3")
    count(page, "16 of 40")
    page.get_by_label("Reward, most", exact=True).fill("0.5")
    count(page, "2 of 40")
    page.get_by_label("Reward, most", exact=True).fill("")
    page.get_by_label("groups with right and wrong").check()
    count(page, "8 of 40")
    page.get_by_role("searchbox").fill("country 4")
    count(page, "4 of 40")


def test_columns_sort_both_ways(made: Path, open_page: Open) -> None:
    page = open_page(made, "#trajectories")
    head = page.locator("[data-column=step]")
    first = page.locator(".space .row [role=gridcell]").first
    expect(head).to_have_attribute("aria-sort", "ascending")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    expect(first).to_have_text("5")
    page.locator("[data-column=reward]").get_by_role("button").click()
    page.locator("[data-column=reward]").get_by_role("button").click()
    expect(page.locator(".space .row").first).to_contain_text("\u2717 0")


def test_the_keyboard_alone_is_enough(made: Path, open_page: Open) -> None:
    page = open_page(made, "#trajectories")
    page.locator(".rows").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "End", "Home", "ArrowDown"):
        page.keyboard.press(key)
    expect(page.locator(".space .row.active")).to_have_attribute("aria-rowindex", "3")
    page.keyboard.press("Enter")
    expect(page.locator(".question")).to_be_focused()
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile("#trajectories/2$"))
    page.keyboard.press("c")
    expect(page.locator(".side")).to_have_count(2)
    page.keyboard.press("Escape")
    expect(page.locator(".side")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator(".side")).to_have_count(0)
    expect(page.locator(".rows")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()


def test_a_trajectory_is_laid_out_by_turn(made: Path, open_page: Open) -> None:
    page = open_page(made, "#trajectories/1")
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn >> nth=0 >> .policy")).to_have_text(
        "<think> I look it up . </think> <search> capital of France </search>"
    )
    expect(page.locator(".turn >> nth=0 >> header")).to_contain_text("\u0394 of the action +2.4 (fell)")
    passage = page.locator(".passage").first
    expect(passage.locator(".observed")).to_be_hidden()
    page.locator(".observation > summary").first.click()
    passage.locator("summary").click()
    expect(passage.locator(".observed")).to_have_text("The capital is Paris.")
    expect(passage.locator("summary")).to_contain_text("France")


def test_tokens_are_coloured_by_what_is_asked_and_explained(made: Path, open_page: Open) -> None:
    page = open_page(made, "#trajectories/1")
    token = page.locator(".turn >> nth=0 >> .token").nth(2)
    expect(token).to_have_class(re.compile("fell-2.*open"))
    expect(page.locator(".turn >> nth=1 >> .token").first).to_have_class(re.compile("rose-2"))
    token.hover()
    tip = page.locator("#tip")
    for fact in ("+0.2 (fell)", "\u22120.2", "\u22120.4", "open"):
        expect(tip).to_contain_text(fact)
    page.get_by_label("Tokens coloured by", exact=True).select_option("none")
    expect(page.locator(".turn >> nth=0 >> .token").nth(2)).not_to_have_class(re.compile("fell"))
    page.mouse.move(5, 5)
    page.locator(".policy").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".token.current")).to_have_count(1)
    expect(tip).to_be_visible()


def test_siblings_stand_side_by_side_with_their_common_prefix(made: Path, open_page: Open) -> None:
    page = open_page(made, "#trajectories/0")
    page.get_by_role("button", name="Compare with the most similar sibling").click()
    expect(page.locator(".side")).to_have_count(2)
    expect(page.locator(".parting")).to_have_count(2)
    for side in (0, 1):
        turn = page.locator(".side").nth(side).locator(".turn")
        expect(turn.nth(0).locator(".token.common")).to_have_count(12)
        # "<answer>" is common to both, the answers are not.
        expect(turn.nth(1).locator(".token.common")).to_have_count(1)
        expect(turn.nth(0).locator(".observation > summary")).to_contain_text("the same in both")
    page.go_back()
    expect(page.locator(".side")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_accessible(recorded: Path, open_page: Open, scheme: str) -> None:
    page = open_page(recorded, "#trajectories/0", color_scheme=scheme)
    page.wait_for_selector(".turn")
    page.locator(".observation > summary").first.click()
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []


def test_a_real_run_shows_its_dumps(recorded: Path, open_page: Open) -> None:
    page = open_page(recorded, "#trajectories")
    count(page, "32 of 32")
    page.get_by_label("Step, most").fill("1")
    count(page, "16 of 32")
    page.locator(".space .row").first.click()
    expect(page.locator(".question")).to_contain_text("What is the capital of")
    expect(page.locator(".turn").first).to_contain_text("<tool_call>")
    expect(page.locator(".observation").first).to_contain_text("1 passage")
    expect(page.locator(".detail")).to_contain_text("diagnostics.trajectories.every")


def test_siblings_of_a_real_run_part_where_one_goes_wrong(searched: Path, open_page: Open) -> None:
    """The paper's first case study in a recorded run: one search in both, LLDS protects it in the right one alone."""
    page = open_page(searched, "#trajectories")
    page.get_by_label("groups with right and wrong").check()
    page.get_by_label("Outcome", exact=True).select_option("wrong")
    page.locator(".space .row").first.click()
    page.get_by_role("button", name="Compare with the most similar sibling").click()
    wrong, right = page.locator(".side").nth(0), page.locator(".side").nth(1)
    for side in (wrong, right):
        search = side.locator(".turn").first
        expect(search.locator(".policy")).to_contain_text("<search> capital of")
        expect(search.locator(".token.common")).to_have_count(search.locator(".token").count())
        expect(search.locator(".token:not([class*=fell]):not([class*=rose])")).not_to_have_count(0)
        expect(search.locator(".token[class*=fell], .token[class*=rose]")).not_to_have_count(0)
    expect(wrong).to_contain_text("LLDS leaves it")
    expect(right).to_contain_text("LLDS protects it")
    expect(right.locator(".turn >> nth=0 >> .token.open")).not_to_have_count(0)
    expect(wrong.locator(".token.open")).to_have_count(0)
    right.locator(".token.open").first.hover()
    expect(page.locator("#tip")).to_contain_text("gate")


def test_a_run_without_trajectories_says_how_to_get_them(compared: Path, open_page: Open) -> None:
    page = open_page(compared, "#trajectories")
    expect(page.locator("#viewer .note")).to_contain_text("trainer.rollout_data_dir")


SLOW_CHUNKS = """() => {
    const real = window.DecompressionStream, gates = [];
    window.openGate = (number) => gates[number]();
    window.DecompressionStream = function (format) {
        const stream = new real(format);
        const opened = new Promise((resolve) => gates.push(resolve));
        const wait = new TransformStream({ flush: () => opened });
        stream.readable.pipeTo(wait.writable);
        return { readable: wait.readable, writable: stream.writable };
    };
}"""
"""Each chunk asked for from now on arrives once its gate is opened."""


def test_what_was_asked_for_last_is_shown_whichever_chunk_arrives_last(made: Path, open_page: Open) -> None:
    page = open_page(made, "#trajectories")
    count(page, "40 of 40")
    page.evaluate(SLOW_CHUNKS)
    for place in (0, 33):
        page.evaluate(f"location.hash = '#trajectories/{place}'")
    page.wait_for_function("window.openGate && location.hash === '#trajectories/33'")
    page.evaluate("openGate(1)")
    expect(page.locator(".question")).to_have_text("What is the capital of country 8?")
    page.evaluate("openGate(0)")
    settle(page)
    expect(page.locator(".question")).to_have_text("What is the capital of country 8?")
    expect(page.locator(".space .row.active")).to_have_attribute("aria-rowindex", "35")


def test_what_was_closed_before_it_arrived_stays_closed(made: Path, open_page: Open) -> None:
    page = open_page(made, "#trajectories")
    count(page, "40 of 40")
    page.evaluate(SLOW_CHUNKS)
    for fragment in ("#trajectories/5", "#trajectories"):
        page.evaluate(f"location.hash = '{fragment}'")
    page.wait_for_selector(".detail .empty")
    page.evaluate("openGate(0)")
    settle(page)
    expect(page.locator(".question")).to_have_count(0)
    expect(page.locator(".space .row.active")).to_have_attribute("aria-rowindex", "2")


def settle(page: Page) -> None:
    """Let everything that waits for a chunk go on."""
    page.evaluate("new Promise((resolve) => setTimeout(() => requestAnimationFrame(resolve), 300))")


def plain(make_trajectory: Callable[..., Trajectory], number: int, text: str, *, correct: bool) -> Trajectory:
    return make_trajectory(number, correct=correct, group="g", step=1, turns=[Turn(text=text)])


def test_the_sibling_to_compare_with_shares_the_most_with_this_one(
    make_trajectory: Callable[..., Trajectory], write_page: Callable[..., Path], tmp_path: Path, open_page: Open
) -> None:
    # The second shares as much as the first, but with the last one.
    texts = ["I look up France.", "We ask of Rome.", "I look up Spain.", "We ask of Oslo."]
    rows = [plain(make_trajectory, place, text, correct=place in (1, 2)) for place, text in enumerate(texts)]
    page = open_page(write_page(tmp_path / "siblings.html", rows), "#trajectories/0")
    page.get_by_role("button", name="Compare with the most similar sibling").click()
    expect(page).to_have_url(re.compile("#trajectories/0/2$"))
    expect(page.locator(".side .common")).to_have_text(["I look up ", "I look up "])


def test_no_character_is_cut_in_two(
    make_trajectory: Callable[..., Trajectory], write_page: Callable[..., Path], tmp_path: Path, open_page: Open
) -> None:
    # Both faces begin with the same half; the long text has its twenty-thousandth place within one.
    long = "x" + "\U0001f600" * 15_000
    texts = ["The face \U0001f600 x", "The face \U0001f601 y", f"{long}a", f"{long}b"]
    rows = [plain(make_trajectory, place, text, correct=place % 2 == 1) for place, text in enumerate(texts)]
    rows[2:] = [replace(row, group="long") for row in rows[2:]]
    page = open_page(write_page(tmp_path / "faces.html", rows), "#trajectories/0/1")
    expect(page.locator(".side .common")).to_have_text(["The face "] * 2)
    expect(page.locator(".side .policy").first).to_have_text(re.compile("The face they part here\U0001f600 x"))
    page.goto(page.url.replace("/0/1", "/2/3"))
    expect(page.locator(".side .common").first).to_have_text(re.compile("x(\U0001f600)+ Show all 30,001 characters"))
    assert "\u27e8" not in page.locator(".sides").inner_text()
    for _ in range(2):
        page.get_by_role("button", name="Show all").first.click()
    expect(page.locator(".side .common")).to_have_text([long] * 2)


def test_the_list_says_what_was_left_out(tmp_path: Path, open_page: Open) -> None:
    out = tmp_path / "report.html"
    write_report([read_run(SEARCHES)], out, max_trajectories=20, written=datetime(2026, 1, 31))
    page = open_page(out, "#trajectories")
    count(page, "20 of 20")
    expect(page.locator(".summary")).to_contain_text("92 were found: --max-trajectories sets how many the file holds")
