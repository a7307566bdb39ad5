"""The page of Hydra's choices: each file of `verl_llds/config` as it is, comments included."""

from __future__ import annotations

import html
import textwrap

from documented import ROOT

CONFIG = ROOT / "verl_llds" / "config"

_HEAD = """# Choices

What `algorithm=`, `search=` and their like set: the files of `verl_llds/config` as they are, each value with its reason
and source in the comment above it. An experiment names one choice of each group, and its own values win over theirs;
what is on the command line wins over all. `verl-llds check` says what a command line comes to.
"""

_ABOUT = {
    "algorithm": "The loss, and the baseline it is added to.",
    "search": "The environment; every setting is explained on the page of [settings](settings.md#search).",
    "policy": "The model, and what the paper sets for it.",
    "dataset": "The questions.",
    "training": "Batches, optimizer, steps, checkpoints.",
    "hardware": "GPUs, and what fits into them.",
    "platform": "The kind of device. Without one, verl finds its accelerator.",
    "diagnostics": "What is measured; every setting is explained on the page of [settings](settings.md#diagnostics). "
    "Each of our algorithms takes `default`.",
    "experiment": "One choice of each group and the published row it belongs to; `recipes/` has a script for each.",
}
"""By group, in reading order."""


def groups() -> dict[str, list[str]]:
    """Return the choices of each group."""
    return {group: sorted(path.stem for path in (CONFIG / group).glob("*.yaml")) for group in _ABOUT}


def choices_markdown() -> str:
    """Return the page.

    Raises:
        ValueError: for a group that nothing is said about.
    """
    unknown = {path.parent.name for path in CONFIG.glob("*/*.yaml")} - set(_ABOUT)
    if unknown:
        raise ValueError(f"say in {__file__} what the groups {', '.join(sorted(unknown))} are about")
    parts = [_HEAD]
    for group, choices in groups().items():
        parts.append(f"## {group}= {{ #{group} }}\n\n{_ABOUT[group]}\n")
        parts += [_choice(group, choice) for choice in choices]
    return "\n".join(parts)


def _choice(group: str, choice: str) -> str:
    text = (CONFIG / group / f"{choice}.yaml").read_text(encoding="utf-8").rstrip()
    block = textwrap.indent(f"```yaml\n{text}\n```", "    ")
    # Python-Markdown gives a details block no name of its own.
    return f"<span id='{group}={choice}'></span>\n\n??? note \"`{group}={choice}`: {_summary(text)}\"\n\n{block}\n"


def _summary(text: str) -> str:
    """Return the first sentence of the comment at the head of a file."""
    head = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("# ") and "@" not in line]
    sentence = " ".join(head).split(". ")[0].rstrip(".")
    return html.escape(sentence.replace('"', "'"), quote=False)
