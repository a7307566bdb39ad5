"""The report in a real browser: of a recorded run, and of two runs on top of each other."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from verl_llds.report.paper_figures import PAPER_FIGURES
from verl_llds.report.run_figures import RUN_FIGURES

Open = Callable[..., Page]
PANELS = [panel.key for figure in PAPER_FIGURES + RUN_FIGURES for panel in figure.panels]


def see(page: Page, key: str) -> None:
    """Scroll to a plot and wait until it is drawn or says why not."""
    page.locator(f"#panel-{key}").scroll_into_view_if_needed()
    page.wait_for_selector(f"#panel-{key} .canvas[data-drawn], #panel-{key} .missing", timeout=60_000)


def saved(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return Path(download.value.path()).read_text()


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_a_real_run_is_drawn(recorded: Path, open_page: Open) -> None:
    page = open_page(recorded)
    expect(page.locator(".verdict .words")).to_contain_text("step")
    for key in PANELS:
        see(page, key)
    drawn = [
        key
        for key in PANELS
        if page.locator(f"#panel-{key} .canvas[data-drawn] .scatterlayer .trace, #panel-{key} .barlayer .trace").count()
    ]
    # It had no evaluation, no forward pass after an update, and no group with right and wrong trajectories.
    lacking = {"evaluation", "class_share", "log_ratio", "correct_log_prob", "action_log_prob", "observation_match"}
    assert set(PANELS) - set(drawn) == lacking


def test_what_was_not_logged_says_what_would_log_it(compared: Path, open_page: Open) -> None:
    page = open_page(compared)
    see(page, "log_ratio")
    expect(page.locator("#panel-log_ratio .missing")).to_contain_text("diagnostics.post_update_every=1")
    expect(page.get_by_role("button", name="Likelihood-ratio spikes: table")).to_be_hidden()


def test_phases_are_shaded_and_named_in_words(compared: Path, open_page: Open) -> None:
    page = open_page(compared)
    see(page, "reward")
    expect(page.locator("#panel-reward .shapelayer path")).to_have_count(3)
    expect(page.locator("#ribbon-0")).to_have_attribute(
        "aria-label",
        "healthy, steps 1 to 24; stagnation, steps 25 to 26; decay, steps 27 to 31; collapsed, steps 32 to 80",
    )
    page.get_by_label("Phases shaded").select_option("")
    expect(page.locator("#panel-reward .shapelayer path")).to_have_count(0)


def test_runs_are_overlaid_and_can_be_hidden(compared: Path, open_page: Open) -> None:
    page = open_page(compared)
    see(page, "runs_reward")
    lines = page.locator("#panel-runs_reward .scatterlayer .trace")
    expect(lines).to_have_count(2)
    page.get_by_role("button", name="holds").click()
    expect(lines).to_have_count(1)


def test_hovering_gives_values_and_dragging_zooms_every_plot(compared: Path, open_page: Open) -> None:
    page = open_page(compared)
    see(page, "reward")
    box = page.locator("#panel-reward .nsewdrag").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    expect(page.locator("#panel-reward .hoverlayer")).to_contain_text("reward")
    page.mouse.move(box["x"] + box["width"] * 0.25, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, middle, steps=5)
    page.mouse.up()
    first = page.get_by_label("First step shown")
    expect(first).not_to_have_value("1")
    shown = int(first.input_value())
    see(page, "entropy")
    page.get_by_role("button", name="Entropy of the policy: table").click()
    expect(page.locator("#panel-entropy tbody th").first).to_have_text(str(shown))
    page.get_by_role("button", name="All steps").click()
    expect(page.locator("#panel-entropy tbody th").first).to_have_text("1")


def test_tables_and_files_hold_what_was_logged(compared: Path, open_page: Open) -> None:
    page = open_page(compared)
    see(page, "reward")
    rows = list(csv.reader(io.StringIO(saved(page, "Reward: download CSV"))))
    assert rows[0] == ["step", "collapses: reward", "holds: reward"]
    logged = [
        json.loads(line)
        for line in (Path(__file__).parents[1] / "diagnostics/data/collapses.jsonl").read_text().splitlines()
    ]
    values = {row["step"]: row["data"]["critic/score/mean"] for row in logged if "step" in row}
    assert {int(step): float(value) for step, value, _ in rows[1:]} == pytest.approx(values, rel=1e-5)
    page.get_by_role("button", name="Reward: table", exact=True).click()
    expect(page.locator("#panel-reward tbody tr")).to_have_count(len(rows) - 1)
    curves = json.loads(saved(page, "Reward: download JSON"))["curves"]
    assert [curve["run"] for curve in curves] == ["collapses", "holds"]
    everything = list(csv.reader(io.StringIO(saved(page, "All metrics, CSV"))))
    assert everything[0][:2] == ["run", "step"]
    assert "llds/probe/log_prob" in everything[0]


def test_any_metric_can_be_drawn(compared: Path, open_page: Open) -> None:
    page = open_page(compared)
    see(page, "any")
    page.get_by_label("Metric", exact=True).select_option("search/answer_share")
    expect(page.locator("#panel-any h3")).to_contain_text("search/answer_share")
    expect(page.locator("#panel-any .canvas")).to_have_attribute("aria-label", re.compile("search/answer_share"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_are_accessible(recorded: Path, open_page: Open, scheme: str) -> None:
    page = open_page(recorded, color_scheme=scheme)
    for key in ("reward", "status", "timing"):
        see(page, key)
    page.get_by_role("button", name="Reward: table", exact=True).click()
    assert serious(page) == []


def test_the_theme_can_be_chosen(compared: Path, open_page: Open) -> None:
    page = open_page(compared, color_scheme="dark")
    see(page, "reward")
    ink = "getComputedStyle(document.querySelector('#panel-reward .xtick text')).fill"
    dark = page.evaluate(ink)
    page.locator("#theme").click()
    expect(page.locator("#theme")).to_have_text("Theme: light")
    page.wait_for_function(f"{ink} !== '{dark}'")
