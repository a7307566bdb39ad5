"""A shard behind HTTP: servers of the same rows, asked in turn."""

import http.client
import itertools
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from retriever_server.corpus import Hit
from retriever_server.errors import RetrieverError, SearchFailedError, ShardError, ShardTokenError
from retriever_server.retrieve import DEADLINE_HEADER

_FAILURES = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError)
_NOT_LET_IN = {401, 403}
# Fewer queries can do what these could not: one of them is to blame, or they are too many.
_FAILED = {413, 422, 500}
# A server hangs that takes this part of the time it may take; it is asked first again after so long.
_HUNG = 0.9
_REST_S = 30.0


class Replica:
    """One server, over connections that are kept. Safe to use from several threads."""

    def __init__(self, url: str, token: str | None, *, timeout_s: float) -> None:
        address = urlsplit(url)
        self.url = url
        self._host, self._port = address.hostname or "", address.port
        self._prefix = address.path.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Content-Type": "application/json", DEADLINE_HEADER: str(max(1, int(timeout_s * 1000)))}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._idle: deque[http.client.HTTPConnection] = deque()
        self._rests_until = 0.0

    @property
    def rests(self) -> bool:
        """Whether it hung lately: others should be asked first."""
        return time.monotonic() < self._rests_until

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """The status and body of an answer.

        Raises:
            OSError, HTTPException: No connection, one that broke, or no answer in time.
        """
        if self._rests_until:
            # One thread finds out whether it is back; the others need not wait for the same.
            self._rests_until = time.monotonic() + self._timeout_s
        start = time.monotonic()
        try:
            return self._call(method, path, body)
        finally:
            now = time.monotonic()
            # A server whose engine hangs may still say 503 when the time is up.
            self._rests_until = now + _REST_S if now - start > _HUNG * self._timeout_s else 0.0

    def _call(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        while self._idle:
            try:
                return self._call_on(self._idle.pop(), method, path, body)
            except TimeoutError:
                # It hangs, and would on every other connection.
                raise
            except (OSError, http.client.HTTPException, IndexError):
                # The server may have closed a kept connection; searching again changes nothing.
                continue
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return self._call_on(connection, method, path, body)

    def _call_on(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None
    ) -> tuple[int, bytes]:
        try:
            connection.request(method, self._prefix + path, body, self._headers)
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            connection.close()
            raise
        if not response.will_close:
            self._idle.append(connection)
        return response.status, answer


class HttpShard:
    """A shard served by one or more replicas: the next one is asked when one does not answer.

    One that hung is asked after the others for half a minute.
    """

    def __init__(self, urls: Sequence[str], token: str | None, *, timeout_s: float) -> None:
        # What one replica may take leaves time to ask the others.
        self._replicas = [Replica(url, token, timeout_s=timeout_s / len(urls)) for url in urls]
        self._turn = itertools.count()

    def info(self) -> Mapping[str, Any]:
        """What a replica says of itself.

        Raises:
            ShardError, SearchFailedError: None answers.
            ShardTokenError: None answers, and one wants another token.
        """
        found: Mapping[str, Any] = self._ask("GET", "/info", None, lambda answer: dict(answer))
        return found

    def search(self, queries: Sequence[str], topk: int) -> list[list[Hit]]:
        """As of `ShardSearch`."""
        body = orjson.dumps({"queries": queries, "topk": topk, "return_scores": True})

        def read(answer: Any) -> list[list[Hit]]:
            result = answer["result"]
            if len(result) != len(queries):
                raise ValueError(f"{len(result)} answers to {len(queries)} queries")
            return [[Hit(orjson.dumps(hit["document"]), float(hit["score"])) for hit in hits] for hits in result]

        found: list[list[Hit]] = self._ask("POST", "/retrieve", body, read)
        return found

    def _ask(self, method: str, path: str, body: bytes | None, read: Any) -> Any:
        troubles, statuses = [], set()
        for replica in self._in_turn():
            try:
                status, answer = replica.call(method, path, body)
                if status == http.client.OK:
                    return read(orjson.loads(answer))
                statuses.add(status)
                trouble = f"HTTP {status}: {answer[:200].decode(errors='replace')}"
            except _FAILURES as error:
                trouble = f"{type(error).__name__}: {error}"
            troubles.append(f"{replica.url}: {trouble}")
        raise _error(statuses, "; ".join(troubles))

    def _in_turn(self) -> list[Replica]:
        first = next(self._turn) % len(self._replicas)
        return sorted(self._replicas[first:] + self._replicas[:first], key=lambda replica: replica.rests)


def _error(statuses: set[int], troubles: str) -> RetrieverError:
    if statuses & _FAILED:
        return SearchFailedError(f"a shard failed ({troubles})")
    if statuses & _NOT_LET_IN:
        return ShardTokenError(
            f"a shard does not take the token ({troubles}); give its own in --shard-token-file or RETRIEVER_TOKEN.",
            "shard",
        )
    return ShardError(f"no server of a shard answers ({troubles})", "shard")
