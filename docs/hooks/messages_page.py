"""The page of every message that the programs give on purpose, read off the source: errors, findings, warnings."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from documented import ROOT
from markdown_text import line, literal
from message_text import MessageText

import retriever_server.errors
import verl_llds.errors

GAP = "…"
"""Stands for what a message fills in."""

_WARNINGS = "Warnings and other lines"
_DOCTOR = "Findings of doctor and preflight"

_PREFIX_ALONE = re.compile(rf"(verl-llds|retriever-server): (warning: )?{GAP}")
"""Where another message is passed on."""

_HEAD = f"""# Every message

Errors, findings and warnings as the source has them, by type; {GAP} stands for what is filled in. Search this page for
the words of yours. Each says itself what to do next; what is behind the common ones is on the page of
[troubleshooting](troubleshooting.md). The page is made when the documentation is built.
"""


def error_classes() -> dict[str, type[BaseException]]:
    """Return every error that a user may meet, by name."""
    return {
        name: found
        for module in (verl_llds.errors, retriever_server.errors)
        for name, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, Exception)
    }


def messages() -> dict[str, dict[str, list[str]]]:
    """Return the messages by heading, then by the module they come from."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted([*ROOT.glob("verl_llds/**/*.py"), *ROOT.glob("retriever_server/**/*.py")]):
        for heading, message in _of_module(path):
            known = found[heading][path.relative_to(ROOT).as_posix()]
            if message not in known and not _PREFIX_ALONE.fullmatch(message):
                known.append(message)
    return found


def messages_markdown() -> str:
    """Return the page."""
    found, parts = messages(), [_HEAD]
    abouts = {name: line(inspect.getdoc(cls) or "") for name, cls in error_classes().items()}
    abouts[_DOCTOR] = "Lines of `verl-llds doctor` and `verl-llds preflight` that begin with `WARN` or `FAIL`."
    abouts[_WARNINGS] = "On standard error; the run goes on."
    for heading, about in abouts.items():
        parts.append(f"## {heading} {{ #{heading.split()[0]} }}\n\n{about}\n")
        for module, texts in found.get(heading, {}).items():
            items = "\n".join(f"<li>{literal(text)}</li>" for text in texts)
            parts.append(f"<p>{literal(module)}</p>\n<ul>\n{items}\n</ul>\n")
    return "\n".join(parts)


def _of_module(path: Path) -> Iterator[tuple[str, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    text = MessageText(tree, GAP)
    errors = error_classes()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in errors:
            yield from ((name, message) for message in text.of(call.args[0]))
        elif name == "Finding" and len(call.args) == 3 and ast.unparse(call.args[0]) != "Status.OK":
            for subject in text.of(call.args[1]) or [GAP]:
                yield from ((_DOCTOR, f"{subject}: {message}") for message in text.of(call.args[2]))
        elif name in ("warn", "warning") or (name == "append" and path.name == "checks.py") or _is_stderr(call, name):
            yield from ((_WARNINGS, message) for message in text.of(call.args[0]))


def _is_stderr(call: ast.Call, name: str) -> bool:
    return name == "print" and any(ast.unparse(keyword.value) == "sys.stderr" for keyword in call.keywords)
