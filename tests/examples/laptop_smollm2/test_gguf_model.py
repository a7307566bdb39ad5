"""From GGUF to a plain Llama folder: a tiny random file against transformers' own reader, and the packaged one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

gguf = pytest.importorskip("gguf", reason="gguf is not installed: requirements/smollm2.txt")

from gguf_weights import GGUFError, open_gguf, restore_rotary_order  # noqa: E402
from pretrained import locate_gguf, write_model  # noqa: E402

HIDDEN, LAYERS, HEADS, KV_HEADS, FFN = 64, 2, 4, 2, 96
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXTS = ["What is the capital of France?", " <search> born in 1885 </search>\n", "Zürich, 12.5%", "It's \t 2026"]


def tiny_tokenizer() -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return core


def write_tiny(path: Path, tokenizer: Tokenizer, *, architecture: str = "llama", split: str = "smollm") -> None:
    """Write a random Llama the way llama.cpp's converter does: special tokens first, matrices in Q8_0."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list([token for token, _ in vocabulary])
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token, _ in vocabulary]
    writer.add_token_types(kinds)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    for name, number in (("bos", 1), ("eos", 2), ("unk", 0), ("pad", 2)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")
    generator = torch.Generator().manual_seed(0)

    def add(name: str, *shape: int) -> None:
        values = torch.randn(*shape, generator=generator) * (0.3 if len(shape) == 2 else 0.1)
        array = (values if len(shape) == 2 else 1 + values).numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if len(shape) == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)

    add("token_embd.weight", len(vocabulary), HIDDEN)
    add("output_norm.weight", HIDDEN)
    kv = HIDDEN // HEADS * KV_HEADS
    for layer in range(LAYERS):
        shapes = {"attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "attn_q": (HIDDEN, HIDDEN), "attn_k": (kv, HIDDEN)}
        shapes |= {"attn_v": (kv, HIDDEN), "attn_output": (HIDDEN, HIDDEN), "ffn_down": (HIDDEN, FFN)}
        shapes |= {"ffn_gate": (FFN, HIDDEN), "ffn_up": (FFN, HIDDEN)}
        for name, shape in shapes.items():
            add(f"blk.{layer}.{name}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def tiny(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_tiny(path, tokenizer)
    return path


def test_logits_are_those_of_transformers_own_reader(tiny: Path, tmp_path: Path) -> None:
    write_model(tiny, tmp_path, torch.float32)
    ours, report = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, output_loading_info=True)
    assert not any(report.values()), "every weight is there under its name and in its shape"
    theirs = AutoModelForCausalLM.from_pretrained(tiny.parent, gguf_file=tiny.name, dtype=torch.float32)
    ids = torch.arange(3, 43).reshape(2, 20)
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)
    assert ours.config.tie_word_embeddings
    ours.save_pretrained(tmp_path / "again")
    assert LlamaForCausalLM.from_pretrained(tmp_path / "again").config.rope_parameters["rope_theta"] == 10000.0


def test_text_is_split_as_the_tokenizer_in_the_file_splits_it(tiny: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_model(tiny, tmp_path)
    ours = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = ours.encode(text, add_special_tokens=False)
        assert ids == tokenizer.encode(text).ids
        assert ours.decode(ids) == text
    digits = ours.convert_ids_to_tokens(ours.encode("1885", add_special_tokens=False))
    assert digits == ["1", "8", "8", "5"]
    assert ours.encode("<|im_end|>", add_special_tokens=False) == [ours.eos_token_id]
    assert ours.apply_chat_template([{"role": "user", "content": "Q"}], tokenize=False) == (
        "<|im_start|>user\nQ<|im_end|>\n"
    )


def test_rotary_order_is_undone() -> None:
    # Two heads of four rows; GGUF has a head's pairs side by side: rows 0, 2, 1, 3 of transformers'.
    stored = torch.tensor([[0.0], [2.0], [1.0], [3.0], [4.0], [6.0], [5.0], [7.0]]).numpy()
    assert restore_rotary_order(stored, 2)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"architecture": "qwen2"}, "only Llama"), ({"split": "llama-bpe"}, "splits text as 'llama-bpe'")],
)
def test_other_models_are_refused(changed: dict[str, str], message: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    write_tiny(path, tokenizer, **changed)
    with pytest.raises(GGUFError, match=message):
        write_model(path, tmp_path)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_bytes(b"not a model at all, but long enough to have a header")
    with pytest.raises(GGUFError, match="not a whole GGUF file"):
        open_gguf(path)


@pytest.fixture(scope="module")
def packaged() -> Path:
    try:
        return locate_gguf()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_the_packaged_model_answers_and_agrees_with_transformers_own_reader(packaged: Path, tmp_path: Path) -> None:
    assert write_model(packaged, tmp_path) == 134_515_008
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(f"{asked}The capital of France is", return_tensors="pt", add_special_tokens=False)
    theirs = AutoModelForCausalLM.from_pretrained(packaged.parent, gguf_file=packaged.name, dtype=torch.float32)
    with torch.inference_mode():
        ours, others = (one(**ids).logits[0].log_softmax(-1) for one in (model, theirs))
    assert tokenizer.decode(ours[-1].argmax()) == " Paris"
    # Ours are rounded to bfloat16: 8 bits of each weight.
    divergence = (others.exp() * (others - ours)).sum(-1)
    assert divergence.max() < 0.02
