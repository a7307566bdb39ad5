"""Data inside an HTML page: compressed, of ASCII alone, and unable to end the element that holds it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
from typing import Any


def packed(data: bytes) -> str:
    """Return the bytes compressed, as base64: no character of it means anything to an HTML parser.

    The same bytes always give the same text. JavaScript reads it with ``DecompressionStream("gzip")``.
    """
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def packed_json(value: Any) -> str:
    """Return a value as compressed JSON.

    The JSON is of ASCII alone, so a lone surrogate, as text from a tokenizer may hold, survives. A number that is
    not finite, which JSON has no word for, becomes its name: ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``.
    """
    text = json.dumps(_named(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return packed(text.encode("ascii"))


def content_hash(text: str) -> str:
    """Return the source expression of a Content-Security-Policy that allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def rounded(value: float, digits: int = 6) -> float:
    """Return a number with so many significant digits: what a plot needs, in a third of the bytes."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else value


def _named(value: Any) -> Any:
    """Return the value with numbers that are not finite replaced by their names."""
    if isinstance(value, float):
        return (
            value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        )
    if isinstance(value, dict):
        return {name: _named(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_named(one) for one in value]
    return value
