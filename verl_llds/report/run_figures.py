"""What surrounds the paper's figures: the loss, the environment, and where the time went."""

from __future__ import annotations

from verl_llds.report.figures import LLDS, POST_UPDATE, SEARCH, VERL, Curve, Figure, Panel, Shape, moved

RUN_FIGURES = (
    Figure(
        key="llds",
        title="LLDS: gate and penalty",
        reading="The penalty is what the likelihood has fallen by, in nats per protected token; the gate is open where "
        "an action's likelihood fell as a whole. A baseline logs what the penalty would have been. Both grow when "
        "the policy begins to forget: if they keep growing, raise algorithm.llds.coef.",
        panels=(
            Panel(
                key="penalty",
                title="Penalty",
                unit="nats per protected token",
                curves=(Curve(label="penalty", metrics=("actor/llds/penalty",)),),
                remedy=LLDS,
            ),
            Panel(
                key="gate",
                title="Gate",
                unit="share of protected tokens",
                curves=(
                    Curve(label="under an open gate", metrics=("actor/llds/open_token_frac",)),
                    Curve(label="penalised", metrics=("actor/llds/penalised_token_frac",)),
                ),
                remedy=LLDS,
            ),
            Panel(
                key="llds_loss",
                title="Its part of the loss",
                unit="loss",
                curves=(
                    Curve(label="LLDS", metrics=("actor/llds/loss",)),
                    Curve(label="policy gradient", metrics=("actor/pg_loss",)),
                ),
                remedy=LLDS,
            ),
        ),
    ),
    Figure(
        key="displacement",
        title="Displacement: what an update does to likelihood",
        reading="Old minus new log-probability; above 0 it fell. Some correct actions are always displaced: look for "
        "a share that rises. In the paper more than half are before the collapse.",
        panels=(
            Panel(
                key="displaced_actions",
                title="Actions whose likelihood fell",
                unit="share",
                curves=(
                    Curve(label="correct", metrics=moved("displaced_action_frac", "correct")),
                    Curve(label="incorrect", metrics=moved("displaced_action_frac", "incorrect")),
                    Curve(label="no advantage", metrics=moved("displaced_action_frac", "zero")),
                ),
                remedy=f"{LLDS} Over the whole update: {POST_UPDATE}",
            ),
            Panel(
                key="displacement",
                title="Displacement",
                unit="nats per token",
                curves=(
                    Curve(label="correct", metrics=moved("displacement", "correct")),
                    Curve(label="incorrect", metrics=moved("displacement", "incorrect")),
                    Curve(label="no advantage", metrics=moved("displacement", "zero")),
                ),
                remedy=f"{LLDS} Over the whole update: {POST_UPDATE}",
            ),
            Panel(
                key="log_ratio",
                title="Likelihood-ratio spikes",
                unit="nats, absolute log-ratio",
                curves=(
                    Curve(label="99th percentile", metrics=("llds/log_ratio/p99",)),
                    Curve(label="largest", metrics=("llds/log_ratio/abs_max",)),
                ),
                shape=Shape.LOG_LINES,
                remedy=POST_UPDATE,
            ),
        ),
    ),
    Figure(
        key="search_health",
        title="Search: is it the policy or the environment?",
        reading="Failures of the retriever are not the policy's: such trajectories carry no gradient, and the run "
        "stops when there are too many. Healthy: no failure, flat latencies.",
        panels=(
            Panel(
                key="status",
                title="How trajectories end",
                unit="share",
                prefix="search/status/",
                shape=Shape.AREAS,
                remedy=SEARCH,
            ),
            Panel(
                key="failures",
                title="Failures",
                unit="share",
                curves=(
                    Curve(label="trajectories that failed", metrics=("search/failure_ratio",)),
                    Curve(label="requests that failed", metrics=("search/failed_request_ratio",)),
                    Curve(label="observations cut", metrics=("search/truncated_ratio",)),
                ),
                remedy=SEARCH,
            ),
            Panel(
                key="latency",
                title="Search latency",
                unit="seconds",
                curves=(
                    Curve(label="median", metrics=("search/latency_s/p50",)),
                    Curve(label="99th percentile", metrics=("search/latency_s/p99",)),
                ),
                shape=Shape.LOG_LINES,
                remedy=SEARCH,
            ),
            Panel(
                key="caches",
                title="Caches",
                unit="share",
                curves=(
                    Curve(label="queries known from the same step", metrics=("search/cached_ratio",)),
                    Curve(label="prompt tokens in the engine's cache", metrics=("search/prefix_cache_hit_ratio",)),
                ),
                remedy=SEARCH,
            ),
        ),
    ),
    Figure(
        key="time",
        title="Where the time went",
        reading="Wall-clock time of a training step by part, as verl times it. Sampling and the actor's update should "
        "be most of it.",
        panels=(
            Panel(
                key="timing",
                title="Time of a step by part",
                unit="seconds",
                prefix="timing_s/",
                omit=("step",),
                shape=Shape.BARS,
                remedy=VERL,
            ),
            Panel(
                key="throughput",
                title="Throughput",
                unit="tokens per second and device",
                curves=(Curve(label="throughput", metrics=("perf/throughput",)),),
                remedy=VERL,
            ),
        ),
    ),
)
"""What the paper has no figure of."""
