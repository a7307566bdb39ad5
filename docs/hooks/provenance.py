"""In which commit the figures of a file were written down, section by section, as git knows it."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime, timezone

from documented import ROOT

_HEAD = re.compile(r"^([0-9a-f]{40}) \d+ \d+")


def with_commits(text: str, source: str) -> str:
    """Return a file's Markdown with a line under its title and each of its headings that names the newest commit there.

    Without git, or in a clone without history, the text is returned as it is.
    """
    commits = _commits(source)
    lines = text.splitlines()
    if len(commits) != len(lines):
        return text
    starts = [number for number, line in enumerate(lines) if re.match(r"##? ", line)]
    ends = [*starts[1:], len(lines)]
    for start, end in sorted(zip(starts, ends, strict=True), reverse=True):
        newest, when = max(commits[start:end], key=lambda commit: commit[1])
        day = datetime.fromtimestamp(when, tz=timezone.utc).date().isoformat()
        said = f"last written in commit `{newest[:10]}` of {day}" if newest.strip("0") else "not committed yet"
        lines[start + 1 : start + 1] = ["", f"*{said[0].upper()}{said[1:]}.*"]
    return "\n".join(lines) + "\n"


def _commits(source: str) -> list[tuple[str, int]]:
    """Return commit and time of each line of a file; nothing where they are not to be had."""
    if _git("rev-parse", "--is-shallow-repository").strip() != "false":
        return []
    known: dict[str, int] = {}
    found = []
    current = ""
    for line in _git("blame", "--porcelain", "--", source).splitlines():
        if head := _HEAD.match(line):
            current = head[1]
        elif line.startswith("committer-time "):
            known[current] = int(line.split()[1])
        elif line.startswith("\t"):
            found.append((current, known[current]))
    return found


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
