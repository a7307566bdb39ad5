"""Reads a run again and again, and shows it: in place on a terminal, line by line in a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from verl_llds.errors import RunFolderError
from verl_llds.watch.frame import make_frame
from verl_llds.watch.screen import plain_line, render
from verl_llds.watch.tail import RunTail

_HINT = "verl writes them after each step where trainer.logger holds file, such as trainer.logger='[console,file]'"


class Watcher:
    """One run, followed."""

    def __init__(self, path: Path, total_steps: int | None = None, console: Console | None = None) -> None:
        self.path = path
        self.total_steps = total_steps
        self.console = Console() if console is None else console
        self._tail = RunTail(path)

    def show_once(self) -> None:
        """Print the present state.

        Raises:
            RunFolderError: there are no metrics.
        """
        # A file that was replaced is read in two goes.
        while self._tail.poll():
            pass
        if not self._tail.log.steps:
            raise RunFolderError(f"{self.path} holds no metrics yet: {_HINT}")
        self.console.print(self._view())

    def follow(self, interval_s: float) -> None:
        """Show the run until interrupted, and in a pipe until its last step.

        Raises:
            RunFolderError: the path does not exist, or holds several runs.
        """
        if self.console.is_terminal:
            with Live(console=self.console, auto_refresh=False) as live:
                while True:
                    self._tail.poll()
                    live.update(self._view(), refresh=True)
                    time.sleep(interval_s)
        self._print_lines(interval_s)

    def _print_lines(self, interval_s: float) -> None:
        last: int | None = None
        num_restarts = 0
        while True:
            self._tail.poll()
            log = self._tail.log
            again = _lasting(log.restarts[num_restarts:])
            num_restarts = len(log.restarts)
            if last is not None:
                last = min([last, *(step - 1 for step in again)])
            frame = make_frame(log.steps, self.total_steps) if log.steps else None
            for step, values in log.steps.items():
                if frame is not None and (last is None or step > last):
                    if step in again:
                        self._print(f"the run has started again at step {step}")
                    self._print(plain_line(step, values, frame))
                    last = step
            if frame is not None and frame.is_finished():
                return
            time.sleep(interval_s)

    def _print(self, line: str) -> None:
        # Rich would wrap it.
        print(line, file=self.console.file, flush=True)

    def _view(self) -> RenderableType:
        if not self._tail.log.steps:
            return Text(f"waiting for metrics in {self.path}: {_HINT}")
        written_at = self._tail.written_at
        age_s = time.time() - written_at if written_at is not None else 0.0
        frame = make_frame(self._tail.log.steps, self.total_steps)
        name = self.path.resolve().name.removesuffix(".jsonl")
        return render(name, frame, age_s, self._notes(), self.console)

    def _notes(self) -> list[str]:
        notes = [f"started again at step {step}" for step in self._tail.log.restarts]
        if self._tail.log.num_broken:
            notes.append(f"{self._tail.log.num_broken} lines of the metrics could not be read and were passed over")
        return notes


def _lasting(restarts: Sequence[int]) -> list[int]:
    """Return the new starts of which something is left: a later one at or before the same step replaces them."""
    return [step for place, step in enumerate(restarts) if all(step < later for later in restarts[place + 1 :])]
