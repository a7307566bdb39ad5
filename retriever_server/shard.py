"""A part of an index: a range of its rows."""

import re
from dataclasses import dataclass

from retriever_server.errors import SettingsError

_FORM = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``number`` of ``num_shards``, counted from 0. Shards in order hold the rows in order.

    Raises:
        SettingsError: There is no such part.
    """

    number: int = 0
    num_shards: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.num_shards:
            raise SettingsError(f"--shard {self} is no part; of two, the first is 0/2 and the second 1/2.")

    def __str__(self) -> str:
        return f"{self.number}/{self.num_shards}"

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read ``I/N``. Raises SettingsError for anything else."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise SettingsError(f"--shard {text} is not of the form I/N; of two, the first is 0/2.")
        return cls(int(match[1]), int(match[2]))

    def rows(self, count: int) -> range:
        """The rows of an index of ``count`` that belong to this part; sizes differ by at most 1.

        Raises:
            SettingsError: There are fewer rows than parts.
        """
        if count < self.num_shards:
            raise SettingsError(f"--shard {self}: the index has only {count} passages; use fewer shards.")
        return range(count * self.number // self.num_shards, count * (self.number + 1) // self.num_shards)
