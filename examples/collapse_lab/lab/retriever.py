"""The lab's retriever: word overlap over the passages' titles and relations, in process."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from lab.world import RELATIONS
from verl_llds.search.documents import Document
from verl_llds.search.tools import SearchResult


class OverlapSearcher:
    """A `verl_llds.search.tools.Searcher`: the passages that share most words with the query.

    A query of a relation and a full name finds the passages of that fact, and fills up with some that share two
    of its three words. A malformed query finds what shares some of its words; without one there is nothing.
    """

    def __init__(self, passages: Sequence[Document], topk: int) -> None:
        self._passages = passages
        self._topk = topk
        self._found: dict[frozenset[str], list[Document]] = {}
        self._postings: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(passages):
            title, _, text = passage.contents.partition("\n")
            relation = text.split()[0]
            assert relation in RELATIONS, "a passage starts with its relation"
            for word in {*title.split(), relation}:
                self._postings[word].append(number)

    async def search(self, query: str) -> SearchResult:
        """Return at most ``topk`` passages, in the order of the corpus."""
        words = frozenset(query.split())
        if words not in self._found:
            self._found[words] = self._look_up(words)
        return SearchResult(documents=tuple(self._found[words]))

    def _look_up(self, words: frozenset[str]) -> list[Document]:
        overlap: Counter[int] = Counter()
        for word in words:
            overlap.update(self._postings.get(word, ()))
        best = sorted(overlap, key=lambda number: (-overlap[number], number))[: self._topk]
        # The corpus is shuffled, so its order does not give away which passage matched best.
        return [self._passages[number] for number in sorted(best)]
