"""The metrics of likelihood and penalty: what LLDS is about (arXiv 2512.04220 v2)."""

from __future__ import annotations

from verl_llds.trackers.metric import Metric, Section

_SINKS = "use algorithm=grpo_llds, or raise algorithm.llds.coef; lower the learning rate"
_FEWER = "make fewer updates per rollout (a larger ppo_mini_batch_size), or raise algorithm.llds.coef"

WITHIN = Section(
    title="Likelihood within the update",
    metrics=(
        Metric(
            name="actor/llds/log_prob/{class}/{when}",
            title="Log-likelihood by class",
            unit="nats per token",
            meaning="mean log-probability per policy token: before the step (old), and when its mini-batch was reached "
            "(new), by sign of the advantage",
            healthy="correct is level or rises, and stays above incorrect",
            remedy=_SINKS,
        ),
        Metric(
            name="actor/llds/log_prob/{class}/{place}/{when}",
            title="Log-likelihood by class and place of the action",
            unit="nats per token",
            meaning="the same, for the first action of a trajectory, the last one of several, and those between",
            healthy="the first action of correct trajectories does not sink below the others",
            remedy="right and wrong trajectories begin alike: see llds/observation_match_ratio; " + _SINKS,
        ),
        Metric(
            name="actor/llds/displacement/{class}",
            title="Displacement by class",
            unit="nats per token; above 0: fell",
            meaning="mean of old minus new",
            healthy="near 0 for correct, without a trend",
            remedy=_FEWER,
        ),
        Metric(
            name="actor/llds/displacement/{class}/{place}",
            title="Displacement by class and place",
            unit="nats per token; above 0: fell",
            meaning="mean of old minus new, by place of the action",
            healthy="near 0 for correct, in all places",
            remedy=_FEWER,
        ),
        Metric(
            name="actor/llds/displaced_token_frac/{class}",
            title="Displaced tokens",
            unit="share of policy tokens",
            meaning="tokens whose likelihood fell",
            healthy="below one half for correct",
            remedy=_FEWER,
        ),
        Metric(
            name="actor/llds/displaced_token_frac/{class}/{place}",
            title="Displaced tokens by place",
            unit="share of policy tokens",
            meaning="tokens whose likelihood fell, by place of the action",
            healthy="below one half for correct",
            remedy=_FEWER,
        ),
        Metric(
            name="actor/llds/displaced_action_frac/{class}",
            title="Displaced actions",
            unit="share of actions",
            meaning="actions whose summed likelihood fell",
            healthy="level for correct; about 0.2 in our healthy trials",
            remedy=_FEWER + "; or try algorithm.llds.gate=token",
        ),
        Metric(
            name="actor/llds/displaced_action_frac/{class}/{place}",
            title="Displaced actions by place",
            unit="share of actions",
            meaning="actions whose summed likelihood fell, by place",
            healthy="level for correct",
            remedy=_FEWER,
        ),
    ),
)

PENALTY = Section(
    title="LLDS penalty",
    metrics=(
        Metric(
            name="actor/llds/penalty",
            title="Penalty",
            unit="nats per preserved token",
            meaning="L of the loss, before its coefficient; for a baseline, what it would have been",
            healthy="small and level: it holds back what little falls",
            remedy="if it grows all the same, raise algorithm.llds.coef or make fewer updates per rollout",
        ),
        Metric(
            name="actor/llds/loss",
            title="Penalty times coefficient",
            unit="as the policy loss",
            meaning="what is added to the policy loss",
            healthy="smaller than the policy loss",
            remedy="lower algorithm.llds.coef if the reward stops rising",
        ),
        Metric(
            name="actor/llds/effective_coef",
            title="Effective coefficient",
            unit="coefficient",
            meaning="weight of the penalty's mean over preserved tokens",
            healthy="algorithm.llds.coef; 0 in a mini-batch that preserves nothing",
            remedy="use algorithm.llds.normalizer=preserved, which keeps it from following the share of correct ones",
        ),
        Metric(
            name="actor/llds/open_token_frac",
            title="Tokens under an open gate",
            unit="share of preserved tokens",
            meaning="tokens of actions whose likelihood fell as a whole",
            healthy="above 0 from the second mini-batch of a step on, and level",
            remedy="always 0: one update per rollout moves nothing; above 0 at once: low precision, see "
            "algorithm.llds.tolerance",
        ),
        Metric(
            name="actor/llds/penalised_token_frac",
            title="Penalised tokens",
            unit="share of preserved tokens",
            meaning="tokens that pay",
            healthy="below open_token_frac, level",
            remedy=_FEWER,
        ),
        Metric(
            name="actor/llds/displaced_token_frac",
            title="Displaced tokens of the preserving set",
            unit="share of preserved tokens",
            meaning="preserved tokens whose likelihood fell",
            healthy="below one half",
            remedy=_FEWER,
        ),
        Metric(
            name="actor/llds/displacement",
            title="Displacement of the preserving set",
            unit="nats per token; above 0: fell",
            meaning="mean of old minus new over preserved tokens",
            healthy="0 or below: what is worth keeping becomes likelier",
            remedy=_SINKS,
        ),
    ),
)
