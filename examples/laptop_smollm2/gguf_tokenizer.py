"""The tokenizer of SmolLM2 from its GGUF file: byte-level BPE that splits every digit off.

A GGUF file holds the vocabulary, the merges and the name of the way text is split before merging, not the way
itself. For ``smollm`` that is: each digit alone, then GPT-2's pattern.
"""

from __future__ import annotations

from gguf import GGUFReader, TokenType
from gguf_weights import GGUFError, read_field
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

_SPLIT = "smollm"


def read_tokenizer(reader: GGUFReader) -> PreTrainedTokenizerFast:
    """Return the tokenizer with its special tokens and chat template.

    Raises:
        GGUFError: the file's text is split in another way than SmolLM2's.
    """
    split = read_field(reader, "tokenizer.ggml.pre")
    if split != _SPLIT:
        raise GGUFError(f"the GGUF file splits text as {split!r}: only {_SPLIT!r} is known here")
    tokens: list[str] = read_field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in read_field(reader, "tokenizer.ggml.merges")]
    backend = Tokenizer(BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    kinds = read_field(reader, "tokenizer.ggml.token_type")
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == TokenType.CONTROL]
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])

    def special(name: str) -> str:
        return tokens[read_field(reader, f"tokenizer.ggml.{name}_token_id")]

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=special("bos"),
        eos_token=special("eos"),
        unk_token=special("unknown"),
        pad_token=special("padding"),
        chat_template=read_field(reader, "tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        model_max_length=read_field(reader, "llama.context_length"),
    )
