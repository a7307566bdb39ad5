"""Small files in the forms in which the seven sets are published, and a hub that is a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verl_llds.data.hub import HubFile
from verl_llds.data.prepare import Prepared
from verl_llds.errors import HubError

REVISION = "0123456789abcdef0123456789abcdef01234567"


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def flashrag(count: int, split: str = "test", **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"{split}_{n}", "question": f"what is number {n}", "golden_answers": [str(n), f"no {n}"], **more}
        for n in range(count)
    ]


@dataclass
class FolderHub:
    """A hub that is a folder: ``root/OWNER/NAME/FILE``."""

    root: Path
    asked: list[str] = field(default_factory=list)

    def _path(self, repo: str, name: str) -> Path:
        self.asked.append(f"{repo}/{name}")
        path = self.root / repo / name
        if not path.is_file():
            raise HubError(f"no {path}")
        return path

    def fetch(self, repo: str, name: str) -> tuple[Path, str]:
        return self._path(repo, name), REVISION

    def look_up(self, repo: str, name: str) -> HubFile:
        data = self._path(repo, name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return HubFile(repo=repo, name=name, revision=REVISION, size=len(data), sha256=digest)

    def download(self, file: HubFile, folder: Path) -> Path:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._path(file.repo, file.name), target)
        return target


Make = Callable[..., Prepared]
