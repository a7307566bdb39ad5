"""Answers of a web search provider, kept in a file: every one of them was paid for."""

import logging
import sqlite3
import threading
from pathlib import Path

from retriever_server.errors import SettingsError

_log = logging.getLogger(__name__)


class WebCache:
    """A table of answers by provider, query and number of results. Safe to use from several threads and processes.

    Raises:
        SettingsError: The file cannot be made, or is another program's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._failing = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS answers"
                " (provider TEXT, query TEXT, topk INTEGER, answer BLOB, PRIMARY KEY (provider, query, topk))"
            )
        except (sqlite3.Error, OSError) as error:
            raise SettingsError(f"--cache-file {path} cannot be used ({error}); give another one.") from error

    def get(self, provider: str, query: str, topk: int) -> bytes | None:
        """The answer, if it was kept."""
        with self._lock:
            row = self._database.execute(
                "SELECT answer FROM answers WHERE provider = ? AND query = ? AND topk = ?", (provider, query, topk)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, provider: str, query: str, topk: int, answer: bytes) -> None:
        """Keep an answer if the file takes it. If not, as on a full disk, the log says so once until it does again."""
        with self._lock:
            try:
                self._database.execute(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", (provider, query, topk, answer)
                )
                self._failing = False
            except sqlite3.Error as error:
                if not self._failing:
                    _log.error("--cache-file %s takes no more answers (%s): they are paid for again", self._path, error)
                self._failing = True
