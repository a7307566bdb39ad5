"""What this plugin needs of verl, as one table that can be checked against the verl that is installed.

verl promises none of these names. The table says which ones this package imports, calls, overrides or reads,
and why, so that ``verl-llds doctor`` and a test find an incompatible verl before a run does. A name whose
parameters matter lists those passed or received; any other must have a default.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from types import FunctionType, ModuleType
from typing import Any, NamedTuple


class Need(NamedTuple):
    """One name of a module of verl's."""

    path: str
    """Attribute path inside the module."""
    why: str
    """What it is needed for, said of the name."""
    takes: tuple[str, ...] | None = None
    """Parameters passed or received by name, or None where only the name matters."""
    body: tuple[str, ...] = ()
    """Names and strings its code must contain: attributes it sets, functions it calls, variables it reads."""


class Breach(NamedTuple):
    """One need that the installed verl does not meet."""

    name: str
    """The name at fault."""
    problem: str
    """What is wrong with it, and what it is needed for."""

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}"


_POLICY_LOSS = (
    "old_log_prob",
    "log_prob",
    "advantages",
    "response_mask",
    "loss_agg_mode",
    "config",
    "rollout_is_weights",
)
_EPISODE = (
    "prompt_ids",
    "response_ids",
    "response_mask",
    "response_logprobs",
    "reward_score",
    "num_turns",
    "metrics",
    "extra_fields",
)

