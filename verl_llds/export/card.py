"""The card of an exported model: README.md with the front matter the Hugging Face hub reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_llds.evaluation.tables import SHORT_NAMES
from verl_llds.export.recipe import Recipe

CURVES = "curves.png"
CONFIG = "training_config.yaml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What a card says."""

    name: str
    """Its title."""
    step: int
    """Training steps."""
    versions: Mapping[str, str]
    """Packages it was exported with."""
    recipe: Recipe | None = None
    """How it was trained."""
    has_curves: bool = False
    """Whether there are curves beside it."""
    evaluation: Mapping[str, Any] | None = None
    """``summary.json`` of an evaluation."""

    def render(self) -> str:
        """Return the card's Markdown."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield from _front_matter(self.recipe)
        yield from (f"# {self.name}", "")
        yield f"A search agent: it thinks, searches and answers. Step {self.step} of a run with"
        yield "[verl](https://github.com/verl-project/verl) and verl-llds (LLDS:"
        yield "[arXiv 2512.04220](https://arxiv.org/abs/2512.04220))."
        if self.evaluation is not None:
            yield from ("", "## Results", "")
            yield from _results(self.evaluation)
        if self.recipe is not None:
            yield from ("", "## Training", "")
            yield from _table(("setting", "value"), [(f"`{name}`", text) for name, text in self.recipe.shown.items()])
            yield from ("", f"The whole configuration: [{CONFIG}]({CONFIG}).", "")
            yield from _table(
                ("questions", "sha256"),
                [(f"`{Path(name).name}`", f"`{found}`" if found else "-") for name, found in self.recipe.data.items()],
            )
        if self.has_curves:
            yield from ("", "## Curves", "", f"![Metrics by training step]({CURVES})")
        yield from ("", "## Versions", "", "Exported with:", "")
        yield from _table(("package", "version"), list(self.versions.items()))
        yield from ("", "## Use", "", "```bash")
        yield "verl-llds eval --model . --retriever http://127.0.0.1:8000 --ask 'What is the capital of Norway?'"
        yield "```"


def _front_matter(recipe: Recipe | None) -> Iterator[str]:
    yield from (
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        "tags: [search-agent, grpo, verl]",
    )
    base = recipe.shown.get("actor_rollout_ref.model.path", "") if recipe is not None else ""
    # The hub knows ids, not directories of the machine it was trained on.
    if base.count("/") == 1 and not Path(base).exists():
        yield f"base_model: {base}"
    yield from ("---", "")


def _results(evaluation: Mapping[str, Any]) -> Iterator[str]:
    summary, facts = evaluation["summary"], evaluation["facts"]
    metrics = summary["metrics"]
    rows = []
    for number, source in enumerate(summary["sources"]):
        cells = [_interval(metrics[name]["sets"][number]) for name in ("em", "f1", "sub_em")]
        searches = summary["means"]["valid_searches"][number]
        rows.append((SHORT_NAMES.get(source, source), str(summary["num_questions"][number]), *cells, f"{searches:.2f}"))
    total = str(sum(summary["num_questions"]))
    averages = (("mean of sets", "macro", ""), ("all questions", "micro", total))
    for label, key, count in averages if len(rows) > 1 else ():
        rows.append((label, count, *(_interval(metrics[name][key]) for name in ("em", "f1", "sub_em")), ""))
    yield from _table(("questions", "n", "EM", "F1", "sub-EM", "searches"), rows)
    yield from ("", "95% intervals by bootstrap over questions.", "")
    for name in ("decoding", "episode", "retriever", "engine"):
        yield f"- {name}: {facts[name]}"


def _interval(estimate: Mapping[str, float]) -> str:
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
