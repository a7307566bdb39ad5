"""A policy of two layers that has learnt two turns by heart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from verl_llds.search.search_r1 import format_observation

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


def make_policy(path: Path, question: str, turns: Sequence[str], observed: str) -> None:
    """Write a small Qwen2 that has learnt two turns by heart: a call, and an answer after an observation."""
    tokenizer = make_tokenizer([question, *turns], CHAT_TEMPLATE)
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    teach(path, tokenizer, [(prompt, 0), (turns[0], 1), (format_observation(observed), 0), (turns[1], 1)])


def make_tokenizer(texts: Sequence[str], chat_template: str, tags: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer that knows these texts well; each of ``tags`` is one id, as in Qwen2.5."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    capitals = [f"What is the capital of {c}? The capital of {c} is {t}." for c, t in CAPITALS.items()]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    core.train_from_iterator([*capitals, *texts] * 3, trainer)
    core.add_tokens(list(tags))
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=chat_template
    )


def teach(
    path: Path, tokenizer: PreTrainedTokenizerFast, parts: Sequence[tuple[str, int]], num_updates: int = 60
) -> None:
    """Write the tokenizer and a small Qwen2 that has learnt the parts marked 1, in the context of all of them."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

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
    pieces = [(tokenizer.encode(text, add_special_tokens=False), policy) for text, policy in parts]
    ids = torch.tensor([[token for tokens, _ in pieces for token in tokens]])
    labels = torch.tensor([[token if policy else -100 for tokens, policy in pieces for token in tokens]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(num_updates):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3, "the policy must know its two turns for the run to search"
    model.save_pretrained(path)
