"""The arguments of the service on Ray Serve: ``serve run`` gives all of them as strings."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from retriever_server.errors import SettingsError
from retriever_server.service_settings import ServiceSettings, check_positive
from retriever_server.settings import ServeSettings

_SERVICE = {field.name for field in fields(ServiceSettings)}
_SET_BY_SERVE = {"host", "port", "insecure", "ready_file", "workers", "drain_s"}
_ENGINE = {field.name for field in fields(ServeSettings)} - _SERVICE - {"shard"}
# The front alone queues and keeps answers.
_ENGINE_AND_FRONT = {"max_topk", "max_passages", "max_batch", "max_batch_tokens", "deadline_s"}
_SCALING = {
    "min_replicas": int,
    "max_replicas": int,
    "initial_replicas": int,
    "target_ongoing_requests": float,
    "upscale_delay_s": float,
    "downscale_delay_s": float,
    "look_back_period_s": float,
}
_RESOURCES = {"num_cpus": float, "num_gpus": float}
_TYPES: dict[str, Any] = {
    **{name: hint for name, hint in get_type_hints(ServeSettings).items() if name in _ENGINE | _SERVICE},
    **_SCALING,
    **_RESOURCES,
    "num_shards": int,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeArguments:
    """What the deployments are made of."""

    num_shards: int
    """Parts of the index, each a deployment of its own."""

    replica: ServeSettings
    """How a replica searches, whichever shard it has."""

    front: ServiceSettings
    """How the front answers."""

    scaling: dict[str, Any]
    """How many replicas a shard has: for Serve's ``AutoscalingConfig``."""

    resources: dict[str, float]
    """What a replica takes of its node: for ``ray_actor_options``."""


def read_arguments(args: dict[str, Any]) -> ServeArguments:
    """Check and sort arguments.

    Args:
        args: ``index`` (a directory every node can read), ``num_shards`` (1); of Serve's autoscaling, which goes for
            each shard, ``min_replicas`` and ``max_replicas`` (1), ``target_ongoing_requests`` (batches in flight per
            replica before more are started; 2) and its delays; ``num_cpus`` (1) and ``num_gpus`` (0) per
            replica; and whatever `ServeSettings` has, where ``threads`` is 1.

    Raises:
        SettingsError: An argument is not one of these, or is out of range.
    """
    asked = {name: _read(name, value) for name, value in args.items()}
    if "index" not in asked:
        raise SettingsError("index is missing; give the directory that `retriever-server index` made.")
    asked["index"] = asked["index"].resolve()
    num_shards = asked.get("num_shards", 1)
    check_positive("num_shards", num_shards)
    resources = {"num_cpus": 1.0, "num_gpus": 0.0, **_of(asked, _RESOURCES)}
    scaling = _of(asked, _SCALING)
    replica = ServeSettings(**{"threads": 1, "cache_size": 0, **_of(asked, _ENGINE | _ENGINE_AND_FRONT)})
    _check_device(replica.device, resources["num_gpus"])
    return ServeArguments(
        num_shards=num_shards,
        replica=replica,
        front=ServiceSettings(**_of(asked, _SERVICE)),
        scaling={"max_replicas": scaling.get("min_replicas", 1), **scaling},
        resources=resources,
    )


def _read(name: str, value: Any) -> Any:
    if name in _SET_BY_SERVE:
        raise SettingsError(f"{name} is Ray Serve's own to set; leave it out.")
    if name not in _TYPES:
        raise SettingsError(f"{name} is no argument; there are {', '.join(sorted(_TYPES.keys() - _SET_BY_SERVE))}.")
    try:
        read = TypeAdapter(_TYPES[name]).validate_python(value)
    except ValidationError as error:
        raise SettingsError(f"{name} is {value!r}: {error.errors()[0]['msg']}.") from error
    if name in ("encoder", "reranker") and read and Path(read).is_dir():
        # Replicas run in other directories.
        return str(Path(read).resolve())
    return read


def _of(asked: dict[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name in names}


def _check_device(device: str, num_gpus: float) -> None:
    if device.startswith("cuda") and not num_gpus:
        raise SettingsError(f"device is {device} and a replica gets no GPU from Ray; give num_gpus.")
    if device == "cpu" and num_gpus:
        raise SettingsError(f"num_gpus is {num_gpus:g} and device is cpu; give device=cuda.")
