import json
from pathlib import Path

# Where something has been made, a folder of the same name in the root changes how these would be sorted.
# isort: off
import build
import policy
import pytest
from cache import FINGERPRINT_FILE, fingerprint, is_current, rebuild

# isort: on

INPUTS = {"code": {}, "settings": {"seed": 0}, "packages": {}}


def _write(text: str):
    def make(directory: Path) -> None:
        (directory / "result.txt").write_text(text)

    return make


def test_result_is_current_until_inputs_change(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert not is_current(out, INPUTS)
    rebuild(out, INPUTS, _write("first"))
    assert is_current(out, INPUTS)
    other = {**INPUTS, "settings": {"seed": 1}}
    assert not is_current(out, other)
    rebuild(out, other, _write("second"))
    assert is_current(out, other)
    assert (out / "result.txt").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_interrupted_build_leaves_the_old_result(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rebuild(out, INPUTS, _write("first"))

    def killed(directory: Path) -> None:
        (directory / "result.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(out, {"settings": 1}, killed)
    assert is_current(out, INPUTS)
    assert (out / "result.txt").read_text() == "first"


def test_folder_without_fingerprint_is_not_taken_for_a_result(tmp_path: Path) -> None:
    (tmp_path / "result.txt").write_text("whole, or not?")
    assert not is_current(tmp_path, INPUTS)
    (tmp_path / FINGERPRINT_FILE).write_text("{")
    assert not is_current(tmp_path, INPUTS)


def test_foreign_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something else"):
        rebuild(tmp_path, INPUTS, _write("x"))
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_fingerprint_sees_code_settings_and_packages(tmp_path: Path) -> None:
    code = tmp_path / "code.py"
    code.write_text("a = 1")
    first = fingerprint(code=[code], settings={"seed": 0}, packages=["pyarrow"])
    assert first == fingerprint(code=[code], settings={"seed": 0}, packages=["pyarrow"])
    assert first != fingerprint(code=[code], settings={"seed": 1}, packages=["pyarrow"])
    code.write_text("a = 2")
    assert first != fingerprint(code=[code], settings={"seed": 0}, packages=["pyarrow"])
    assert first["packages"]["pyarrow"]


def test_world_command_is_cached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "world"
    build.main(["world", "--out", str(out)])
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert set(stamps) == {"passages.jsonl", "train.parquet", "test.parquet", FINGERPRINT_FILE}
    build.main(["world", "--out", str(out)])
    assert "up to date" in capsys.readouterr().out
    assert stamps == {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    build.main(["world", "--out", str(out), "--seed", "1"])
    assert json.loads((out / FINGERPRINT_FILE).read_text())["settings"]["seed"] == 1


def test_policy_needs_a_world_of_this_code(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="not a built world"):
        build.main(["policy", "--world", str(tmp_path / "none"), "--out", str(tmp_path / "policy")])
    world = tmp_path / "world"
    build.main(["world", "--out", str(world)])
    inputs = json.loads((world / FINGERPRINT_FILE).read_text())
    inputs["packages"]["pyarrow"] = "0"
    (world / FINGERPRINT_FILE).write_text(json.dumps(inputs))
    with pytest.raises(SystemExit, match="other inputs"):
        build.main(["policy", "--world", str(world), "--out", str(tmp_path / "policy")])


def test_policy_command_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[int] = []

    def write_policy(world: object, directory: Path, settings: policy.PolicySettings) -> list[float]:
        made.append(settings.cold_start.seed)
        (directory / "model.safetensors").write_text("weights")
        return [1.0]

    monkeypatch.setattr(policy, "write_policy", write_policy)
    world, out = str(tmp_path / "world"), str(tmp_path / "policy")
    build.main(["world", "--out", world])
    build.main(["policy", "--world", world, "--out", out])
    build.main(["policy", "--world", world, "--out", out])
    assert made == [0]
    assert f"{out}: up to date" in capsys.readouterr().out
    build.main(["policy", "--world", world, "--out", out, "--seed", "3"])
    build.main(["world", "--out", world, "--seed", "1"])
    build.main(["policy", "--world", world, "--out", out, "--seed", "3"])
    assert made == [0, 3, 3]
