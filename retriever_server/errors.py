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


class NotReadyError(RetrieverError, RuntimeError):
    """A query came before the engine was loaded and warm."""


class OverloadedError(RetrieverError, RuntimeError):
    """The queue is full; the same request can succeed later."""


class SearchFailedError(RetrieverError, RuntimeError):
    """The engine failed on a batch; the cause is in the server's log."""
