"""Which rows can be among the best ``k``, from scores that are known up to a bound.

Sorting every score costs as much as computing it. So a block of scores is cut into groups, one pass takes
each group's maximum, and only the maxima are sorted: the ``k``-th largest maximum is a score that ``k``
different rows reach, hence a floor for the ``k``-th best. Only groups that rise above the floor are read again.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

_MAX_GROUP = 64
# Groups per wanted row: fewer would make two of the best rows share a group, and the floor low.
_GROUPS_PER_ROW = 4


class Candidates(NamedTuple):
    """Rows that may be among the best, over all queries of a call."""

    floor: torch.Tensor
    """``float32[n, min(k, rows)]``: for each query, scores of as many different rows, falling."""

    query: torch.Tensor
    """``int64[c]``: the query of each candidate."""

    row: torch.Tensor
    """``int64[c]``: its row."""

    score: torch.Tensor
    """``float32[c]``: its score as computed."""

    slack: torch.Tensor
    """``float32[n, 1]``: by how much two scores of a query may change places."""


def scan(blocks: Iterable[tuple[int, torch.Tensor]], slack: torch.Tensor, k: int) -> Candidates:
    """The rows of ``blocks``, given as (first row, ``scores[n, rows]``), that no bound rules out.

    Args:
        blocks: The scores, a block at a time, each off by at most half of ``slack``.
        slack: ``float32[n, 1]``, as of `Candidates`.
        k: Rows wanted a query.
    """
    floor = torch.full((len(slack), 0), -torch.inf, device=slack.device)
    kept: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    for first, scores in blocks:
        rows = scores.shape[1]
        size = max(1, min(_MAX_GROUP, rows // (_GROUPS_PER_ROW * k)))
        if rows % size:
            scores = torch.nn.functional.pad(scores, (0, size - rows % size), value=-torch.inf)
        width = scores.shape[1] // size
        # A group takes every width-th row, so that the maximum runs over whole vectors of neighbours.
        maxima = scores.view(-1, size, width).amax(dim=1).float()
        floor = _largest(torch.cat([floor, _largest(maxima, k)], dim=1), k)
        limit = _limit(floor, slack, k)
        query, group = torch.nonzero(maxima >= limit, as_tuple=True)
        row = group[:, None] + width * torch.arange(size, device=slack.device)
        score = scores[query[:, None], row].float()
        # The padding is no row, and passes while the limit is minus infinity.
        pair, member = torch.nonzero((score >= limit[query]) & (row < rows), as_tuple=True)
        kept.append((query[pair], row[pair, member] + first, score[pair, member]))
    query, row, score = (torch.cat(parts) for parts in zip(*kept, strict=True))
    return _still_possible(Candidates(floor, query, row, score, slack), k)


def merge(parts: Sequence[Candidates], k: int) -> Candidates:
    """The candidates of ``parts``, which are of different rows, that the floor of all of them leaves."""
    if len(parts) == 1:
        return parts[0]
    floor, query, row, score, slack = ([field.cpu() for field in fields] for fields in zip(*parts, strict=True))
    widest = torch.cat(slack, dim=1).amax(dim=1, keepdim=True)
    best = _largest(torch.cat(floor, dim=1), k)
    return _still_possible(Candidates(best, torch.cat(query), torch.cat(row), torch.cat(score), widest), k)


def _still_possible(found: Candidates, k: int) -> Candidates:
    still = found.score >= _limit(found.floor, found.slack, k)[found.query, 0]
    return found._replace(query=found.query[still], row=found.row[still], score=found.score[still])


def _largest(scores: torch.Tensor, k: int) -> torch.Tensor:
    return scores.topk(min(k, scores.shape[1]), dim=1).values


def _limit(floor: torch.Tensor, slack: torch.Tensor, k: int) -> torch.Tensor:
    if floor.shape[1] < k:
        return torch.full_like(slack, -torch.inf)
    return floor[:, -1:] - slack
