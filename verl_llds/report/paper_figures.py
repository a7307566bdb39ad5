"""The figures of arXiv 2512.04220 v2, of the reader's own runs."""

from __future__ import annotations

from verl_llds.report.figures import LLDS, POST_UPDATE, PROBE, SEARCH, VERL, Curve, Figure, Panel, Shape, log_prob

_REWARD = Curve(label="reward", metrics=("critic/score/mean", "critic/rewards/mean"))

PAPER_FIGURES = (
    Figure(
        key="likelihood",
        title="Reward, likelihood of correct trajectories, gradient norm",
        source="Fig. 2",
        reading="Before a collapse the likelihood of correct trajectories sinks while the reward still climbs; only "
        "then does the gradient norm surge and the reward fall. Healthy: the likelihood is level or rises.",
        panels=(
            Panel(key="reward", title="Reward", unit="mean per trajectory", curves=(_REWARD,), remedy=VERL),
            Panel(
                key="correct_log_prob",
                title="Log-likelihood of correct trajectories",
                unit="nats per token",
                curves=(
                    Curve(label="the step's own", metrics=log_prob("correct")),
                    Curve(label="fixed probe set", metrics=("llds/probe/log_prob",)),
                ),
                remedy=f"{LLDS} The probe set: {PROBE}",
            ),
            Panel(
                key="grad_norm",
                title="Gradient norm",
                unit="norm, before clipping",
                curves=(Curve(label="gradient norm", metrics=("actor/grad_norm",)),),
                shape=Shape.LOG_LINES,
                remedy=VERL,
            ),
        ),
    ),
    Figure(
        key="entropy",
        title="Entropy, response length, valid searches",
        source="Fig. 4",
        reading="In the paper entropy rises slowly, then sharply before the collapse, while length and the share of "
        "valid searches stay flat: neither of these two gives a warning.",
        panels=(
            Panel(
                key="entropy",
                title="Entropy of the policy",
                unit="nats per token",
                curves=(Curve(label="entropy", metrics=("actor/entropy",)),),
                remedy=VERL,
            ),
            Panel(
                key="response_length",
                title="Response length",
                unit="tokens",
                curves=(
                    Curve(label="with observations", metrics=("response_length/mean",)),
                    Curve(label="policy tokens alone", metrics=("search/policy_tokens",)),
                ),
                remedy=VERL,
            ),
            Panel(
                key="valid_search_ratio",
                title="Valid searches",
                unit="share of searches that found passages",
                curves=(Curve(label="valid searches", metrics=("search/valid_search_ratio",)),),
                remedy=SEARCH,
            ),
        ),
    ),
    Figure(
        key="actions",
        title="First and later actions; what wrong trajectories found",
        source="Fig. 5",
        reading="Wrong trajectories that begin as right ones do drag the first action of the right ones down. In the "
        "paper the first action's likelihood falls below the second's about ten steps before the collapse, while "
        "the share of equal first observations passes one half.",
        panels=(
            Panel(
                key="action_log_prob",
                title="Log-likelihood by action, correct trajectories",
                unit="nats per token",
                curves=(
                    Curve(label="first action", metrics=log_prob("correct", "first_action")),
                    Curve(label="between", metrics=log_prob("correct", "middle_action")),
                    Curve(label="last action", metrics=log_prob("correct", "last_action")),
                ),
                remedy=LLDS,
            ),
            Panel(
                key="observation_match",
                title="Wrong trajectories whose first search found what a correct sibling's found",
                unit="share",
                curves=(Curve(label="observation match", metrics=("llds/observation_match_ratio",)),),
                remedy=f"{SEARCH} It needs groups with right and wrong trajectories.",
            ),
        ),
    ),
    Figure(
        key="correct_incorrect",
        title="Likelihood of correct against incorrect trajectories",
        source="Fig. 9a",
        reading="By sign of the advantage. In the paper incorrect trajectories become less likely than correct ones "
        "after step 80: unlikely wrong trajectories push hardest.",
        panels=(
            Panel(
                key="class_log_prob",
                title="Log-likelihood before the update",
                unit="nats per token",
                curves=(
                    Curve(label="correct", metrics=log_prob("correct")),
                    Curve(label="incorrect", metrics=log_prob("incorrect")),
                    Curve(label="no advantage", metrics=log_prob("zero")),
                ),
                remedy=LLDS,
            ),
            Panel(
                key="class_share",
                title="Trajectories by sign of the advantage",
                unit="share",
                curves=(
                    Curve(label="correct", metrics=("llds/trajectory_frac/correct",)),
                    Curve(label="no advantage", metrics=("llds/trajectory_frac/zero",)),
                    Curve(label="incorrect", metrics=("llds/trajectory_frac/incorrect",)),
                ),
                shape=Shape.AREAS,
                remedy=POST_UPDATE,
            ),
        ),
    ),
    Figure(
        key="searches",
        title="Valid searches per question",
        source="Fig. 9b",
        reading="In the paper GRPO stays at one search, LLDS-MA goes above two. Questions of several hops need as "
        "many searches; more than a question needs is a habit, not a skill.",
        panels=(
            Panel(
                key="valid_searches",
                title="Valid searches per question",
                unit="searches",
                curves=(Curve(label="valid searches", metrics=("search/valid_searches",)),),
                remedy=SEARCH,
            ),
            Panel(
                key="endings",
                title="Trajectories that end in an answer",
                unit="share",
                curves=(Curve(label="answered", metrics=("search/answer_share",)),),
                remedy=SEARCH,
            ),
        ),
    ),
    Figure(
        key="reward_runs",
        title="Reward of all runs",
        source="Figs. 7 and 8",
        reading="Give several run folders to see them on top of each other: in the paper every run without LLDS "
        "collapses within 300 steps, a coefficient of 0.01 delays it, 0.2 prevents it.",
        panels=(
            Panel(
                key="runs_reward", title="Training reward", unit="mean per trajectory", curves=(_REWARD,), remedy=VERL
            ),
            Panel(
                key="evaluation",
                title="Evaluation",
                unit="score",
                prefix="val-core/",
                remedy="Set trainer.test_freq and data.val_files: scores are logged at each evaluation.",
            ),
        ),
    ),
)
"""The paper's figures 2, 4, 5, 9a, 9b, 7 and 8, of the reader's own runs."""
