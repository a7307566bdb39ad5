"""The table of what this package uses of verl, and the classes it builds on verl's."""

from __future__ import annotations

from typing import NamedTuple


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
_EVALUATION = ("data_sources", "sample_uids", "reward_extra_infos_dict", "sample_turns", "expected_acc_counts")
_DUMP = ("inputs", "outputs", "gts", "scores", "reward_extra_infos_dict", "dump_path")

NEEDS: dict[str, tuple[Need, ...]] = {
    "verl.trainer.ppo.core_algos": (
        Need("register_policy_loss", "registers loss_mode=llds", takes=("name",)),
        Need("get_policy_loss_fn", "finds the loss the penalty is added to", takes=("name",)),
        Need("AdvantageEstimator.GRPO", "compares trajectories with their siblings"),
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
        Need("AggregationType.MAX", "reports the largest log-ratio of a mini-batch"),
    ),
    "verl.experimental.agent_loop.agent_loop": (
        Need("register", "registers the agent loop search", takes=("agent_name",)),
        Need("_agent_loop_registry", "shows that the agent loop is registered"),
        Need(
            "AgentLoopBase.__init__",
            "gives an episode its settings, engine and tokenizer",
            body=("config", "rollout_config", "server_manager", "tokenizer"),
        ),
        Need("AgentLoopBase.ct_build_initial_tokens", "renders the prompt", takes=("messages", "tools")),
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
        Need("TokenOutput", "is one sampled turn", takes=("token_ids", "log_probs", "stop_reason", "extra_fields")),
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
    "verl.experimental.separation.engine_workers": (
        Need("DetachActorWorker", "is the worker of the separate_async mode"),
    ),
    "verl.workers.engine.base": (
        Need("BaseEngine.get_data_parallel_group", "is the group the count is summed over", takes=()),
        Need(
            "EngineRegistry.get_engine_cls",
            "lets platform=cpu use the FSDP engine",
            body=("VERL_ENGINE_DEVICE",),
        ),
    ),
    "verl.workers.utils.padding": (
        Need("no_padding_2_padding", "lays log-probabilities out by response", takes=("tensor", "data")),
        Need("response_from_nested", "takes responses out of whole sequences", takes=("tensor", "response_mask")),
    ),
    "verl.utils.tensordict_utils": (
        Need("list_of_dict_to_tensordict", "puts columns of the queue together", takes=("list_of_dicts",)),
        Need("assign_non_tensor", "adds the count to the batch", takes=("tensor_dict",)),
        Need("get_non_tensor_data", "reads what the driver says of a batch", takes=("data", "key", "default")),
    ),
    "verl.utils.fs": (Need("copy_to_local", "fetches a model's configuration", takes=("src",)),),
    "verl.utils.debug": (Need("marked_timer", "times the diagnostics", takes=("name", "timing_raw")),),
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
        Need(
            "PPOTrainer._update_actor", "sends the batch to the actor", takes=("batch", "metrics"), body=("extra_info",)
        ),
        Need("PPOTrainer.step", "is one training step", takes=("metrics", "timing_raw")),
        Need("PPOTrainer._validate", "evaluates", takes=(), body=("_val_metrics_update", "kv_batch_get")),
        Need("PPOTrainer._val_metrics_update", "checks an evaluation", takes=_EVALUATION),
        Need("PPOTrainer._dump_generations", "writes trajectories down", takes=_DUMP),
        Need("PPOTrainer.on_step_begin", "is where a run is stopped", takes=()),
        Need(
            "PPOTrainer._save_checkpoint",
            "is followed by the diagnostics' state",
            takes=(),
            body=("global_steps", "default_local_dir"),
        ),
        Need("PPOTrainer._load_checkpoint", "restores a run", takes=(), body=("global_steps", "resume_from_path")),
        Need(
            "PPOTrainer._balance_batch",
            "shows where the data-parallel size is kept",
            body=("_dispatch_info", "_query_dispatch_info"),
        ),
        Need(
            "PPOTrainer._compute_old_log_prob",
            "shows how log-probabilities are asked for",
            body=("extra_info", "actor_rollout_wg", "compute_log_prob"),
        ),
    ),
    "verl.trainer.ppo.utils": (
        Need("Role.Actor", "is a key of role_worker_mapping"),
        Need("Role.ActorRollout", "is a key of role_worker_mapping"),
        Need("Role.ActorRolloutRef", "is a key of role_worker_mapping"),
        Need("need_critic", "is an argument of validate_config", takes=("config",)),
        Need("need_reference_policy", "is an argument of validate_config", takes=("config",)),
    ),
    "verl.model_merger.base_model_merger": (
        Need(
            "ModelMergerConfig",
            "says what is merged into a model folder",
            takes=("operation", "backend", "target_dir", "local_dir", "hf_model_config_path"),
        ),
    ),
    "verl.model_merger.fsdp_model_merger": (
        Need("FSDPModelMerger.merge_and_save", "merges a checkpoint's shards into a model folder", takes=()),
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
        Need("kv_batch_put", "holds the probe set", takes=("keys", "partition_id", "fields", "tags")),
        Need("kv_clear", "removes it again", takes=("keys", "partition_id")),
        Need("KVBatchMeta", "names trajectories to a worker", takes=("partition_id", "keys", "tags", "extra_info")),
    ),
}
"""By module, everything of verl and of the queue it trains through that this package uses."""

SUBCLASSES = {
    "verl_llds.cpu.platform": ("PlatformCPU",),
    "verl_llds.loss.policy_loss": ("LLDSPolicyLossConfig",),
    "verl_llds.search.agent_loop": ("SearchAgentLoop", "SearchAgentLoopOutput"),
    "verl_llds.trainer": ("LLDSTrainerSync", "LLDSTrainerColocateAsync", "LLDSTrainerSeparateAsync"),
    "verl_llds.worker": ("LLDSTrainingWorker", "LLDSActorRolloutRefWorker", "LLDSDetachActorWorker"),
}
"""Our classes over verl's: each must implement all that is abstract and accept what it overrides accepts."""
