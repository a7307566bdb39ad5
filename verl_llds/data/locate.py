"""Which file of a directory holds which questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from verl_llds.data.published import PublishedSet, Split
from verl_llds.data.readers import SUFFIXES
from verl_llds.errors import DataError

_DEV_WORDS = ("dev", "validation", "val")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
# TriviaQA's test file; its dev file is what FlashRAG calls test.
_NO_ANSWERS = "without-answers"


def words_for(one: PublishedSet, split: Split) -> tuple[str, ...]:
    """Return the words by which a file's name tells that it holds a split, the first choice first."""
    if split is Split.TRAIN:
        return ("train",)
    return ("test", *_DEV_WORDS) if one.test.split == "test" else (*_DEV_WORDS, "test")


def split_of_file(path: Path, one: PublishedSet) -> Split:
    """Return what a file's name says that its questions are for.

    Raises:
        DataError: if it says neither.
    """
    words = _words(path)
    if "train" in words:
        return Split.TRAIN
    if words & {"test", *_DEV_WORDS} or not one.train or path.name in one.authors_test:
        return Split.TEST
    raise DataError(
        f"{path}: cannot tell whether its questions are to train or to test on: put train, dev or test into its name"
    )


def find_files(folder: Path, one: PublishedSet, split: Split) -> list[Path]:
    """Return the file of a split, or the shards it is cut into; none if the folder has none.

    Raises:
        DataError: if several files could be it.
    """
    for name in one.authors_files(split):
        if (folder / name).is_file():
            return [folder / name]
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and _NO_ANSWERS not in path.name)
    for word in words_for(one, split):
        found = [path for path in files if word in _words(path)]
        exact = [path for path in found if path.stem == word]
        if exact or found:
            return _only(exact or found, folder, one, split)
    # A set that has nothing but test questions needs no word in the name.
    return _only(files, folder, one, split) if files and split is Split.TEST and not one.train else []


def _only(found: Sequence[Path], folder: Path, one: PublishedSet, split: Split) -> list[Path]:
    if len({_SHARD.sub("", path.stem) for path in found}) > 1 or len({path.suffix for path in found}) > 1:
        raise DataError(
            f"{folder}: {', '.join(path.name for path in found)} could all hold the {split.value} questions of "
            f"{one.name}: give the file itself to --source, or leave only one of them there"
        )
    return list(found)


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z]+", path.stem.lower()))
