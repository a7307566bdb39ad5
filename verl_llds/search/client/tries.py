"""What one query has been through so far, and the error that tells of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from verl_llds.errors import RetrievalError
from verl_llds.search.client.attempt import TOKEN_VARIABLE, AttemptError, Trouble
from verl_llds.search.client.endpoint import Endpoint
from verl_llds.search.settings import SearchConfig

_COUNTED = frozenset({Trouble.BAD_ANSWER, Trouble.TIMEOUT})
"""What a query gives up on after ``max_attempts`` of them; the rest is waited out or given up at once."""

_ADVICE = {
    Trouble.UNREACHABLE: (
        "Is search.url where a retriever listens? `retriever-server serve --index DIR` starts one; if it takes "
        "longer to come back, raise search.max_wait_s"
    ),
    Trouble.BUSY: (
        "The retriever has more work than it takes: lower search.max_concurrency, start another one and add it to "
        "search.url, or raise search.max_wait_s"
    ),
    Trouble.TIMEOUT: (
        "See in the retriever's log whether it hangs; if it is only slow, raise search.timeout_s or lower "
        "search.max_concurrency"
    ),
    Trouble.BAD_ANSWER: "See in the retriever's log what went wrong, and that search.url is its /retrieve",
    Trouble.REJECTED: "Correct search.topk or what search.url names: another attempt would be refused as well",
    Trouble.WRONG_ADDRESS: (
        f"Correct search.url, or {TOKEN_VARIABLE} in the environment where the status is 401 or 403: another attempt "
        "would be refused as well"
    ),
}

_NOTHING_ASKED = "Raise search.max_wait_s, or search.max_concurrency if every request was taken by other queries"


@dataclass
class Tries:
    """The requests made for one query."""

    settings: SearchConfig
    """Its limits."""
    deadline: float
    """When its time is up, by `time.monotonic`."""
    num_attempts: int = 0
    """Requests made."""
    last: AttemptError | None = None
    """What went wrong last."""
    wrong: set[str] = field(default_factory=set)
    """Addresses found to be wrong; the query is not sent there again."""
    _num_counted: int = 0
    _cut_short: bool = False
    _details: dict[str, str] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return self.deadline - time.monotonic()

    def begin(self, url: str) -> float:
        """Note a request that goes out and return the seconds it may take."""
        self.num_attempts += 1
        self._details.setdefault(url, "no answer yet")
        left_s = self.left_s
        self._cut_short = left_s < self.settings.timeout_s
        return min(self.settings.timeout_s, left_s)

    def fail(self, url: str, error: AttemptError) -> None:
        """Note what became of it."""
        if self._cut_short and error.trouble is Trouble.TIMEOUT and self.last is not None:
            # The query ran out of time, which is no count against the server: what it did before says more.
            self._details[url] += f"; then {error.detail}, all that was left"
            return
        self.last = error
        self._details[url] = error.detail
        self._num_counted += error.trouble in _COUNTED
        if error.trouble is Trouble.WRONG_ADDRESS:
            self.wrong.add(url)

    @property
    def end(self) -> str | None:
        """Why the query is to be given up, or None while it is not."""
        if self.last is not None and self.last.trouble is Trouble.REJECTED:
            return "the last one rejected"
        if self.wrong.issuperset(self.settings.urls):
            return "and no address of search.url is one where queries are answered"
        if self._num_counted >= self.settings.max_attempts:
            return f"{self._num_counted} of them timeouts or bad answers (search.max_attempts)"
        if self.left_s <= 0:
            return f"and search.max_wait_s={self.settings.max_wait_s:g} is over"
        return None

    def error(self, endpoints: Sequence[Endpoint]) -> RetrievalError:
        """Return the error to give up with; its ``attempts`` are the requests made."""
        causes = "; ".join(f"{endpoint.url}: {self._cause(endpoint)}" for endpoint in endpoints)
        last = self.last or next((each.held_back_by for each in endpoints if each.held_back_by), None)
        advice = _ADVICE[last.trouble] if last is not None else _NOTHING_ASKED
        given_up = RetrievalError(
            f"no search result after {self.num_attempts} attempt(s), {self.end}. {causes}. {advice}"
        )
        given_up.attempts = self.num_attempts
        return given_up

    def _cause(self, endpoint: Endpoint) -> str:
        if endpoint.url in self._details:
            return self._details[endpoint.url]
        found = endpoint.held_back_by
        return "not asked" if found is None else f"not asked, as other queries found: {found.detail}"
