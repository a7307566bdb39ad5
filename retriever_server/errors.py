"""What can go wrong, as types.

Every error carries one finished sentence or two: what is wrong, where, and what to do next. The command
line prints it as it stands. All of them survive pickling, so a Ray or multiprocessing caller sees the
same type.
"""


class RetrieverError(Exception):
    """Root of every error this package raises on purpose."""


class SettingsError(RetrieverError, ValueError):
    """A setting has a value that cannot work."""


class CorpusError(RetrieverError, ValueError):
    """The corpus file is missing, or one of its lines is not a passage."""


class EncoderError(RetrieverError, ValueError):
    """The encoder cannot be found, described or loaded."""


class IndexMissingError(RetrieverError, FileNotFoundError):
    """There is no finished index where one was expected."""


class IndexMismatchError(RetrieverError, ValueError):
    """An index does not belong to the corpus, the encoder or the files it is used with."""


class BuildRunningError(RetrieverError, BlockingIOError):
    """Another process is building into the same directory."""


class AddressError(RetrieverError, OSError):
    """The server cannot listen on the address it was given."""


class RequestError(RetrieverError, ValueError):
    """A request is not one; the message names the field."""


class TokenError(RetrieverError, ValueError):
    """The token file cannot be read, or holds no usable token."""


class BusyError(RetrieverError, RuntimeError):
    """A request cannot be answered now; the same one can succeed later."""

    def __init__(self, message: str, reason: str = "busy", retry_after_s: float = 1.0) -> None:
        # All three are arguments of the base, or unpickling would lose two of them.
        super().__init__(message, reason, retry_after_s)
        self.message = message
        self.reason = reason
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class NotReadyError(BusyError):
    """A query came before the engine was loaded and warm, or while the service stops."""


class OverloadedError(BusyError):
    """The queue is full, or too long for the request's deadline."""


class DeadlineError(BusyError):
    """The deadline passed before there was an answer."""


class ShardError(BusyError):
    """Some shard could not be asked, so no exact answer exists."""


class ShardTokenError(ShardError):
    """The servers of a shard do not take the token they are shown."""


class SearchFailedError(RetrieverError, RuntimeError):
    """The engine failed on a query; the cause is in the server's log."""


class WorkerError(RetrieverError, RuntimeError):
    """A worker process ended when it should not have."""


class DeviceMemoryError(RetrieverError, MemoryError):
    """A device has too little memory for what it was to hold."""
