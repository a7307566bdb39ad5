"""vLLM's linear layers on the CPU keep a weight that can be loaded again."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from verl_llds.cpu import vllm_plugin

UTILS = "vllm.model_executor.layers.utils"


@pytest.fixture
def utils(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # The real module takes many seconds to import and needs vLLM.
    modules = {name: ModuleType(name) for name in ("vllm", "vllm.model_executor", "vllm.model_executor.layers")}
    modules[UTILS] = ModuleType(UTILS)
    modules[UTILS].dispatch_cpu_unquantized_gemm = "stock"  # type: ignore[attr-defined]
    modules["vllm.model_executor.layers"].utils = modules[UTILS]  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules[UTILS]


def test_it_does_nothing_elsewhere(utils: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    vllm_plugin.register()
    assert utils.dispatch_cpu_unquantized_gemm == "stock"


def test_on_the_cpu_platform_the_weight_stays(utils: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    vllm_plugin.register()
    vllm_plugin.register()
    layer = torch.nn.Linear(3, 2)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    values = torch.rand(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(2, 3))
    assert torch.equal(layer.cpu_linear(values, layer.weight, layer.bias), layer(values))
