"""Every error this package raises on purpose.

All of them are plain subclasses without a constructor of their own, so that they pickle and reach the driver
unchanged from a Ray worker. A message says what is wrong, where, and what to do next.
"""


class LLDSError(Exception):
    """Root of the tree: catch it to catch everything this package raises on purpose."""


class ConfigError(LLDSError, ValueError):
    """A setting has a value that cannot work, or that would silently do nothing."""


class PluginError(LLDSError, RuntimeError):
    """The plugin could not attach itself to verl, so a run would train without it."""


class RolloutError(LLDSError, RuntimeError):
    """Too many trajectories of a step failed for the step to be trained on."""


class ToolError(LLDSError, OSError):
    """A tool of the environment could not do its work, which says nothing about the policy."""

    attempts: int = 0
    """How often it was tried."""


class RetrievalError(ToolError, ConnectionError):
    """The retriever could not be reached, or answered with something that is no result."""


class CollapseError(LLDSError, RuntimeError):
    """The collapse detector reached a phase at which the run was to stop."""


class RunFolderError(LLDSError, ValueError):
    """A run's folder, or a file in it, cannot be read or is not what it should be."""


class EvaluationError(LLDSError, RuntimeError):
    """An evaluation cannot begin, or cannot go on: questions, model, retriever or folder do not fit together."""


class ExportError(LLDSError, RuntimeError):
    """A checkpoint cannot be turned into a model folder."""


class DataError(LLDSError, ValueError):
    """Questions or passages are not what they must be; the message names file and line, or row."""


class HubError(LLDSError, ConnectionError):
    """The hub could not be reached, or does not have what was asked for."""
