"""The SmolLM2 job's number format: bfloat16 where the machine is fast at it."""

import pytest
from run_smollm2 import number_format

from verl_llds.compose import compose_run


@pytest.mark.parametrize(
    ("arguments", "fast_bf16", "actor", "engine"),
    [
        ([], True, "bf16", "bfloat16"),
        ([], False, "fp32", "float32"),
        (["--", "platform=gpu"], False, "bf16", "bfloat16"),
    ],
)
def test_actor_and_engine_compute_in_what_the_machine_is_fast_at(
    arguments: list[str], fast_bf16: bool, actor: str, engine: str
) -> None:
    of_actor_rollout = compose_run(
        ["experiment=laptop_smollm2", *number_format(arguments, fast_bf16)]
    ).actor_rollout_ref
    assert of_actor_rollout.actor.fsdp_config.mixed_precision.param_dtype == actor
    assert of_actor_rollout.rollout.dtype == engine
