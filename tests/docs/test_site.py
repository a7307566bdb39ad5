"""The site builds without a warning, leads nowhere else than it says, fetches nothing, and leaves nothing out."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from command_blocks import ROOT
from links import MIRRORED, relink, section
from message_text import MessageText
from messages_page import error_classes, messages
from provenance import with_commits
from site_pages import PageFacts, broken_links, fetched_from_elsewhere, read_site

from verl_llds.trackers.catalogue import METRICS

CONFIG = ROOT / "verl_llds" / "config"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, PageFacts]:
    """Every page by its path."""
    return read_site(site)


def test_every_page_of_the_sources_is_there(site: Path, pages: dict[str, PageFacts]) -> None:
    assert not list(site.rglob("*.py"))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").glob("*.md")}
    generated = {"settings.md", "choices.md", "commands.md", "messages.md"}
    expected = {path.removesuffix(".md") + ".html" for path in written | generated | set(MIRRORED.values())}
    assert set(pages) == expected | {"404.html"}


def test_every_repository_page_that_people_read_is_on_the_site() -> None:
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*/*.md")}
    assert found | {"recipes/README.md", "recipes/RESULTS.md", "benchmarks/RESULTS.md"} == set(MIRRORED)


def test_internal_links_and_their_anchors_exist(site: Path, pages: dict[str, PageFacts]) -> None:
    # The page for what is not found is served at any depth, so its links begin at the root.
    assert not broken_links(site, {name: page for name, page in pages.items() if name != "404.html"})


def test_external_links_are_well_formed(pages: dict[str, PageFacts]) -> None:
    external = {link for page in pages.values() for link in page.links if urlsplit(link).scheme}
    assert external
    for link in external:
        parts = urlsplit(link)
        assert parts.scheme == "https", link
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), link


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[str, PageFacts]) -> None:
    assert all(page.loaded for page in pages.values())
    assert not fetched_from_elsewhere(pages)
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_a_broken_site_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.html").write_text(
        '<link rel="stylesheet" href="a.css"><script src="https://cdn.org/x.js"></script><style>p{}</style>'
        '<a href="sub/b.html#there">1</a><a href="sub/b.html#gone">2</a><a href="gone.html">3</a><a href="#top">4</a>'
    )
    (tmp_path / "sub" / "b.html").write_text(
        '<h1 id="there">B &amp; <code>x</code></h1><a href="../a.html">up</a><img src="gone.png">'
        '<p style="background: url(//cdn.org/p.png)"><a href="https://d.org">out</a>'
    )
    pages = read_site(tmp_path)
    assert broken_links(tmp_path, pages) == [
        "a.html: sub/b.html#gone",
        "a.html: gone.html",
        "a.html: #top",
        "a.html: a.css",
        "sub/b.html: gone.png",
    ]
    assert [line.partition(":")[0] for line in fetched_from_elsewhere(pages)] == ["a.html", "sub/b.html"]
    assert pages["sub/b.html"].codes == {"x"}
    assert pages["sub/b.html"].text == "B & xupout"


def test_every_metric_is_explained(pages: dict[str, PageFacts]) -> None:
    page = pages["metrics.html"]
    assert {metric.name for metric in METRICS} <= page.codes
    for metric in METRICS:
        for text in (metric.meaning, metric.healthy, metric.remedy):
            assert " ".join(text.split()) in " ".join(page.text.split()), metric.name
    logged = set(page.text.split())
    assert {name for metric in METRICS for name in metric.names} <= logged


def settings_classes() -> dict[str, ast.ClassDef]:
    """Return every class whose name says that it holds settings, by name, from the source."""
    paths = [*ROOT.glob("verl_llds/**/*.py"), *ROOT.glob("retriever_server/**/*.py")]
    nodes = [node for path in paths for node in ast.parse(path.read_text(encoding="utf-8")).body]
    return {
        node.name: node
        for node in nodes
        if isinstance(node, ast.ClassDef) and re.fullmatch(r"\w+(Config|Settings)|Decoding", node.name)
    }


def test_every_setting_is_explained(pages: dict[str, PageFacts]) -> None:
    page, classes = pages["settings.html"], settings_classes()
    assert {"LLDSConfig", "SearchConfig", "PhaseConfig", "EvalSettings", "ServeSettings"} <= set(classes)
    text = " ".join(page.text.split())
    for name, node in classes.items():
        fields = [one.target.id for one in node.body if isinstance(one, ast.AnnAssign)]
        assert fields, name
        shown = page.codes | {anchor.rpartition(".")[2] for anchor in page.anchors}
        assert set(fields) <= shown, name
        documented = [one.value.value for one in node.body[1:] if isinstance(one, ast.Expr)]
        assert len(documented) == len(fields), f"{name}: each field has a docstring under it"
        for first in (documentation.split("\n\n")[0] for documentation in documented):
            # Code is code in both; what is compared is what is read.
            assert " ".join(first.replace("`", "").split()) in text, name


def test_every_choice_is_shown_with_its_comments(pages: dict[str, PageFacts]) -> None:
    page = pages["choices.html"]
    files = sorted(CONFIG.glob("*/*.yaml"))
    assert len(files) > 40
    for path in files:
        assert f"{path.parent.name}={path.stem}" in page.anchors
        text = path.read_text(encoding="utf-8").rstrip()
        assert text in page.text, path
        yaml.safe_load(text)


def test_every_error_has_its_cause_and_remedy(pages: dict[str, PageFacts]) -> None:
    classes, found = error_classes(), messages()
    assert {"ConfigError", "RolloutError", "IndexMismatchError", "DeviceMemoryError"} <= set(classes)
    for name in classes:
        assert name in pages["troubleshooting.html"].codes, name
        assert name in pages["messages.html"].anchors, name
    for heading, by_module in found.items():
        for texts in by_module.values():
            assert set(texts) <= pages["messages.html"].codes, heading


def test_every_raised_error_of_ours_has_a_message_on_the_page() -> None:
    found = messages()
    # Roots and errors whose text is made elsewhere have none of their own.
    silent = {"LLDSError", "RetrieverError", "ToolError", "CollapseError"}
    assert set(error_classes()) - silent <= set(found)


@pytest.mark.parametrize(
    ("expression", "texts"),
    [
        ("'plain'", ["plain"]),
        ("f'{name} is not there'", ["… is not there"]),
        ("f'at most {LIMIT}'", ["at most 3 a day"]),
        ("'a' + (' b' if name else ' c')", ["a b", "a c"]),
        ("hint", ["try again"]),
        ("f'{remedy}'", []),
        ("str(error)", []),
    ],
)
def test_a_message_is_read_off_its_expression(expression: str, texts: list[str]) -> None:
    tree = ast.parse(
        "LIMIT = '3 a day'\n"
        "def other():\n    remedy = 'not this one'\n"
        f"def check(name, remedy):\n    hint = 'go'\n    hint = 'try again'\n    return {expression}\n"
    )
    (returned,) = [node for node in ast.walk(tree) if isinstance(node, ast.Return)]
    assert returned.value is not None
    assert MessageText(tree, "…").of(returned.value) == texts


def test_links_of_the_repository_lead_to_pages() -> None:
    text = (
        "[a](../README.md#on-a-laptop-first) [b](README.md#gpu-memory) [`x`](../verl_llds/errors.py) [c](https://d.org)\n"
        "```bash\n[kept](nowhere.md)\n```\n"
    )
    assert relink(text, "recipes/RESULTS.md", "results/recipes.md") == (
        "[a](../quickstart.md) [b](../recipes.md#gpu-memory) `x` (`verl_llds/errors.py`) [c](https://d.org)\n"
        "```bash\n[kept](nowhere.md)\n```\n"
    )
    with pytest.raises(ValueError, match=r"there is no recipes/gone\.md"):
        relink("[a](gone.md)", "recipes/README.md", "recipes.md")


def test_a_section_is_what_stands_under_its_heading() -> None:
    text = "# Title\n\n## One\n\nfirst\n\n### Below\n\nmore\n\n## Two\n\nsecond\n"
    assert section(text, "One", "x.md") == "first\n\n### Below\n\nmore"
    assert section(text, "Two", "x.md") == "second"
    with pytest.raises(ValueError, match="no heading 'Three'"):
        section(text, "Three", "x.md")


def test_figures_name_the_commit_that_wrote_them() -> None:
    text = (ROOT / "recipes" / "RESULTS.md").read_text(encoding="utf-8")
    found = with_commits(text, "recipes/RESULTS.md")
    if found == text:
        pytest.skip("this clone has no history")
    assert re.match(
        r"# .*\n\n\*(Last written in commit `[0-9a-f]{10}` of \d{4}-\d\d-\d\d|Not committed yet)\.\*\n", found
    )
    assert re.sub(r"\n\*(Last written|Not committed).*\n", "", found) == text
