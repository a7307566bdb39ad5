"""The metrics of the search environment: what the policy does in it, and how well it works."""

from __future__ import annotations

from verl_llds.trackers.metric import Metric, Section

_RETRIEVER = "look at the retriever: its /health, /metrics and log; see search.timeout_s and search.max_wait_s"
_TRAJECTORIES = "look at the step's trajectories"

BEHAVIOUR = Section(
    title="Search behaviour",
    metrics=(
        Metric(
            name="search/answer_share",
            title="Trajectories that answer",
            unit="share of trajectories",
            meaning="those that ended with an answer, in a free or in the forced last turn",
            healthy="rises towards 1 and stays: it falls as a run collapses",
            remedy=f"{_TRAJECTORIES} for turns that break the protocol",
        ),
        Metric(
            name="search/valid_searches",
            title="Valid searches per question",
            unit="searches",
            meaning="searches that found passages",
            healthy="about as many as the questions have hops",
            remedy="stuck at 1 on questions of two hops: algorithm=grpo_llds_ma frees the answer from the penalty",
        ),
        Metric(
            name="search/valid_search_ratio",
            title="Valid searches",
            unit="share of searches made",
            meaning="searches that found passages",
            healthy="near 1",
            remedy=_RETRIEVER,
        ),
        Metric(
            name="search/invalid_actions",
            title="Invalid actions",
            unit="per trajectory",
            meaning="turns that neither search nor answer",
            healthy="falls towards 0",
            remedy=f"{_TRAJECTORIES}; a base model may need the format reward (search.reward.format_score)",
        ),
        Metric(
            name="search/status/{status}",
            title="How trajectories end",
            unit="share of trajectories",
            meaning="by status",
            healthy="answered grows, all others shrink",
            remedy="out_of_tokens: raise data.max_response_length; out_of_turns: search.max_turns",
        ),
        Metric(
            name="search/status_count/{status}",
            title="How trajectories end, counted",
            unit="trajectories",
            meaning="by status",
            healthy="retrieval_failed, tool_failed, engine_aborted and errored are 0",
            remedy=_RETRIEVER,
        ),
        Metric(
            name="search/{kind}_tokens",
            title="Tokens by kind",
            unit="tokens per trajectory",
            meaning="written by the policy, observed, and in the final answer with its tags",
            healthy="policy tokens grow slowly, the answer stays short",
            remedy=f"a sudden rise: {_TRAJECTORIES} for repetition",
        ),
        Metric(
            name="llds/observation_match_ratio",
            title="Wrong trajectories that found what a correct sibling found",
            unit="share of wrong trajectories",
            meaning="their first search found the same passages as one of a correct sibling",
            healthy="level; in the paper it rises to about 0.6 before the collapse",
            remedy="the penalty on wrong trajectories hits what right ones begin with: use algorithm=grpo_llds",
        ),
    ),
)

SERVICE = Section(
    title="Search health",
    metrics=(
        Metric(
            name="search/failure_ratio",
            title="Failed trajectories",
            unit="share of trajectories",
            meaning="whose environment failed, those included that verl lost and padded",
            healthy="0; above search.max_failure_ratio the run stops",
            remedy=_RETRIEVER,
        ),
        Metric(
            name="search/num_lost",
            title="Lost trajectories",
            unit="trajectories",
            meaning="asked for, and never come",
            healthy="0",
            remedy="the log of verl's agent loop workers has the error",
        ),
        Metric(
            name="search/failed_request_ratio",
            title="Failed searches",
            unit="share of searches",
            meaning="that gave no result after all attempts",
            healthy="0",
            remedy=_RETRIEVER,
        ),
        Metric(
            name="search/retries",
            title="Retries",
            unit="requests",
            meaning="requests beyond the first, over all searches of the step",
            healthy="0 or nearly so",
            remedy=_RETRIEVER,
        ),
        Metric(
            name="search/latency_s/p50",
            title="Search latency, median",
            unit="seconds",
            meaning="of requests, waiting for a busy retriever included",
            healthy="small beside a turn's generation",
            remedy="more retriever replicas or threads; a smaller search.max_concurrency",
        ),
        Metric(
            name="search/latency_s/p99",
            title="Search latency, 99th percentile",
            unit="seconds",
            meaning="of requests, waiting for a busy retriever included",
            healthy="below search.timeout_s by far",
            remedy="more retriever replicas or threads; a smaller search.max_concurrency",
        ),
        Metric(
            name="search/cached_ratio",
            title="Searches answered from the same step",
            unit="share of searches",
            meaning="identical queries are asked once a step",
            healthy="above 0: siblings begin alike",
            remedy="near 1 with a falling reward: the policy asks the same whatever the question",
        ),
        Metric(
            name="search/num_truncated",
            title="Results cut to their budget, counted",
            unit="results",
            meaning="observations that lost part of their passages",
            healthy="few",
            remedy="raise search.max_observation_tokens, or lower search.topk",
        ),
        Metric(
            name="search/truncated_ratio",
            title="Results cut to their budget",
            unit="share of results",
            meaning="observations that lost part of their passages",
            healthy="below 0.1",
            remedy="raise search.max_observation_tokens, or lower search.topk",
        ),
        Metric(
            name="search/prefix_cache_hit_ratio",
            title="Prompt tokens found in the engine's cache",
            unit="share of tokens",
            meaning="of what the engine read",
            healthy="above one half with several turns",
            remedy="set rollout.enable_prefix_caching=true; give the engine more memory",
        ),
    ),
)
