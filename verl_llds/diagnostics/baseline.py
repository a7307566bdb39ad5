"""The running baseline of one quantity: what is usual for it, and how far away it is now."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Any

from verl_llds.diagnostics.settings import PhaseConfig

_STD_PER_MAD = 1.4826
"""Standard deviation of normal noise over its median absolute deviation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deviation:
    """A level against its baseline."""

    level: float
    """Median of the latest readings."""
    baseline: float
    """What it is compared with; above 0."""
    significant: bool
    """Whether the two are further apart than noise explains."""

    @property
    def ratio(self) -> float:
        """Level over baseline."""
        return self.level / self.baseline


class RunningBaseline:
    """Readings of one quantity: the latest make its level, earlier ones its baseline.

    A reading joins the baseline when newer ones have pushed it out of the level, and only in a healthy step, so a
    decline cannot become the new normal. Where ``keep_best``, the baseline is the highest it has ever been.
    """

    def __init__(self, settings: PhaseConfig, *, keep_best: bool) -> None:
        self.settings = settings
        self.keep_best = keep_best
        self._latest: deque[float] = deque(maxlen=settings.recent)
        self._usual: deque[tuple[int, float]] = deque()
        self._median: float | None = None
        self._best: float | None = None
        self._last_step: int | None = None

    def add(self, value: float, step: int, num_healthy: int, *, healthy: bool) -> None:
        """Take a reading.

        Args:
            value: finite.
            step: training step of the reading.
            num_healthy: healthy steps so far; the clock of the window.
            healthy: whether the run is healthy, so that the baseline may learn.
        """
        self._last_step = step
        if len(self._latest) == self.settings.recent and healthy:
            self._usual.append((num_healthy, self._latest[0]))
            self._forget(num_healthy)
            self._average()
            if self._median is not None and (self._best is None or self._median > self._best):
                self._best = self._median
        self._latest.append(value)

    def _forget(self, num_healthy: int) -> None:
        # A quantity that is measured seldom keeps enough readings for a median, however old.
        while len(self._usual) > self.settings.recent and self._usual[0][0] <= num_healthy - self.settings.window:
            self._usual.popleft()

    def _average(self) -> None:
        if len(self._usual) >= self.settings.recent:
            self._median = median(value for _, value in self._usual)

    def deviation(self, step: int) -> Deviation | None:
        """Return the level against the baseline.

        None before there are enough readings of both, for a quantity that has been missing for longer than the
        window, and where the baseline is not above 0, since no ratio to it has a meaning.
        """
        usual = self._median
        if usual is None or self._last_step is None or step - self._last_step > self.settings.window:
            return None
        baseline = self._best if self.keep_best and self._best is not None else usual
        if baseline <= 0:
            return None
        level = median(self._latest)
        noise = _STD_PER_MAD * median(abs(value - usual) for _, value in self._usual)
        return Deviation(
            level=level, baseline=baseline, significant=abs(level - baseline) > self.settings.noise * noise
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the readings, of JSON types."""
        return {
            "latest": list(self._latest),
            "usual": [list(reading) for reading in self._usual],
            "best": self._best,
            "last_step": self._last_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._latest = deque(state["latest"], maxlen=self.settings.recent)
        self._usual = deque((int(clock), value) for clock, value in state["usual"])
        self._best = state["best"]
        self._last_step = state["last_step"]
        self._average()
