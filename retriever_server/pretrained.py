"""Models in transformers' format, read from a directory and never from a hub."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from retriever_server.errors import EncoderError


class Pretrained(NamedTuple):
    """A model that is ready to compute."""

    tokenizer: Any
    """Its tokenizer."""
    model: Any
    """The model, in evaluation mode on its device."""
    missing: list[str]
    """Weights that its configuration names and its files lack, in order; they hold random numbers."""


def load_pretrained(
    auto_class: Any, directory: Path, *, device: str, dtype: torch.dtype, role: str, option: str
) -> Pretrained:
    """Load a tokenizer and a model.

    Args:
        auto_class: the class of transformers that knows the model's head.
        directory: where its files are.
        device: torch device.
        dtype: of its weights.
        role: what it is to the user, for the message.
        option: of the command line that names the directory.

    Raises:
        EncoderError: The files cannot be loaded.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
        model, info = auto_class.from_pretrained(
            directory, local_files_only=True, dtype=dtype, output_loading_info=True
        )
        model = model.to(device).eval()
    # transformers, safetensors and tokenizers each raise kinds of their own for damaged files.
    except Exception as error:
        raise EncoderError(
            f"the {role} in {directory} cannot be loaded on {device} ({type(error).__name__}: {error}); "
            f"check that the directory is complete, {option} and --device."
        ) from error
    return Pretrained(tokenizer, model, sorted(info["missing_keys"]))
