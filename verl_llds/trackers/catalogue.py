"""The table of the metrics that this package logs, with those of verl's that are read beside them.

One source for layouts, documentation and tests: each entry says what a metric is, what a healthy value looks like, and
what to do when it is not.
"""

from __future__ import annotations

from verl_llds.trackers.environment import BEHAVIOUR, SERVICE
from verl_llds.trackers.likelihood import PENALTY, WITHIN
from verl_llds.trackers.metric import Metric, Section
from verl_llds.trackers.update import AFTER, NUMBERS, PROBE

OVERVIEW = Section(
    title="Is the run healthy?",
    metrics=(
        Metric(
            name="llds/phase",
            title="Phase",
            unit="0 healthy, 1 stagnation, 2 decay, 3 acceleration, 4 collapsed",
            meaning="the verdict of the detector, which compares quantities with their own running baselines",
            healthy="0",
            remedy="the line that the trainer prints when it changes says what moved and what to try",
        ),
        Metric(
            name="critic/score/mean",
            title="Reward",
            unit="mean per trajectory",
            meaning="verl's: the share of right answers, where the reward is exact match",
            healthy="rises, then holds",
            remedy="falls: look at the phase, the retriever and the step's trajectories",
        ),
        Metric(
            name="actor/entropy",
            title="Entropy",
            unit="nats per token",
            meaning="verl's: of the policy before the update",
            healthy="level or slowly falling; a surge precedes a collapse",
            remedy="surges: lower the learning rate, go back to an earlier checkpoint",
        ),
        Metric(
            name="actor/grad_norm",
            title="Gradient norm",
            unit="norm, before clipping",
            meaning="verl's",
            healthy="level; in the paper it surges in the last phase only",
            remedy="surges or NaN: lower the learning rate, go back to an earlier checkpoint",
        ),
        Metric(
            name="training/rollout_probs_diff_mean",
            title="Engine against trainer",
            unit="difference of probabilities",
            meaning="verl's: of sampled tokens between the rollout engine and the trainer",
            healthy="below 0.01",
            remedy="grows: same precision in both, and the engine that your verl was made for",
        ),
    ),
)

COST = Section(
    title="Cost of looking",
    metrics=(
        Metric(
            name="timing_s/llds_diagnostics",
            title="Time of the diagnostics",
            unit="seconds per step",
            meaning="the detector, and the forward passes of diagnostics.post_update_every and probe_every",
            healthy="small beside timing_s/step",
            remedy="raise diagnostics.post_update_every or probe_every",
        ),
        Metric(
            name="timing_s/llds_trajectories",
            title="Time of recording trajectories",
            unit="seconds per recorded step",
            meaning="what recording adds to a step; the files are written in the background",
            healthy="below timing_s/step / 100, taken over all steps",
            remedy="raise diagnostics.trajectories.every, lower max_rows, or set post_update=false",
        ),
        Metric(
            name="timing_s/llds_trajectories_forward",
            title="Time of measuring recorded trajectories",
            unit="seconds per recorded step",
            meaning="the forward pass after the update, part of the above",
            healthy="nearly all of timing_s/llds_trajectories",
            remedy="set diagnostics.trajectories.post_update=false",
        ),
    ),
)

PROGRESS = Section(
    title="Progress",
    metrics=(
        Metric(
            name="llds/total_steps",
            title="Steps of the whole run",
            unit="steps",
            meaning="how many there will be, from which verl-llds watch tells when it ends",
            healthy="does not change",
            remedy="set trainer.total_training_steps or trainer.total_epochs",
        ),
    ),
)

SECTIONS = (OVERVIEW, WITHIN, PENALTY, AFTER, PROBE, BEHAVIOUR, SERVICE, NUMBERS, COST, PROGRESS)
"""In reading order."""

METRICS: tuple[Metric, ...] = tuple(metric for section in SECTIONS for metric in section.metrics)
"""All of them."""