NEEDS: dict[str, tuple[Need, ...]] = {
    "verl.trainer.ppo.core_algos": (
        Need("register_policy_loss", "registers loss_mode=llds", takes=("name",)),
        Need("get_policy_loss_fn", "finds the loss the penalty is added to", takes=("name",)),
        Need("POLICY_LOSS_REGISTRY", "shows that the loss is registered"),
        Need("compute_policy_loss_vanilla", "is the base loss of grpo_llds", takes=_POLICY_LOSS),
        Need("compute_policy_loss_gspo", "is the base loss of gspo_llds", takes=_POLICY_LOSS),
    ),
    "verl.workers.utils.losses": (
        Need(
            "ppo_loss",
            "calls the policy loss",
            takes=("config", "model_output", "data", "dp_group"),
            body=("get_policy_loss_fn", "global_batch_info", "dp_size", "policy_loss", "loss_mode"),
        ),
    ),
    "verl.workers.config.actor": (Need("PolicyLossConfig", "is extended by the LLDS settings", takes=("loss_mode",)),),
    "verl.utils.config": (
        Need("omega_conf_to_dataclass", "builds the settings named by _target_", takes=("config",)),
        Need(
            "validate_config",
            "checks a run's settings before it starts",
            takes=("config", "use_reference_policy", "use_critic"),
        ),
    ),
    "verl.utils.metric": (
        Need("Metric", "carries the penalty's metrics", takes=("aggregation", "value")),
        Need("AggregationType.SUM", "adds metrics up over micro-batches"),
    ),
    "verl.experimental.agent_loop.agent_loop": (
        Need("register", "registers the agent loop search_r1", takes=("agent_name",)),
        Need("_agent_loop_registry", "shows that the agent loop is registered"),
        Need(
            "AgentLoopBase.__init__",
            "gives an episode its settings, engine and tokenizer",
            body=("config", "rollout_config", "server_manager", "tokenizer"),
        ),
        Need("AgentLoopBase.ct_build_initial_tokens", "renders the prompt", takes=("messages",)),
        Need("AgentLoopBase.run", "plays one episode", takes=("sampling_params",)),
        Need("AgentLoopOutput", "is what an episode returns", takes=_EPISODE),
        Need("AgentLoopOutput.as_dict", "turns tensors into fields of the training batch", takes=()),
        Need("AgentLoopMetrics", "is a required field of an episode's output", takes=("tool_calls",)),
    ),
    "verl.workers.rollout.llm_server": (
        Need(
            "LLMServerClient.generate",
            "samples one turn",
            takes=("request_id", "prompt_ids", "sampling_params"),
        ),
    ),
    "verl.workers.rollout.replica": (
        Need("TokenOutput", "is one sampled turn", takes=("token_ids", "log_probs", "extra_fields")),
    ),
    "verl.single_controller.base.decorator": (
        Need("register", "makes init_model callable on the worker group", takes=("dispatch_mode",)),
        Need("Dispatch.ONE_TO_ALL", "runs init_model on every rank"),
    ),
    "verl.workers.engine_workers": (
        Need("TrainingWorker.__init__", "sets the engine", takes=("config",), body=("engine",)),
        Need("TrainingWorker.train_batch", "is where preserved tokens are counted", takes=("data",)),
        Need(
            "TrainingWorker.train_mini_batch",
            "trains through train_batch",
            takes=("data",),
            body=("train_batch",),
        ),
        Need("TrainingWorker.set_loss_fn", "installs the loss with its context", takes=("loss_fn",)),
        Need("ActorRolloutRefWorker.actor_worker_cls", "names the class of the actor's worker"),
        Need(
            "ActorRolloutRefWorker.init_model",
            "builds the actor and its loss",
            takes=(),
            body=("actor_worker_cls", "actor", "loss_fn", "set_loss_fn"),
        ),
    ),
    "verl.workers.engine.base": (
        Need("BaseEngine.get_data_parallel_group", "is the group the count is summed over", takes=()),
        Need(
            "EngineRegistry.get_engine_cls",
            "lets platform=cpu use the FSDP engine",
            body=("VERL_ENGINE_DEVICE",),
        ),
    ),
    "verl.utils.tensordict_utils": (Need("assign_non_tensor", "adds the count to the batch", takes=("tensor_dict",)),),
    "verl.utils.device": (Need("get_device_id", "places the count for the all-reduce", takes=()),),
    "verl.trainer.ppo.v1": (
        Need("register_trainer", "registers the llds_* trainer modes", takes=("name",)),
        Need("PPOTrainerSync", "is extended by llds_sync", takes=("config",)),
        Need("PPOTrainerColocateAsync", "is extended by llds_colocate_async", takes=("config",)),
        Need("PPOTrainerSeparateAsync", "is extended by llds_separate_async", takes=("config",)),
    ),
    "verl.trainer.ppo.v1.trainer_base": (
        Need("TRAINER_REGISTRY", "shows that the trainers are registered"),
        Need("PPOTrainer._init_tokenizer", "sets the tokenizer", takes=(), body=("tokenizer",)),
        Need(
            "PPOTrainer._init_resource_pool_mgr",
            "chooses the worker class of each role",
            takes=(),
            body=("role_worker_mapping",),
        ),
        Need("PPOTrainer._compute_advantage", "follows each rollout", takes=("batch", "metrics")),
    ),
    "verl.trainer.ppo.utils": (
        Need("Role.Actor", "is a key of role_worker_mapping"),
        Need("Role.ActorRollout", "is a key of role_worker_mapping"),
        Need("Role.ActorRolloutRef", "is a key of role_worker_mapping"),
        Need("need_critic", "is an argument of validate_config", takes=("config",)),
        Need("need_reference_policy", "is an argument of validate_config", takes=("config",)),
    ),
    "verl.plugin.platform": (
        Need("PlatformRegistry.register", "makes VERL_PLATFORM=cpu known", takes=("platform",)),
        Need("platform_manager.get_platform", "is the platform in use", takes=()),
        Need("platform_manager.set_platform", "chooses the CPU on the driver", takes=("platform",)),
        Need(
            "platform_manager._detect_platform_name",
            "chooses the CPU in Ray's workers",
            body=("VERL_PLATFORM",),
        ),
    ),
    "verl.plugin.platform.platform_base": (Need("PlatformBase", "is implemented for the CPU"),),
    "verl.utils.distributed": (
        Need(
            "initialize_global_process_group_ray",
            "starts the process group on gloo",
            takes=("backend",),
        ),
    ),
    "transfer_queue": (
        Need(
            "kv_batch_get",
            "reads the trajectories of a step",
            takes=("keys", "partition_id", "select_fields"),
        ),
    ),
}
"""By module, everything of verl and of the queue it trains through that this package uses."""

