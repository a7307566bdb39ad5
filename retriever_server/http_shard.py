"""A shard behind HTTP: servers of the same rows, asked in turn."""

import http.client
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import orjson

from retriever_server.corpus import Hit
from retriever_server.errors import ShardError
from retriever_server.retrieve import DEADLINE_HEADER

_FAILURES = (OSError, http.client.HTTPException, ValueError, KeyError, TypeError)


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

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The JSON of an answer.

        Raises:
            OSError, HTTPException: No connection, or one that broke.
            ValueError: The answer is not 200, or no JSON.
        """
        while self._idle:
            try:
                # The server may have closed a kept connection; searching again changes nothing.
                return self._call_on(self._idle.pop(), method, path, body)
            except (OSError, http.client.HTTPException, IndexError):
                continue
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return self._call_on(connection, method, path, body)

    def _call_on(self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> Any:
        try:
            connection.request(method, self._prefix + path, body, self._headers)
            response = connection.getresponse()
            answer = response.read()
        except BaseException:
            connection.close()
            raise
        if not response.will_close:
            self._idle.append(connection)
        if response.status != 200:
            raise ValueError(f"HTTP {response.status}: {answer[:200].decode(errors='replace')}")
        return orjson.loads(answer)


class HttpShard:
    """A shard served by one or more replicas: the next one is asked when one does not answer."""

    def __init__(self, urls: Sequence[str], token: str | None, *, timeout_s: float) -> None:
        # What one replica may take leaves time to ask the others.
        self._replicas = [Replica(url, token, timeout_s=timeout_s / len(urls)) for url in urls]
        self._turn = itertools.count()

    def info(self) -> Mapping[str, Any]:
        """What a replica says of itself. Raises ShardError if none answers."""
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
        first = next(self._turn)
        troubles = []
        for number in range(len(self._replicas)):
            replica = self._replicas[(first + number) % len(self._replicas)]
            try:
                return read(replica.call(method, path, body))
            except _FAILURES as error:
                troubles.append(f"{replica.url}: {type(error).__name__}: {error}")
        raise ShardError(f"no server of a shard answers ({'; '.join(troubles)})", "shard")
