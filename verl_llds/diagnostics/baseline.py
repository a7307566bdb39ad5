"""The running baseline of one quantity: what is usual for it, and how far away it is now."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, NamedTuple

from verl_llds.diagnostics.settings import PhaseConfig

_STD_PER_MEAN_DEVIATION = math.sqrt(math.pi / 2)
"""For normal noise: standard deviation over mean absolute deviation."""


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
        self._latest: deque[_Reading] = deque(maxlen=settings.recent)
        self._usual: deque[_Reading] = deque()
        self._baseline: float | None = None
        self._last_step: int | None = None

    def add(self, value: float, step: int, clock: int, *, healthy: bool) -> None:
        """Take a reading.

        Args:
            value: finite.
            step: training step of the reading.
            clock: healthy steps so far, which the window is counted in.
            healthy: whether the run is healthy, so that the baseline may learn.
        """
        self._last_step = step
        if len(self._latest) == self.settings.recent and healthy:
            self._learn(self._latest[0], clock)
        level = median([value, *(reading.value for reading in list(self._latest)[-self.settings.recent + 1 :])])
        self._latest.append(_Reading(clock, value, level))

    def _learn(self, reading: _Reading, clock: int) -> None:
        self._usual.append(reading)
        needed = 2 * self.settings.recent
        # A quantity that is measured seldom keeps enough readings for a median, however old.
        while len(self._usual) > needed and self._usual[0].clock <= clock - self.settings.window:
            self._usual.popleft()
        if len(self._usual) >= needed:
            usual = median(reading.value for reading in self._usual)
            keep = self.keep_best and self._baseline is not None and self._baseline > usual
            self._baseline = self._baseline if keep else usual

    def deviation(self, step: int) -> Deviation | None:
        """Return the level against the baseline.

        None before there are ``recent`` readings of the level and twice as many of the baseline, for a quantity
        that has been missing for longer than the window, and where the baseline is not above 0, since no ratio
        to it has a meaning.
        """
        if self._baseline is None or self._baseline <= 0:
            return None
        if self._last_step is None or step - self._last_step > self.settings.window:
            return None
        level = self._latest[-1].level
        significant = abs(level - self._baseline) > self.settings.noise * self._noise()
        return Deviation(level=level, baseline=self._baseline, significant=significant)

    def _noise(self) -> float:
        """Return the standard deviation of the baseline's levels, less any trend.

        It is that of differences between levels far enough apart to share no reading: a trend shifts them all
        alike, and the median takes the shift out. Noise that is correlated over a few steps still shows. The
        deviation is a mean, not a median, because levels of a rare reward take few values and often agree.
        """
        levels = [reading.level for reading in self._usual]
        lag = max(self.settings.recent, len(levels) // 4)
        changes = [later - earlier for earlier, later in zip(levels, levels[lag:], strict=False)]
        trend = median(changes)
        return _STD_PER_MEAN_DEVIATION * fmean(abs(change - trend) for change in changes) / math.sqrt(2)

    def state_dict(self) -> dict[str, Any]:
        """Return the readings, of JSON types."""
        return {
            "latest": [list(reading) for reading in self._latest],
            "usual": [list(reading) for reading in self._usual],
            "baseline": self._baseline,
            "last_step": self._last_step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._latest = deque((_Reading(*reading) for reading in state["latest"]), maxlen=self.settings.recent)
        self._usual = deque(_Reading(*reading) for reading in state["usual"])
        self._baseline = state["baseline"]
        self._last_step = state["last_step"]


class _Reading(NamedTuple):
    clock: int
    """Healthy steps so far."""
    value: float
    """What was read."""
    level: float
    """Median of the readings up to this one."""
