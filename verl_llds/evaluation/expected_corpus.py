"""Which corpus ``verl-llds eval --expect-corpus`` asks the retriever for."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


def expected_corpus(text: str) -> str:
    """Return the SHA-256, or its first digits, that ``text`` is or that the directory ``text`` has in its manifest.

    Raises:
        argparse.ArgumentTypeError: it is neither digits of a hash nor such a directory.
    """
    if os.sep in text or Path(text).is_dir():
        return _corpus_made_in(Path(text))
    if not 8 <= len(text) <= 64 or set(text.lower()) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"it must be 8 to 64 digits of a SHA-256, got {text!r}")
    return text.lower()


def _corpus_made_in(directory: Path) -> str:
    try:
        made = json.loads((directory / "manifest.json").read_text())
        found = (made["passages"]["sha256"] if "passages" in made else made["inputs"]["corpus_sha256"]).lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise argparse.ArgumentTypeError(
            f"{directory} holds no manifest.json of `verl-llds data corpus` or `retriever-server index` "
            f"({type(error).__name__}: {error}): give their --out, or digits of a SHA-256"
        ) from None
    return str(found)
