"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# An example may take longer than hypothesis allows it where other work has the cores; pytest has a timeout.
settings.register_profile("busy_machine", deadline=None)
settings.load_profile("busy_machine")
