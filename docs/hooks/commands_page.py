"""The page of every command and its options, made from their argparse parsers."""

from __future__ import annotations

from markdown_text import code, prose, table
from parsers import commands, default, explanation, options, spelling

_HEAD = """# Commands

Both programs and all they take, out of their own parsers when the documentation is built; `--help` says the same. The
exit status is 0 if all is well, 1 if not, with one line on standard error that begins with the program's name, 2 for
options that do not exist, and 130 after Ctrl-C (`verl-llds watch`, which is ended so, has 0 then).
"""


def commands_markdown() -> str:
    """Return the page."""
    parts = [_HEAD]
    for name, parser in commands().items():
        rows = [
            (code(spelling(action)), code("" if "(default" in explanation(action) else default(action)), prose(text))
            for action in options(parser)
            for text in [explanation(action)]
        ]
        parts.append(f"## {name} {{ #{name.replace(' ', '-')} }}\n\n{prose(parser.description or '')}\n")
        parts.append(table(("option", "default", "what it is"), rows) if rows else "It takes no options.\n")
    return "\n".join(parts)
