"""Whether a trajectory has the form Search-R1 v0.3 rewards (arXiv 2505.15117; its ``qa_em_format.py``).

v0.3 walks over all text after the chat template's first assistant marker: think, search, information, think again
and so on up to one answer. Tags pair up, none stands inside another pair, and between pairs there is nothing but
white space; what a pair encloses may be anything, and nothing. Seen from the policy, whose turns the environment's
information separates: every turn but the last is ``<think>...</think><search>...</search>``, and the last one is
``<think>...</think><answer>...</answer>``. That is what is checked here, on the turns themselves. What differs:

* Observations are not looked at. v0.3 rejects a trajectory if a passage holds one of the tags, or if an observation
  lost its closing tag to the token limit, and the policy can help neither.
* A policy that writes ``<information>`` is ill-formed wherever it does. v0.3 cannot tell it from the environment.
* No assistant marker is needed: v0.3 finds every trajectory of a model without Qwen's chat template ill-formed.
* A call may use the tag of any tool. v0.3 knows search only, other tags are text to it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence


def is_well_formed(turns: Sequence[str], tools: Collection[str] = ("search",)) -> bool:
    """Return whether every turn thinks and then calls a tool, and the last one thinks and then answers.

    Tags are compared as they are written: ``<Think>`` and ``< think >`` are text.

    Args:
        turns: texts of the policy's own turns, in order, observations not among them.
        tools: the tags of calls; with native tool calls that is ``tool_call``, whose content is not looked at.
    """
    names = "|".join(re.escape(name) for name in ("think", "information", "answer", *tools))
    tags = re.compile(rf"(</?(?:{names})>)")
    return (
        len(turns) > 0
        and all(_has_form(tags.split(turn), tools) for turn in turns[:-1])
        and _has_form(tags.split(turns[-1]), ("answer",))
    )


def _has_form(pieces: Sequence[str], last: Collection[str]) -> bool:
    """Return whether a turn, split so that texts and tags alternate, thinks once and then opens one of ``last``."""
    forms = (["<think>", "</think>", f"<{name}>", f"</{name}>"] for name in last)
    return list(pieces[1::2]) in forms and not any(text.strip() for text in pieces[0::4])
