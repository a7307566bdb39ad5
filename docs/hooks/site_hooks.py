"""What MkDocs calls while it builds the site: pages made from the code, and pages that are files elsewhere."""

from __future__ import annotations

from typing import Any

from choices_page import choices_markdown
from commands_page import commands_markdown
from documented import ROOT
from links import MIRRORED, include, relink
from messages_page import messages_markdown
from metrics_table import metrics_markdown
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from provenance import with_commits
from settings_page import settings_markdown

GENERATED = {
    "choices.md": choices_markdown,
    "commands.md": commands_markdown,
    "messages.md": messages_markdown,
    "settings.md": settings_markdown,
}
"""Pages that no file holds."""

_METRICS = "<!-- the table of metrics -->"
_PICTURES = "*.png"


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages made from code, and those of the repository with the pictures beside them."""
    for page, make in GENERATED.items():
        files.append(File.generated(config, page, content=make()))
    for source, page in MIRRORED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = with_commits(text, source) if source.endswith("RESULTS.md") else text
        files.append(File.generated(config, page, content=text))
        for picture in sorted((ROOT / source).parent.glob(_PICTURES)):
            path = f"{page.rpartition('/')[0]}/{picture.name}"
            if files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Fill in the table of metrics and included sections, and point links of the repository to pages."""
    path = page.file.src_uri
    source = next((source for source, mirrored in MIRRORED.items() if mirrored == path), f"docs/{path}")
    try:
        text = markdown if path in GENERATED else relink(markdown, source, path)
        return include(text.replace(_METRICS, metrics_markdown()), path)
    except ValueError as error:
        raise PluginError(str(error)) from error
