"""What an index is made from, and how two such sets of inputs differ."""

from dataclasses import dataclass, fields
from typing import Any

from retriever_server.encoder_spec import EncoderSpec
from retriever_server.precision import Dtype
from retriever_server.settings import IndexType, Pooling

_SHA256_DIGITS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What an index is made from. Equal inputs give the same index."""

    corpus_sha256: str
    """SHA-256 of the corpus file as the user gave it."""

    encoder: EncoderSpec | None
    """The encoder and how it is used; None for an index without vectors."""

    type: IndexType = IndexType.FLAT
    """How passages are found."""

    vectors_sha256: str | None = None
    """SHA-256 of the vectors that were given; None if they were encoded."""

    keep_vectors: bool = True
    """Whether the float32 vectors of a packed type are there."""

    encoder_dtype: Dtype | None = None
    """Precision in which the passages were encoded; None if they were not, or if nobody wrote it down."""

    def changes(self, new: "Inputs") -> list[str]:
        """What differs in ``new``, one phrase a difference; empty when the index would be the same."""
        found = []
        for name, label in (
            ("corpus_sha256", "corpus"),
            ("type", "type"),
            ("vectors_sha256", "vectors"),
            ("keep_vectors", "keep_vectors"),
        ):
            before, after = getattr(self, name), getattr(new, name)
            if before != after:
                prefix = "sha256 " if name.endswith("sha256") else ""
                found.append(f"{label} ({prefix}{_short(before)} -> {_short(after)})")
        precisions = self.encoder_dtype, new.encoder_dtype
        if None not in precisions and precisions[0] is not precisions[1]:
            found.append("encoder dtype ({} -> {})".format(*map(_short, precisions)))
        if self.encoder is None or new.encoder is None:
            return found
        for field in fields(EncoderSpec):
            before, after = getattr(self.encoder, field.name), getattr(new.encoder, field.name)
            if field.name != "name" and before != after:
                found.append(f"encoder {field.name} ({_short(before)} -> {_short(after)})")
        return found


def inputs_from_json(data: dict[str, Any]) -> Inputs:
    """Rebuild Inputs from its JSON form. Raises KeyError, TypeError or ValueError on any other form."""
    encoder = data["encoder"]
    if encoder is not None:
        encoder = EncoderSpec(**{**encoder, "pooling": Pooling(encoder["pooling"])})
    # An index of the first format version is flat, and does not say so.
    kind = IndexType(data.get("type", "flat"))
    if (encoder is None) is kind.has_vectors:
        raise ValueError(f"type {kind.value} with encoder {encoder}")
    dtype = data.get("encoder_dtype")
    dtype = None if dtype is None else Dtype(dtype)
    return Inputs(**{**data, "encoder": encoder, "type": kind, "encoder_dtype": dtype})


def _short(value: object) -> str:
    if isinstance(value, (Pooling, IndexType, Dtype)):
        return str(value.value)
    return value[:12] if isinstance(value, str) and len(value) == _SHA256_DIGITS else repr(value)
