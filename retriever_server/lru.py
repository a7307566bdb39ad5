"""Answers that were given before, the least recently used forgotten first."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """A map bounded in entries and in bytes; a bound of 0 entries keeps nothing."""

    def __init__(self, *, max_entries: int, max_bytes: int, size: Callable[[K, V], int]) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._size = size
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Sum of the sizes of all entries."""
        return self._num_bytes

    def get(self, key: K) -> V | None:
        """The value of ``key``, which is now the most recently used."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: K, value: V) -> None:
        """Keep a value and forget what no longer fits."""
        if key in self._entries:
            self._num_bytes -= self._size(key, self._entries.pop(key))
        self._entries[key] = value
        self._num_bytes += self._size(key, value)
        while len(self._entries) > self._max_entries or self._num_bytes > self._max_bytes:
            self._num_bytes -= self._size(*self._entries.popitem(last=False))
