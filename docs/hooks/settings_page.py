"""The page of every setting, made from the typed settings classes and the parsers of the commands."""

from __future__ import annotations

import argparse
from enum import Enum
from typing import Any

from documented import DocumentedField, documented_fields, documented_members, source_fields
from markdown_text import code, line, prose, table
from parsers import commands, default, options, spelling

from retriever_server.front_settings import FrontSettings
from retriever_server.precision import Dtype
from retriever_server.settings import BuildSettings, IndexType, Pooling, ServeSettings
from retriever_server.web_settings import WebSettings
from verl_llds.data.settings import CorpusSettings, PrepareSettings
from verl_llds.diagnostics.settings import DiagnosticsConfig, OnPhase, PhaseConfig
from verl_llds.evaluation.settings import Decoding, EvalSettings
from verl_llds.reward.settings import AnswerMetric, RewardConfig
from verl_llds.search.settings import OnFailure, ProtocolName, SearchConfig
from verl_llds.settings import AdaptiveWeight, Gate, LLDSConfig, Normalizer, Preserve
from verl_llds.trajectories.settings import TrajectoriesConfig

NODES: dict[str, type[Any]] = {
    "algorithm.llds": LLDSConfig,
    "search": SearchConfig,
    "search.reward": RewardConfig,
    "diagnostics": DiagnosticsConfig,
    "diagnostics.phases": PhaseConfig,
    "diagnostics.trajectories": TrajectoriesConfig,
}
"""Settings of a training run, by their node in its configuration."""

COMMANDS: dict[str, tuple[type[Any], ...]] = {
    "verl-llds eval": (EvalSettings, Decoding),
    "verl-llds data prepare": (PrepareSettings,),
    "verl-llds data corpus": (CorpusSettings,),
    "retriever-server index": (BuildSettings,),
    "retriever-server serve": (ServeSettings,),
    "retriever-server front": (FrontSettings,),
    "retriever-server web": (WebSettings,),
}
"""Settings of commands."""

LOSS_NODE = "actor_rollout_ref.actor.policy_loss"
LOSS_CLASS = ("verl_llds/loss/policy_loss.py", "LLDSPolicyLossConfig")
"""Read from its source alone: its module imports verl."""

_CHOICES: dict[str, tuple[type[Enum], ...]] = {
    "algorithm.llds": (Gate, Preserve, AdaptiveWeight, Normalizer),
    "search": (ProtocolName, OnFailure),
    "search.reward": (AnswerMetric,),
    "diagnostics": (OnPhase,),
    "retriever-server index": (IndexType, Pooling, Dtype),
}
"""Enums that fields refer to, shown below them."""

_ELSEWHERE = {
    "token": "`--token-file FILE`, or `RETRIEVER_TOKEN` in the environment",
    "shard_token": "`--shard-token-file FILE`",
    "key": "`SERPER_API_KEY`, `SERPAPI_API_KEY` or `BRAVE_API_KEY` in the environment",
    "search": "`--retriever`, `--protocol`, `--topk`, `--max-turns`, `--max-action-tokens`, "
    "`--max-observation-tokens`, `--tool`, `--max-failure-ratio`; all of a run's with `--run-config`",
    "decoding": "the options of `Decoding` below",
    "shard_rows": "not on the command line",
}
"""Fields that no option of the same name sets."""

_HEAD = """# Settings

Every setting with its type, default and meaning, out of the docstrings of the classes that check it: the page is made
when the documentation is built. The first part is Hydra overrides, each written here with its default, for
`python -m verl.trainer.main_ppo` and all that takes its overrides (`verl-llds check`, `verl-llds preflight`, the
recipes); an unknown name is refused, and the message names those there are. What a choice such as `algorithm=grpo_llds`
sets is on the page of [choices](choices.md), and every option of every command on that of [commands](commands.md).
"""


def settings_markdown() -> str:
    """Return the page."""
    parts = [_HEAD, "## Of a training run\n"]
    for node, cls in NODES.items():
        parts.append(f"### {node} {{ #{node} }}\n\n{prose(cls.__doc__ or '')}\n")
        parts += [_field(f"{node}.{field.name}", field) for field in documented_fields(cls)]
        parts += [_enum(choices) for choices in _CHOICES.get(node, ())]
    parts.append(f"### {LOSS_NODE} {{ #{LOSS_NODE} }}\n\nTwo settings beside verl's own.\n")
    parts += [_field(f"{LOSS_NODE}.{field.name}", field) for field in source_fields(*LOSS_CLASS)]
    parts.append("## Of the commands\n")
    parsers = commands()
    for command, classes in COMMANDS.items():
        parts.append(f"### {command} {{ #{command.replace(' ', '-')} }}\n")
        for cls in classes:
            parts.append(f"`{cls.__name__}`: {prose((cls.__doc__ or '').split('Raises:')[0])}\n")
            parts.append(_table(documented_fields(cls), parsers[command]))
        parts += [_enum(choices) for choices in _CHOICES.get(command, ())]
    return "\n".join(parts)


def override(path: str, field: DocumentedField) -> str:
    """Return how a setting is given its default on a command line of Hydra's.

    The detector's node is empty in the configuration, so that what is not there yet has to be forced in.
    """
    return f"{'++' if path.startswith('diagnostics.phases.') else ''}{path}={field.default.replace(' ', '')}"


def _field(path: str, field: DocumentedField) -> str:
    node = "algorithm.llds" if path == f"{LOSS_NODE}.llds" else path
    if node in NODES:
        return f"#### {path}\n\n{line(field.text)} Its settings are those of [{node}](#{node}).\n"
    written = f"{path}.NAME=VALUE" if field.default == "{}" else override(path, field)
    return (
        f"#### {path} {{ #{path} }}\n\n`{field.type}`, default {code(field.default)}: `{written}`\n\n"
        f"{prose(field.text)}\n"
    )


def _table(fields: list[DocumentedField], parser: argparse.ArgumentParser) -> str:
    by_name = {action.dest: action for action in options(parser)}
    rows = []
    for field in fields:
        action = by_name.get(field.name)
        value = code(field.default or (default(action) if action else ""))
        rows.append((code(field.name), _written(field.name, action), code(field.type), value, prose(field.text)))
    return table(("setting", "written", "type", "default", "what it is"), rows)


def _written(name: str, action: argparse.Action | None) -> str:
    if action is None:
        return _ELSEWHERE[name]
    is_switch_off = action.nargs == 0 and action.const is False
    return code(spelling(action)) + (" for false" if is_switch_off else "")


def _enum(choices: type[Enum]) -> str:
    rows = "\n".join(f"* `{value}`: {line(text)}" for value, text in documented_members(choices).items())
    return f"**{choices.__name__}**: {line(choices.__doc__ or '')}\n\n{rows}\n"
