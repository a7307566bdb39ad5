"""Builds that end early: by SIGKILL, by a full disk."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from retriever_server.build import Outcome, build_index
from retriever_server.cli import main
from retriever_server.errors import IndexMissingError
from retriever_server.manifest import Manifest
from retriever_server.precision import Dtype
from retriever_server.settings import BuildSettings, IndexType, Pooling
from retriever_server.shard_log import ShardLog

NUM_PASSAGES = 600
SHARD_ROWS = 16

BUILD = """
import sys
from pathlib import Path
from retriever_server.build import build_index
from retriever_server.settings import BuildSettings, Pooling
if __name__ == "__main__":
    corpus, out, encoder, workers = sys.argv[1:]
    build_index(BuildSettings(corpus=Path(corpus), out=Path(out), encoder=encoder, pooling=Pooling.MEAN,
                              shard_rows=16, batch_size=4, threads=1, workers=int(workers)))
"""


@pytest.fixture
def big_corpus(tmp_path: Path) -> Path:
    path = tmp_path / "big.jsonl"
    path.write_text(
        "".join(
            json.dumps({"id": str(n), "contents": f"T{n}\n" + f"the river {n} and its bridges " * 40}) + "\n"
            for n in range(NUM_PASSAGES)
        )
    )
    return path


def settings(corpus: Path, out: Path, encoder: Path, **changes: Any) -> BuildSettings:
    given: dict[str, Any] = {"corpus": corpus, "out": out, "encoder": str(encoder), "pooling": Pooling.MEAN}
    return BuildSettings(**{**given, "shard_rows": SHARD_ROWS, "threads": 1, **changes})


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("workers", [1, 2])
def test_after_sigkill_no_finished_shard_is_encoded_again(
    big_corpus: Path, tiny_encoder: Path, tmp_path: Path, workers: int
) -> None:
    script = tmp_path / "build.py"
    script.write_text(BUILD)
    out, log = tmp_path / "idx", tmp_path / "idx" / ".building" / "encoded.txt"
    process = subprocess.Popen(
        [sys.executable, str(script), str(big_corpus), str(out), str(tiny_encoder), str(workers)],
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        time.sleep(0.002)
    workers_pids = children_of(process.pid) if process.poll() is None else []
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the build ended before it was killed"
    with pytest.raises(IndexMissingError):
        Manifest.load(out)
    done = log.read_bytes().count(b"\n")
    assert 3 <= done < NUM_PASSAGES // SHARD_ROWS
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}/exe").exists() for pid in workers_pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers_pids if Path(f"/proc/{pid}/exe").exists()], "a worker outlived its parent"

    encoded: list[tuple[int, int]] = []
    with pytest.MonkeyPatch.context() as patch:
        add = ShardLog.add
        patch.setattr(ShardLog, "add", lambda log, *shard: (encoded.append(shard), add(log, *shard))[1])
        assert build_index(settings(big_corpus, out, tiny_encoder)).outcome is Outcome.RESUMED
    assert len(encoded) == -(-NUM_PASSAGES // SHARD_ROWS) - done
    Manifest.load(out).check_files(out, every_byte=True)
    build_index(settings(big_corpus, tmp_path / "whole", tiny_encoder, dtype=Dtype.FP32))
    resumed, whole = (_vectors(directory) for directory in (out, tmp_path / "whole"))
    assert abs(resumed - whole).max() < 0.02
    assert abs(resumed).sum(axis=1).min() > 0, "a shard was never written"


def _vectors(directory: Path) -> Any:
    import faiss

    index = faiss.read_index(str(directory / "index.faiss"))
    return index.reconstruct_n(0, index.ntotal)


def test_workers_give_what_one_process_gives(big_corpus: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    build_index(settings(big_corpus, one, tiny_encoder, dtype=Dtype.FP32))
    build_index(settings(big_corpus, two, tiny_encoder, dtype=Dtype.FP32, device="cpu,cpu"))
    assert abs(_vectors(one) - _vectors(two)).max() < 1e-6


@pytest.mark.parametrize("kind", list(IndexType))
def test_a_full_disk_is_one_line_and_leaves_no_index(
    big_corpus: Path, tiny_encoder: Path, tmp_path: Path, kind: IndexType, capfd: pytest.CaptureFixture[str]
) -> None:
    """The corpus still fits; what comes after it does not. SIGXFSZ ignored, a write beyond the limit raises."""
    out = tmp_path / "idx"
    command = ["index", "--corpus", str(big_corpus), "--out", str(out), "--encoder", str(tiny_encoder)]
    command += ["--pooling", "mean", "--type", kind.value, "--threads", "1"]
    reader = os.fork()
    if reader == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        os._exit(main(command))
    assert os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) == 1
    said = capfd.readouterr().err.splitlines()
    assert said[-1].startswith("retriever-server: [Errno 27] File too large")
    assert "free space" in said[-1]
    assert not any("Traceback" in line for line in said)
    with pytest.raises(IndexMissingError):
        Manifest.load(out)
    assert main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize("kind", list(IndexType))
def test_a_disk_that_fills_up_during_the_build_is_gone_on_from(
    big_corpus: Path, tiny_encoder: Path, tmp_path: Path, kind: IndexType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = settings(big_corpus, tmp_path / "idx", tiny_encoder, type=kind)
    with monkeypatch.context() as patch:
        real, left = os.fsync, 3

        def full(file: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(28, "No space left on device")
            real(file)

        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            build_index(made)
    with pytest.raises(IndexMissingError):
        Manifest.load(made.out)
    assert build_index(made).outcome is Outcome.RESUMED
    Manifest.load(made.out).check_files(made.out, every_byte=True)
