from pathlib import Path

import numpy as np
import pytest

from retriever_server.errors import IndexMismatchError
from retriever_server.index import flat_file
from retriever_server.index.flat_file import FlatFile, flat_header

VECTORS = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.faiss"
    path.write_bytes(flat_header(*VECTORS.shape) + VECTORS.tobytes())
    return path


@pytest.mark.parametrize("in_memory", [False, True], ids=["mapped", "in-memory"])
def test_the_rows_are_those_of_the_file(path: Path, in_memory: bool) -> None:
    file = FlatFile(path, count=50, dim=7, in_memory=in_memory)
    np.testing.assert_array_equal(file.block(10, 30).numpy(), VECTORS[10:30])
    np.testing.assert_array_equal(file.rows(np.array([49, 0])), VECTORS[[49, 0]])
    file.release()
    np.testing.assert_array_equal(file.block(0, 50).numpy(), VECTORS)


def test_in_memory_they_are_aligned(path: Path) -> None:
    assert FlatFile(path, count=50, dim=7, in_memory=True).block(0, 50).data_ptr() % 16 == 0


def test_a_file_cut_short_while_it_is_read_is_refused_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = flat_file.read_flat_header

    def check_and_cut(path: Path) -> tuple[int, int]:
        found = check(path)
        path.write_bytes(path.read_bytes()[:-4])
        return found

    monkeypatch.setattr(flat_file, "read_flat_header", check_and_cut)
    with pytest.raises(IndexMismatchError, match=r"vectors\.faiss was cut short"):
        FlatFile(path, count=50, dim=7, in_memory=True)
