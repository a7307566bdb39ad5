"""How often one address may ask: a token bucket each."""

from collections import OrderedDict

# Addresses remembered; one that is forgotten starts with a full bucket.
_MAX_ADDRESSES = 4096


class RateLimit:
    """At most ``per_second`` requests per address, with bursts of one second's worth; 0 is no limit."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._burst = max(per_second, 1.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, address: str, now: float) -> float:
        """Count a request at time ``now``; 0 if it is within the limit, else the seconds until one would be."""
        if not self._per_second:
            return 0.0
        left, then = self._buckets.pop(address, (self._burst, now))
        left = min(left + (now - then) * self._per_second, self._burst)
        admitted = left >= 1
        self._buckets[address] = (left - admitted, now)
        if len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if admitted else (1 - left) / self._per_second
