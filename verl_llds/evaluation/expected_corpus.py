"""Which corpus ``verl-llds eval --expect-corpus`` asks the retriever for."""

from __future__ import annotations

import json
from pathlib import Path

from verl_llds.errors import ConfigError

_MAKERS = "`verl-llds data corpus` or `retriever-server index`"


def expected_corpus(text: str) -> str:
    """Return the SHA-256, or its first digits, that ``text`` is or that the directory ``text`` has in its manifest.

    Raises:
        ConfigError: it is neither digits of a hash nor such a directory.
    """
    if Path(text).is_dir():
        return _corpus_made_in(Path(text))
    if not 8 <= len(text) <= 64 or set(text.lower()) - set("0123456789abcdef"):
        raise ConfigError(
            f"--expect-corpus {text} is no directory here and not 8 to 64 digits of a SHA-256: give the --out of "
            f"{_MAKERS}, or such digits"
        )
    return text.lower()


def _corpus_made_in(directory: Path) -> str:
    try:
        made = json.loads((directory / "manifest.json").read_text())
        found = (made["passages"]["sha256"] if "passages" in made else made["inputs"]["corpus_sha256"]).lower()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--expect-corpus {directory} holds no manifest.json of {_MAKERS} ({type(error).__name__}: {error}): give "
            "their --out, or digits of a SHA-256"
        ) from error
    return str(found)
