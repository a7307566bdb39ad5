"""The command lines of both programs, read off their own argparse parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from retriever_server.cli import _parser as retriever_parser
from verl_llds.cli import _parser as verl_llds_parser


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command that does something, by what is typed: ``verl-llds data prepare``."""
    return dict(leaf for parser in (verl_llds_parser(), retriever_parser()) for leaf in _leaves(parser))


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return what a command takes, without --help."""
    return [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]


def spelling(action: argparse.Action) -> str:
    """Return how an option or argument is typed: ``--topk N``."""
    value = "" if action.nargs == 0 else str(action.metavar or (action.dest.upper() if action.option_strings else ""))
    if action.choices is not None:
        value = "{" + ",".join(map(str, action.choices)) + "}" if action.metavar is None else value
    name = " / ".join(option for option in action.option_strings if option.startswith("--"))
    words = [name, value] if name else [value or action.dest]
    return " ".join(word for word in words if word)


def default(action: argparse.Action) -> str:
    """Return an option's default as it would be typed; empty where there is none or it is a switch."""
    value = action.default
    if value is None or value == "" or isinstance(value, bool) or value is argparse.SUPPRESS:
        return ""
    return str(getattr(value, "value", value))


def explanation(action: argparse.Action) -> str:
    """Return an option's help with argparse's own placeholders filled in."""
    return (action.help or "") % {**vars(action), "prog": ""} if "%" in (action.help or "") else action.help or ""


def _leaves(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield parser.prog, parser
    for action in below:
        for child in action.choices.values():
            yield from _leaves(child)
