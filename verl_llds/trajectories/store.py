"""The folder of recorded steps: one file a step, whole or not there, never larger together than they may be."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from verl_llds.trajectories.reader import list_steps, step_path
from verl_llds.trajectories.selection import step_to_drop

_FLOATS = ("old_log_probs", "new_log_probs", "penalty")


class TrajectoryStore:
    """Writes steps into a folder, one process at a time."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def drop_after(self, step: int) -> list[int]:
        """Remove, and return, the recorded steps after this one, and what a killed process left half written.

        A run that resumes after a step does the ones that followed again.
        """
        for left in self.folder.glob("step_*.parquet.tmp"):
            left.unlink()
        dropped = [known for known in list_steps(self.folder) if known > step]
        for known in dropped:
            step_path(self.folder, known).unlink()
        return dropped

    def write(self, step: int, table: pa.Table) -> list[int]:
        """Write a step's file, replacing one that is there, and return the steps that made room for it.

        Raises:
            OSError: it cannot be written, or is by itself larger than all together may be.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = step_path(self.folder, step)
        partial = path.with_name(f"{path.name}.tmp")
        pq.write_table(
            table,
            partial,
            compression="zstd",
            # Texts repeat within a group; log-probabilities do not, but the bytes of their exponents do.
            use_dictionary=[name for name in _leaves(table.schema) if name.split(".")[0] not in _FLOATS],
            column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in _FLOATS},
        )
        size = partial.stat().st_size
        if size > self.max_bytes:
            partial.unlink()
            raise OSError(
                f"step {step} takes {size} bytes, more than diagnostics.trajectories.max_bytes={self.max_bytes}: "
                "raise it, or lower max_rows"
            )
        os.replace(partial, path)
        return self._make_room()

    def _make_room(self) -> list[int]:
        steps = list_steps(self.folder)
        sizes = {step: step_path(self.folder, step).stat().st_size for step in steps}
        dropped = []
        while sum(sizes.values()) > self.max_bytes:
            step = step_to_drop(sorted(sizes))
            step_path(self.folder, step).unlink()
            del sizes[step]
            dropped.append(step)
        return dropped


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the paths of a schema's columns, as Parquet names them."""
    return [path for entry in schema for path in _paths(entry.name, entry.type)]


def _paths(name: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_list(kind):
        return _paths(f"{name}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [path for part in kind for path in _paths(f"{name}.{part.name}", part.type)]
    return [name]
