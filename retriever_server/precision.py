"""Which number format a device computes in. Imports torch for none of it."""

from enum import Enum
from pathlib import Path

from retriever_server.errors import SettingsError

_CPU_INFO = Path("/proc/cpuinfo")
# The instructions that make a bfloat16 product faster than a float32 one; without them it is far slower.
_FAST_BF16 = {"amx_bf16", "avx512_bf16"}


class Dtype(str, Enum):
    """The precision of the encoder, and of the product that looks for candidates."""

    AUTO = "auto"
    """The encoder: fp16 on a GPU, bf16 on a CPU with instructions for it, otherwise fp32. The index: fp16 on
    a GPU, and on a CPU the vectors where they lie, which takes no memory."""

    FP32 = "fp32"
    """32 bits everywhere."""

    BF16 = "bf16"
    """bfloat16 everywhere; a CPU keeps a copy of the vectors in it."""

    FP16 = "fp16"
    """float16 everywhere; GPUs only."""


def split_devices(device: str) -> list[str]:
    """The devices of ``--device cuda:0,cuda:1``.

    Raises:
        SettingsError: A name between the commas is empty.
    """
    devices = [name.strip() for name in device.split(",")]
    if not all(devices):
        raise SettingsError(f"--device {device!r} has an empty name; write it as in cpu or cuda:0,cuda:1.")
    return devices


def encoder_dtype(dtype: Dtype, device: str) -> Dtype:
    """The precision of an encoder on ``device``; never AUTO.

    Raises:
        SettingsError: The device does not have it.
    """
    on_gpu = device.split(":")[0] != "cpu"
    if dtype is Dtype.FP16 and not on_gpu:
        raise SettingsError(f"--dtype fp16 needs a GPU, --device is {device}; use bf16, fp32 or auto.")
    if dtype is not Dtype.AUTO:
        return dtype
    if on_gpu:
        return Dtype.FP16
    return Dtype.BF16 if has_fast_bf16() else Dtype.FP32


def has_fast_bf16() -> bool:
    """Whether this CPU has AMX-BF16 or AVX512-BF16; false where the system does not say."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return not _FAST_BF16.isdisjoint(flags.split())
