"""The metrics of a whole update, of the probe set, and of numerical health."""

from __future__ import annotations

from verl_llds.trackers.metric import Metric, Section

_POST = "logged every diagnostics.post_update_every steps"
_PROBE = "logged every diagnostics.probe_every steps"
_SINKS = "use algorithm=grpo_llds, or raise algorithm.llds.coef; lower the learning rate"

AFTER = Section(
    title="Likelihood over the whole update",
    metrics=(
        Metric(
            name="llds/log_prob/{class}/{when}",
            title="Log-likelihood before and after",
            unit="nats per token",
            meaning=f"mean per policy token before and after the whole update; {_POST}",
            healthy="correct is level or rises",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/log_prob/{class}/{place}/{when}",
            title="Log-likelihood before and after, by place",
            unit="nats per token",
            meaning=f"the same by place of the action; {_POST}",
            healthy="the first action of correct trajectories does not sink below the others",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/displacement/{class}",
            title="Displacement over the update",
            unit="nats per token; above 0: fell",
            meaning=f"mean of before minus after; {_POST}",
            healthy="0 or below for correct",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/displacement/{class}/{place}",
            title="Displacement over the update, by place",
            unit="nats per token; above 0: fell",
            meaning=f"the same by place of the action; {_POST}",
            healthy="0 or below for correct",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/displaced_token_frac/{class}",
            title="Displaced tokens over the update",
            unit="share of policy tokens",
            meaning=f"tokens whose likelihood fell; {_POST}",
            healthy="below one half for correct",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/displaced_token_frac/{class}/{place}",
            title="Displaced tokens over the update, by place",
            unit="share of policy tokens",
            meaning=f"the same by place; {_POST}",
            healthy="below one half for correct",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/displaced_action_frac/{class}",
            title="Displaced actions over the update",
            unit="share of actions",
            meaning=f"actions whose summed likelihood fell; {_POST}",
            healthy="level for correct; in the paper more than half of the questions are displaced before a collapse",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/displaced_action_frac/{class}/{place}",
            title="Displaced actions over the update, by place",
            unit="share of actions",
            meaning=f"the same by place; {_POST}",
            healthy="level for correct",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/trajectory_frac/{class}",
            title="Trajectories by class",
            unit="share of trajectories",
            meaning=f"by sign of the advantage; {_POST}",
            healthy="enough that are not zero: only they are learnt from",
            remedy="nearly all zero: questions are too hard or too easy, or the groups too small (rollout.n)",
        ),
    ),
)

PROBE = Section(
    title="Fixed probe set",
    metrics=(
        Metric(
            name="llds/probe/log_prob",
            title="Log-likelihood of the probe set",
            unit="nats per token",
            meaning=f"of the same correct trajectories from the run's first steps; {_PROBE}",
            healthy="level or rising: free of changes in what is sampled, it is the earliest sign",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/probe/displacement",
            title="Displacement of the probe set",
            unit="nats per token; above 0: fell",
            meaning=f"how far it has fallen since it was first measured; {_PROBE}",
            healthy="below 0.1 times its first log-probability over 90 steps in our trials",
            remedy=_SINKS,
        ),
        Metric(
            name="llds/probe/displaced_action_frac",
            title="Displaced actions of the probe set",
            unit="share of actions",
            meaning=f"actions less likely than when first measured; {_PROBE}",
            healthy="below one half",
            remedy=_SINKS,
        ),
    ),
)

NUMBERS = Section(
    title="Numerical health",
    metrics=(
        Metric(
            name="llds/log_ratio/p99",
            title="Change of log-probability, 99th percentile",
            unit="nats",
            meaning=f"of abs(new - old) over all policy tokens; {_POST}",
            healthy="well below 1",
            remedy="lower the learning rate",
        ),
        Metric(
            name="llds/log_ratio/abs_max",
            title="Largest change of a log-probability",
            unit="nats",
            meaning=f"of abs(new - old) over all policy tokens; {_POST}",
            healthy="a few nats",
            remedy="lower the learning rate",
        ),
        Metric(
            name="actor/llds/log_ratio_abs_max",
            title="Largest change within the update",
            unit="nats",
            meaning="of abs(new - old) over all policy tokens, when a mini-batch is reached",
            healthy="a few nats",
            remedy="lower the learning rate; large at once: engine and trainer disagree, see rollout_probs_diff",
        ),
        Metric(
            name="actor/llds/nonfinite_tokens",
            title="Log-probabilities that are not finite",
            unit="tokens",
            meaning="policy tokens within the update whose log-probability is NaN or infinite",
            healthy="0",
            remedy="lower the learning rate, and go back to an earlier checkpoint",
        ),
        Metric(
            name="llds/nonfinite_tokens",
            title="Log-probabilities that are not finite, after the update",
            unit="tokens",
            meaning=f"the same before and after the whole update; {_POST}",
            healthy="0",
            remedy="lower the learning rate, and go back to an earlier checkpoint",
        ),
        Metric(
            name="llds/probe/nonfinite_tokens",
            title="Log-probabilities of the probe set that are not finite",
            unit="tokens",
            meaning=f"the same for the probe set; {_PROBE}",
            healthy="0",
            remedy="lower the learning rate, and go back to an earlier checkpoint",
        ),
    ),
)