SUBCLASSES = {
    "verl_llds.cpu.platform": ("PlatformCPU",),
    "verl_llds.loss.policy_loss": ("LLDSPolicyLossConfig",),
    "verl_llds.search.agent_loop": ("SearchAgentLoop", "SearchAgentLoopOutput"),
    "verl_llds.trainer": ("LLDSTrainerSync", "LLDSTrainerColocateAsync", "LLDSTrainerSeparateAsync"),
    "verl_llds.worker": ("LLDSTrainingWorker", "LLDSActorRolloutRefWorker"),
}
"""Our classes over verl's: each must implement all that is abstract and accept what it overrides accepts."""


def check_contract(
    needs: Mapping[str, Sequence[Need]] = NEEDS, subclasses: Mapping[str, Sequence[str]] = SUBCLASSES
) -> list[Breach]:
    """Return what the installed verl does not offer as this package needs it; empty if all is well."""
    breaches: list[Breach] = []
    for name in dict.fromkeys([*needs, *subclasses]):
        try:
            module = importlib.import_module(name)
        # The plugin ends the process where one of its hooks fails; here that is a finding like any other.
        except (ImportError, SystemExit) as error:
            breaches.append(Breach(name, f"cannot be imported ({error.__cause__ or error})"))
            continue
        for need in needs.get(name, ()):
            breaches.extend(Breach(f"{name}.{need.path}", problem) for problem in _problems(module, need))
        for cls in subclasses.get(name, ()):
            found = _subclass_problems(getattr(module, cls))
            breaches.extend(Breach(f"{name}.{cls}", problem) for problem in found)
    return breaches


def _problems(module: ModuleType, need: Need) -> Iterator[str]:
    try:
        found: Any = reduce(_member, need.path.split("."), module)
    except (ImportError, AttributeError) as error:
        yield f"missing ({error}); it {need.why}"
        return
    if need.takes is not None:
        yield from (f"{problem}; it {need.why}" for problem in _signature_problems(found, need.takes))
    if need.body:
        code = inspect.unwrap(found).__code__
        lacking = [word for word in need.body if word not in (*code.co_names, *code.co_consts)]
        if lacking:
            yield f"its code no longer has {', '.join(lacking)}; it {need.why}"


def _member(owner: Any, name: str) -> Any:
    # A submodule that nothing has imported yet is no attribute of its package.
    if inspect.ismodule(owner) and not hasattr(owner, name):
        return importlib.import_module(f"{owner.__name__}.{name}")
    return getattr(owner, name)


def _signature_problems(found: Any, wanted: tuple[str, ...]) -> Iterator[str]:
    parameters = inspect.signature(found).parameters
    lacking = [name for name in wanted if name not in parameters]
    if lacking:
        yield f"no parameter {', '.join(lacking)}"
    added = [
        name
        for name, parameter in parameters.items()
        if name not in (*wanted, "self")
        and parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if added:
        yield f"unknown parameter without a default: {', '.join(added)}"


def _subclass_problems(cls: type) -> Iterator[str]:
    abstract = sorted(getattr(cls, "__abstractmethods__", ()))
    if abstract:
        yield f"verl asks for methods it does not implement: {', '.join(abstract)}"
    for method, ours, theirs in _overrides(cls):
        refused = sorted(_named(theirs) - _named(ours))
        if refused and not _takes_any(ours):
            yield f"{method} does not accept verl's parameter {', '.join(refused)}"


def _overrides(cls: type) -> Iterator[tuple[str, FunctionType, FunctionType]]:
    """Yield each method that code of ours defines over code of verl's."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("verl_llds.")]
    theirs = [base for base in cls.__mro__ if base.__module__.startswith("verl.")]
    for name in {name for base in ours for name in vars(base)}:
        mine = next(vars(base)[name] for base in ours if name in vars(base))
        stock = next((vars(base)[name] for base in theirs if name in vars(base)), None)
        if isinstance(mine, FunctionType) and isinstance(stock, FunctionType):
            yield name, mine, stock


def _named(function: FunctionType) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _takes_any(function: FunctionType) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
