"""Bearer tokens: RFC 6750's ``Authorization: Bearer``."""

import hmac
import os
from pathlib import Path

from retriever_server.errors import TokenError

TOKEN_VARIABLE = "RETRIEVER_TOKEN"
_SCHEME = "bearer"


def read_token(file: Path | None, option: str = "--token-file") -> str | None:
    """The token in ``file``, or else in the environment variable RETRIEVER_TOKEN; None if there is neither.

    Args:
        file: what the user gave.
        option: where; named if there is something wrong with it.

    Raises:
        TokenError: The file cannot be read, or the token is empty or has characters that no header can hold.
    """
    if file is None:
        where, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE)
        if token is None:
            return None
    else:
        where = f"{option} {file}"
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise TokenError(f"{where} cannot be read ({error}); write the token into it.") from error
    if not token or not all("!" <= letter <= "~" for letter in token):
        raise TokenError(f"{where} holds no token; use one word of printable ASCII characters.")
    return token


def is_authorized(header: str | None, token: str) -> bool:
    """Whether an Authorization header shows the token."""
    scheme, _, shown = (header or "").partition(" ")
    # The time of an ordinary comparison tells how many letters were right.
    return scheme.lower() == _SCHEME and hmac.compare_digest(shown.strip().encode(errors="replace"), token.encode())
