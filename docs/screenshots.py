"""Makes the pictures of the report and the trajectory viewer in docs/images, with Debian's Chromium.

    python docs/screenshots.py

The report is that of two recorded runs of examples/collapse_lab, one of which collapses; the viewer shows a recorded
run of verl's trainer on the CPU, tests/report/data/searches: a wrong trajectory beside its right sibling.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from verl_llds.report.run_folder import read_run
from verl_llds.report.write import write_report

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent / "tests"
LAB = [TESTS / "diagnostics" / "data" / f"{name}.jsonl" for name in ("collapses", "holds")]
RUN = TESTS / "report" / "data" / "searches"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
SIZE = {"width": 1360, "height": 850}


def main() -> int:
    """Write all pictures; return the exit status."""
    found = shutil.which("chromium")
    if found is None:
        print("screenshots: chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        report, viewer = Path(folder, "report.html"), Path(folder, "viewer.html")
        written = datetime.now()
        write_report([read_run(path) for path in LAB], report, max_trajectories=0, written=written)
        write_report([read_run(RUN)], viewer, max_trajectories=5000, written=written)
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        for scheme in ("light", "dark"):
            take_report(opened(browser, report, scheme), HERE / "images" / f"report-{scheme}.png")
            take_viewer(opened(browser, viewer, scheme), HERE / "images" / f"viewer-{scheme}.png")
        browser.close()
    return 0


def opened(browser: Browser, path: Path, scheme: str) -> Page:
    """Return a page with the file, its script started."""
    page = browser.new_page(viewport=SIZE, color_scheme="dark" if scheme == "dark" else "light")
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    return page


def take_report(page: Page, out: Path) -> None:
    """Show the verdict and the first figures."""
    page.set_viewport_size({**SIZE, "height": 1750})
    page.wait_for_selector("#panel-entropy [data-drawn]")
    page.wait_for_timeout(500)
    page.screenshot(path=out)
    print(out)


def take_viewer(page: Page, out: Path) -> None:
    """Show a wrong trajectory beside a right one of the same question, token by token."""
    page.goto(page.url.partition("#")[0] + "#trajectories")
    page.get_by_label("groups with right and wrong").check()
    page.get_by_label("Outcome", exact=True).select_option("wrong")
    page.locator(".space .row").first.click()
    page.get_by_role("button", name="Compare with the most similar sibling").click()
    page.locator(".observation > summary").first.click()
    page.wait_for_timeout(200)
    page.screenshot(path=out)
    print(out)


if __name__ == "__main__":
    sys.exit(main())
