"""How fast the service has been lately, and so how long a queue will take."""

# The share of the newest batch in the mean: about the last ten batches count.
_WEIGHT = 0.2


class ServiceRate:
    """Mean seconds per batch over the latest batches, while there was work.

    Per batch rather than per query: of a service that has only seen small batches, whose cost is mostly fixed, this
    expects too much and corrects itself, where the other would turn requests away that it could answer.
    """

    def __init__(self) -> None:
        self._seconds_per_batch: float | None = None
        self._last_done = 0.0

    def record(self, *, started: float, done: float) -> None:
        """Count a batch that left the pipeline.

        Batches overlap, so a batch costs the time since the one before it was done, unless it started later.
        """
        sample = max(done - max(started, self._last_done), 0.0)
        self._last_done = done
        if self._seconds_per_batch is None:
            self._seconds_per_batch = sample
        else:
            self._seconds_per_batch += _WEIGHT * (sample - self._seconds_per_batch)

    def seconds(self, num_batches: float) -> float:
        """How long so many full batches will take; 0 as long as nothing is known."""
        return (self._seconds_per_batch or 0.0) * num_batches
