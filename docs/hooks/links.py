"""Pages that are files elsewhere in the repository, and links between them.

Such a file links to its neighbours as they lie in the repository, where it is read too. On the site a link to a file
that is a page leads there; one to any other file becomes its path, since the site does not hold it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable

from documented import ROOT

MIRRORED = {
    "recipes/README.md": "recipes.md",
    "recipes/RESULTS.md": "results/recipes.md",
    "benchmarks/RESULTS.md": "results/benchmarks.md",
    "examples/collapse_lab/RESULTS.md": "results/collapse_lab.md",
    "examples/collapse_lab/README.md": "examples/collapse_lab.md",
    "examples/custom_tool/README.md": "examples/custom_tool.md",
    "examples/laptop_search/README.md": "examples/laptop_search.md",
    "examples/laptop_smollm2/README.md": "examples/laptop_smollm2.md",
    "examples/multi_node/README.md": "examples/multi_node.md",
}
"""Files of the repository and the pages that they are."""

SECTIONS = {
    "README.md#on-a-laptop-first": "quickstart.md",
    "README.md": "index.md",
}
"""What pages hold instead of parts of a file that is no page itself."""

_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_INCLUDE = re.compile(r'^<!-- include: (\S+) "([^"]+)" -->$', re.MULTILINE)


def relink(text: str, source: str, page: str) -> str:
    """Return the Markdown of a page with its links as the site has them.

    Args:
        text: as in the repository.
        source: path of the file it comes from, from the repository's root.
        page: path of the page, from the site's root.

    Raises:
        ValueError: for a link to a file that does not exist.
    """

    def replaced(match: re.Match[str]) -> str:
        bang, label, target = match.groups()
        if re.match(r"[a-z]+:|#|/", target):
            return match[0]
        path, _, anchor = target.partition("#")
        full = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        found = _page_of(full, anchor)
        if found is None:
            if not (ROOT / full).exists():
                raise ValueError(f"{source} links to {target}, and there is no {full}")
            return match[0] if bang else f"{label} (`{full}`)" if full not in label else label
        start = posixpath.dirname(page) or "."
        return f"{bang}[{label}]({posixpath.relpath(found, start)})"

    return outside_fences(text, lambda part: _LINK.sub(replaced, part))


def include(text: str, page: str) -> str:
    """Return a page with each ``<!-- include: FILE "Heading" -->`` replaced by what stands under that heading.

    Raises:
        ValueError: if the file has no such heading.
    """

    def included(match: re.Match[str]) -> str:
        file, heading = match.groups()
        return relink(section((ROOT / file).read_text(encoding="utf-8"), heading, file), file, page)

    return _INCLUDE.sub(included, text)


def section(text: str, heading: str, where: str) -> str:
    """Return what stands under a heading of the second level, up to the next one.

    Raises:
        ValueError: if there is none.
    """
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"{where} has no heading {heading!r}")
    return found[1].strip()


def outside_fences(text: str, change: Callable[[str], str]) -> str:
    """Return a text with a change made to all of it but its fenced blocks."""
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def _page_of(path: str, anchor: str) -> str | None:
    """Return the page with an anchor that a file is on the site, or None."""
    for known in (f"{path}#{anchor}", path):
        if known in SECTIONS:
            return SECTIONS[known]
    page = MIRRORED.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    return None if page is None else f"{page}#{anchor}" if anchor else page
