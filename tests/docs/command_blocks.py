"""The blocks of commands in the documentation, and the commands in them as a shell would take them apart."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FOLDERS = ("docs", "recipes", "benchmarks", "examples/*")
SOURCES = [ROOT / "README.md", *(path for folder in _FOLDERS for path in sorted(ROOT.glob(f"{folder}/*.md")))]
"""What people read."""

_BLOCK = re.compile(r"^( *)```(bash|sh|shell|console)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]*)"')
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Command:
    """One command."""

    program: str
    """What is run: ``verl-llds``, ``python -m MODULE``, ``python``, ``bash``, ..."""
    arguments: tuple[str, ...]
    """What it is given; of ``python`` and ``bash``, the script first."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables set for it alone."""


@dataclass(frozen=True)
class Block:
    """One block."""

    where: str
    """File and line."""
    title: str
    """Its mark, or empty."""
    text: str
    """The commands."""

    @property
    def needs(self) -> str:
        """What it says it needs."""
        return self.title.removeprefix("Needs: ") if self.title.startswith("Needs: ") else ""

    @property
    def tests(self) -> list[str]:
        """The paths it says run it."""
        return self.title.removeprefix("Tested: ").split(", ") if self.title.startswith("Tested: ") else []

    @property
    def commands(self) -> list[Command]:
        """What is run, in order; what only the shell does, such as a comment, is not among it."""
        return list(split(self.text))


def blocks() -> list[Block]:
    """Return every block of every source."""
    return [block for path in SOURCES for block in blocks_of(path.read_text(encoding="utf-8"), path)]


def blocks_of(text: str, path: Path) -> Iterator[Block]:
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        title = _TITLE.search(found[3])
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
        yield Block(f"{name}:{line}", title[1] if title else "", textwrap.dedent(found[4]))


def split(text: str) -> Iterator[Command]:
    """Yield the commands of a script of plain ones, those in pipes and substitutions too."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word and set(word) <= set("();<>|&"):
                if words and not _is_redirection(word):
                    yield from _command(words)
                    words = []
            else:
                words.append(word)


def _is_redirection(word: str) -> bool:
    return word in ("<", ">", ">>", ">&")


def _command(words: list[str]) -> Iterator[Command]:
    number = next((number for number, word in enumerate(words) if not _ASSIGNMENT.match(word)), len(words))
    environment = tuple(tuple(word.split("=", 1)) for word in words[:number])
    program, *arguments = words[number:] or [""]
    name = program.rpartition("/")[2]
    if name.startswith("python") and arguments[:1] == ["-m"]:
        name, arguments = f"python -m {arguments[1]}", arguments[2:]
    # A word that a substitution left alone, such as the dollar of $(...), is no command.
    if name and name != "$" and not program.endswith("$"):
        yield Command(name, tuple(arguments), environment)
