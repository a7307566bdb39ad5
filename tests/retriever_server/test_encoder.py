import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from retriever_server import encoder as encoder_module
from retriever_server.encoder import Encoder
from retriever_server.encoder_spec import EncoderSpec, describe_encoder, locate_encoder
from retriever_server.errors import EncoderError
from retriever_server.packing import forward
from retriever_server.settings import DEFAULT_ENCODER, BuildSettings, Pooling

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
BGE_PREFIX = "Represent this sentence for searching relevant passages: "


def describe(
    directory: Path, name: str = "", pooling: Pooling | None = None, query_prefix: str | None = None
) -> EncoderSpec:
    return describe_encoder(
        directory,
        BuildSettings(
            corpus=Path("c"),
            out=Path("o"),
            encoder=name or str(directory),
            pooling=pooling,
            query_prefix=query_prefix,
        ),
    )


def reference(directory: Path, text: str, pooling: Pooling) -> np.ndarray:
    """One text, no batch, no padding: what every shortcut has to agree with."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    vector = (hidden.mean(0) if pooling is Pooling.MEAN else hidden[0]).numpy()
    return vector / np.linalg.norm(vector)


def test_the_packaged_encoder_is_described_from_its_own_files(capsys: pytest.CaptureFixture[str]) -> None:
    spec = describe(locate_encoder(DEFAULT_ENCODER), DEFAULT_ENCODER)
    assert (spec.weights_sha256, spec.pooling, spec.dim, spec.max_length) == (
        MINILM_SHA256,
        Pooling.MEAN,
        384,
        256,
    )
    assert (spec.query_prefix, spec.passage_prefix, spec.normalize) == ("", "", True)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "pooling", "query_prefix", "passage_prefix"),
    [
        ("intfloat/e5-base-v2", Pooling.MEAN, "query: ", "passage: "),
        ("/models/E5-small/", Pooling.MEAN, "query: ", "passage: "),
        (
            "BAAI/bge-small-en-v1.5",
            Pooling.CLS,
            BGE_PREFIX,
            "",
        ),
    ],
)
def test_known_families(
    tiny_encoder: Path, name: str, pooling: Pooling, query_prefix: str, passage_prefix: str
) -> None:
    spec = describe(tiny_encoder, name)
    assert (spec.pooling, spec.query_prefix, spec.passage_prefix) == (pooling, query_prefix, passage_prefix)


E5 = ("query: ", "passage: ")


@pytest.mark.parametrize(
    ("folder", "given", "calls_itself", "prefixes"),
    [
        ("e5-base-v2", "{}", None, E5),
        ("e5-base-v2", "{}/.", None, E5),
        ("e5-base-v2", ".", None, E5),
        ("models--intfloat--e5-base-v2/snapshots/abcdef0123", "{}", None, E5),
        ("models--intfloat--e5-base-v2/snapshots/abcdef0123", "intfloat/e5-base-v2", None, E5),
        ("my-e5", "{}", "intfloat/e5-base-v2", E5),
        ("my-e5", "{}", "/models/e5-base-v2/", E5),
        ("my-e5", "{}", None, ("", "")),
        ("my-e5", "{}", "somebody/else", ("", "")),
        ("bge-base-en", "{}", "intfloat/e5-base-v2", (BGE_PREFIX, "")),
    ],
)
def test_a_known_model_is_known_wherever_it_lies(
    tiny_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    given: str,
    calls_itself: str | None,
    prefixes: tuple[str, str],
) -> None:
    directory = Path(shutil.copytree(tiny_encoder, tmp_path / folder))
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "_name_or_path": calls_itself or ""}))
    monkeypatch.chdir(directory)
    given = given.format(directory)
    directory = locate_encoder(given) if Path(given).is_dir() else directory
    spec = describe(directory, given, pooling=Pooling.MEAN)
    assert (spec.query_prefix, spec.passage_prefix) == prefixes
    assert ("warning: it is not known which text" in capsys.readouterr().err) is (prefixes == ("", ""))
    describe(directory, given, pooling=Pooling.MEAN, query_prefix="")
    assert capsys.readouterr().err == ""


def test_the_pooling_in_the_files_is_believed_before_that_of_the_name(tiny_encoder: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(tiny_encoder, tmp_path / "e5-base-v2"))
    (directory / "1_Pooling").mkdir()
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert describe(directory).pooling is Pooling.CLS
    assert describe(directory, pooling=Pooling.MEAN).pooling is Pooling.MEAN


def test_an_unknown_encoder_must_say_its_pooling(tiny_encoder: Path) -> None:
    with pytest.raises(EncoderError, match="--pooling mean or --pooling cls"):
        describe(tiny_encoder, "my-e5-finetune")
    spec = describe(tiny_encoder, pooling=Pooling.CLS, query_prefix="q: ")
    assert (spec.pooling, spec.query_prefix, spec.passage_prefix) == (Pooling.CLS, "q: ", "")


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("packs", [True, False], ids=["side-by-side", "padded"])
def test_batches_padding_and_order_change_no_vector(
    tiny_encoder: Path, pooling: Pooling, packs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["a", "the capital of France is Paris", "", "bridge " * 40, "Rome", "rivers and lakes"]
    passes: list[list[int]] = []

    def record(model: Any, ids: list[torch.Tensor]) -> list[torch.Tensor]:
        passes.append([len(text) for text in ids])
        return forward(model, ids)

    monkeypatch.setattr(encoder_module, "forward", record)
    if not packs:
        monkeypatch.setattr(encoder_module, "prepare", lambda model: False)
    encoder = Encoder(tiny_encoder, describe(tiny_encoder, pooling=pooling), batch_size=4)
    vectors = encoder.encode_passages(texts)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(vector, reference(tiny_encoder, text, pooling), atol=1e-5)
    assert encoder.encode_passages([]).shape == (0, 16)
    assert passes == ([[2, 3, 3, 5], [8, 42]] if packs else [])


def test_prefixes_are_put_before_queries_and_passages(tiny_encoder: Path) -> None:
    encoder = Encoder(tiny_encoder, describe(tiny_encoder, "e5-small-v2"))
    for encode, prefix in ((encoder.encode_queries, "query: "), (encoder.encode_passages, "passage: ")):
        expected = reference(tiny_encoder, prefix + "Rome", Pooling.MEAN)
        np.testing.assert_allclose(encode(["Rome"])[0], expected, atol=1e-5)


def test_what_cannot_be_an_encoder_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="neither an installed model package"):
        locate_encoder("./no/such/directory")
    with pytest.raises(EncoderError, match=r"config\.json cannot be read"):
        describe(tmp_path, pooling=Pooling.MEAN)
    spec = describe(tiny_encoder, pooling=Pooling.MEAN)
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_encoder, damaged)
    (damaged / "model.safetensors").write_bytes(b"short")
    with pytest.raises(EncoderError, match="cannot be loaded on cpu"):
        Encoder(damaged, spec)
    (damaged / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"no \*\.safetensors"):
        describe(damaged, pooling=Pooling.MEAN)


def test_a_hub_id_that_is_not_cached_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="could not be downloaded"):
        locate_encoder("nobody/no-such-encoder")
