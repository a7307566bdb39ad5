"""What an index takes in memory: its pages may come and go, its own memory must stay small."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retriever_server.corpus import Corpus
from retriever_server.index.flat_file import flat_header

ROWS, DIM = 200_000, 96

# RssAnon is what a process has for itself; mapped file pages (RssFile) are the system's cache, and it takes
# them back at will. VmHWM, the peak, counts both.
SCRIPT = """
import sys
from pathlib import Path
import numpy as np, torch
import retriever_server.index.flat as flat
from retriever_server.index.flat_file import FlatFile
from retriever_server.index.shard import MappedShard, ResidentShard, centre_of

rows, dim = int(sys.argv[3]), int(sys.argv[4])

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

torch.set_num_threads(1)
queries = np.ones((1, dim), dtype=np.float32)
torch.from_numpy(queries) @ torch.ones(dim, 5)
before = own()
file = FlatFile(Path(sys.argv[1]), count=rows, dim=dim, in_memory=sys.argv[2] == "in-memory")
if sys.argv[2] == "bf16":
    shard = ResidentShard(file, 0, rows, device=torch.device("cpu"), dtype=torch.bfloat16,
                          centre=centre_of(file), residual=0.0)
else:
    shard = MappedShard(file, 0, rows, max_norm=1.0, residual=0.0)
index = flat.FlatIndex(file, [shard], rows)
index.search(queries, 3)
print((own() - before) / (rows * dim * 4))
"""


@pytest.fixture(scope="module")
def flat_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("m") / "index.faiss"
    with path.open("wb") as file:
        file.write(flat_header(ROWS, DIM))
        rng = np.random.default_rng(0)
        for _ in range(10):
            file.write(rng.standard_normal((ROWS // 10, DIM), dtype=np.float32).tobytes())
    return path


def share(path: Path, how: str) -> float:
    # By default glibc keeps some freed blocks for later, now two of them and now twelve.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", SCRIPT, str(path), how, str(ROWS), str(DIM)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


def test_a_mapped_flat_index_takes_under_a_fifth_of_its_size(flat_index: Path) -> None:
    assert share(flat_index, "mapped") < 0.2


def test_a_copy_in_half_precision_takes_that_and_no_host_copy_beside(flat_index: Path) -> None:
    """A GPU is filled by the same code; then the half lies on the GPU."""
    assert share(flat_index, "bf16") < 0.5 + 0.2


def test_in_memory_takes_its_size_once(flat_index: Path) -> None:
    assert 0.9 < share(flat_index, "in-memory") < 1.2


def test_a_corpus_of_21_million_passages_opens_at_once_and_takes_no_memory(tmp_path: Path) -> None:
    """Wikipedia's size, as files with holes: 21,015,324 passages, 14 GB."""
    count, size = 21_015_324, 14_000_000_000
    offsets = np.lib.format.open_memmap(tmp_path / "o.npy", mode="w+", dtype=np.uint64, shape=(count + 1,))
    line = b'{"id":"7","contents":"T\\nx"}\n'
    offsets[-2:] = size - len(line), size
    offsets.flush()
    with (tmp_path / "p.jsonl").open("wb") as file:
        file.truncate(size)
        file.seek(size - len(line))
        file.write(line)
    before = own_memory()
    corpus = Corpus(tmp_path / "p.jsonl", tmp_path / "o.npy")
    assert len(corpus) == count
    assert corpus.raw(count - 1) == line[:-1]
    assert own_memory() - before < 1 << 20


def own_memory() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
