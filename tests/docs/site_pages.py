"""What a page of the built site holds: its text, its anchors, its links and what it loads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "srcset", "video": "src", "audio": "src"}
"""Attributes that make a browser fetch something by itself."""

_LOADING_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
_SILENT = {"script", "style"}


@dataclass
class PageFacts(HTMLParser):
    """One page."""

    links: list[str] = field(default_factory=list)
    """Targets of its links."""
    loaded: list[str] = field(default_factory=list)
    """What it fetches: scripts, styles, pictures, fonts."""
    anchors: set[str] = field(default_factory=set)
    """Ids and names."""
    text: str = ""
    """What is read."""
    codes: set[str] = field(default_factory=set)
    """Texts that are code."""
    styles: str = ""
    """Styles within the page."""

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self._code = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.styles += values.get("style", "")
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if LOADING.get(tag) in values:
            self.loaded.append(values[LOADING[tag]])
        if tag == "link" and set(values.get("rel", "").split()) & _LOADING_RELATIONS:
            self.loaded.append(values["href"])
        if tag == "code":
            self._code = ""
        if tag in _SILENT or tag == "code":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "code":
            self.codes.add(self._code.strip())
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "style":
            self.styles += data
        if inside not in _SILENT:
            self.text += data
        if inside == "code":
            self._code += data


def read_page(path: Path) -> PageFacts:
    page = PageFacts()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def read_site(folder: Path) -> dict[str, PageFacts]:
    """Return every page by its path."""
    return {path.relative_to(folder).as_posix(): read_page(path) for path in sorted(folder.rglob("*.html"))}


def broken_links(folder: Path, pages: dict[str, PageFacts]) -> list[str]:
    """Return each link within the site, and each thing a page loads, that is not there or lacks its anchor."""
    broken = []
    for name, page in pages.items():
        for target in [*page.links, *page.loaded]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            path = ((folder / name).parent / unquote(parts.path)).resolve() if parts.path else (folder / name).resolve()
            is_page = path.suffix == ".html" and path.is_file()
            anchors = pages[path.relative_to(folder.resolve()).as_posix()].anchors if is_page else set()
            if not path.is_file() or (parts.fragment and is_page and unquote(parts.fragment) not in anchors):
                broken.append(f"{name}: {target}")
    return broken


def fetched_from_elsewhere(pages: dict[str, PageFacts]) -> list[str]:
    """Return what pages would load from another server."""
    return [
        f"{name}: {target}"
        for name, page in pages.items()
        for target in [*page.loaded, *re.findall(r"url\(([^)]*)\)|@import (\S+)", page.styles)]
        if isinstance(target, tuple) or urlsplit(target).netloc
    ]
