"""Settings of the token-level trajectories, checked once where they are made; imports neither torch nor verl."""

from __future__ import annotations

from dataclasses import dataclass

from verl_llds.errors import ConfigError
from verl_llds.fields import check_count, check_switch, known_values

_NODE = "diagnostics.trajectories"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoriesConfig:
    """What is kept of a step's trajectories, token by token, for the viewer; the node ``diagnostics.trajectories``."""

    every: int = 10
    """Record the first step and each one whose number is a multiple of this; 0 = off."""

    dir: str | None = None
    """Where the files go; null: the folder ``trajectories`` in ``trainer.default_local_dir``."""

    max_rows: int = 64
    """Trajectories kept of a step: whole groups, as many with right and wrong ones as without."""

    max_bytes: int = 1 << 30
    """Bytes of all recorded steps together; beyond it steps are thinned out evenly, and the first and the last stay."""

    post_update: bool = True
    """Whether the kept trajectories are measured once more after the update, in a forward pass of their own.

    It gives each token's displacement, gate and penalty over the whole step. With false they are there only in steps
    in which ``diagnostics.post_update_every`` has measured all trajectories anyway.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        check_count(_NODE, self, "every", 0)
        check_count(_NODE, self, "max_rows", 1)
        check_count(_NODE, self, "max_bytes", 1)
        check_switch(_NODE, self, "post_update")
        if self.dir is not None and not (isinstance(self.dir, str) and self.dir.strip()):
            raise ConfigError(
                f"{_NODE}.dir must be the path of a folder, got {self.dir!r}: use null for the run's own folder; "
                f"{_NODE}.every=0 turns recording off"
            )
        if self.dir is not None and self.every == 0:
            raise ConfigError(
                f"{_NODE}.dir={self.dir} would hold nothing, since {_NODE}.every is 0: set every to 10, or dir to null"
            )

    def is_due(self, step: int) -> bool:
        """Return whether a step is recorded; steps count from 1."""
        return self.every > 0 and (step == 1 or step % self.every == 0)

    @classmethod
    def from_mapping(cls, values: object) -> TrajectoriesConfig:
        """Build the settings from the node ``diagnostics.trajectories``.

        Raises:
            ConfigError: for an unknown key (the known ones are named) or a value out of range.
        """
        return cls(**known_values(_NODE, cls, values))
