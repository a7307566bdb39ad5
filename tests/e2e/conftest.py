"""A small world for one real run: passages, an index, a retriever process, questions, a policy that searches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# The tests of this folder share modules.
sys.path.insert(0, str(Path(__file__).parent))

CAPITALS = {
    "France": "Paris",
    "Norway": "Oslo",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "Cuba": "Havana",
    "Egypt": "Cairo",
    "Iraq": "Baghdad",
}
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SEARCH_TURN = "<search> capital of France </search>"
ANSWER_TURN = "<answer> Paris </answer>"


@dataclass(frozen=True)
class World:
    """Where things lie."""

    root: Path
    model: Path
    train: Path
    passages: Path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    passages = root / "passages.jsonl"
    with passages.open("w") as lines:
        for number, (country, capital) in enumerate(CAPITALS.items()):
            contents = f"{country}\nThe capital of {country} is {capital}."
            lines.write(json.dumps({"id": str(number), "contents": contents}) + "\n")
    rows = [_row(number, country) for number, country in enumerate(CAPITALS)]
    pq.write_table(pa.Table.from_pylist(rows), root / "train.parquet")
    _make_policy(root / "model")
    return World(root=root, model=root / "model", train=root / "train.parquet", passages=passages)


def _row(number: int, country: str) -> dict[str, object]:
    targets = [CAPITALS[country]]
    return {
        "id": f"train_{number}",
        "question": f"What is the capital of {country}?",
        "golden_answers": targets,
        "data_source": "capitals",
        "prompt": [{"role": "user", "content": f"Question: What is the capital of {country}?\n"}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": targets}},
        "extra_info": {"split": "train", "index": number},
    }


def _make_policy(path: Path) -> None:
    """Write a small Qwen2 that has learnt two turns by heart: a search, and an answer after an observation."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from verl_llds.search.documents import Document, format_documents
    from verl_llds.search.search_r1 import format_observation

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    texts = [f"What is the capital of {c}? The capital of {c} is {t}." for c, t in CAPITALS.items()]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator([*texts, SEARCH_TURN, ANSWER_TURN] * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )
    tokenizer.save_pretrained(path)

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    documents = [Document(id="0", contents=f"{c}\nThe capital of {c} is {CAPITALS[c]}.") for c in list(CAPITALS)[:3]]
    parts = [
        ("<|im_start|>user\nQuestion: What is the capital of France?\n<|im_end|>\n<|im_start|>assistant\n", 0),
        (SEARCH_TURN, 1),
        (format_observation(format_documents(documents)), 0),
        (ANSWER_TURN, 1),
    ]
    pieces = [(tokenizer.encode(text, add_special_tokens=False), policy) for text, policy in parts]
    ids = torch.tensor([[token for tokens, _ in pieces for token in tokens]])
    labels = torch.tensor([[token if policy else -100 for tokens, policy in pieces for token in tokens]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3, "the policy must know its two turns for the run to search"
    model.save_pretrained(path)


@pytest.fixture(scope="session")
def retriever_url(world: World) -> Iterator[str]:
    """The URL of a real retriever process over the world's passages."""
    script = Path(sys.executable).parent / "retriever-server"
    index, ready = world.root / "index", world.root / "ready.json"
    subprocess.run([script, "index", "--corpus", world.passages, "--out", index], check=True, timeout=300)
    process = subprocess.Popen(
        [script, "serve", "--index", index, "--port", "0", "--threads", "1", "--ready-file", ready]
    )
    try:
        deadline = time.monotonic() + 120
        while not ready.exists():
            assert process.poll() is None, "the retriever ended before it was ready"
            assert time.monotonic() < deadline, "the retriever was not ready in time"
            time.sleep(0.2)
        yield json.loads(ready.read_text())["url"] + "/retrieve"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()


@pytest.fixture(scope="session")
def offline_environment() -> dict[str, str]:
    """The environment of a child process that must not look for anything on a hub."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HYDRA_FULL_ERROR": "1"}
