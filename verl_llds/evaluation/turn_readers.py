"""How the ids of a turn are had of a server's answer: as they were sampled, or of the text encoded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.settings import Decoding
from verl_llds.search.encodable import encodable
from verl_llds.search.tokens import Tokenizer
from verl_llds.search.trajectory import Generation

Choice = Mapping[str, Any]
"""A choice of OpenAI's answer; of a stream, what one event adds to it."""


class TurnReader(Protocol):
    """Reads turns."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """What a request has beside the fields of OpenAI's interface."""
        ...

    def check(self, url: str, answer: Mapping[str, Any], prompt_ids: Sequence[int]) -> None:
        """Look at the answer to a prompt.

        Raises:
            EvaluationError: if turns cannot be read, or the server read another prompt than it was sent.
        """
        ...

    def ids(self, choices: Sequence[Choice]) -> list[int]:
        """Return the ids so far."""
        ...

    def generation(self, choices: Sequence[Choice], limit: int) -> Generation:
        """Return a turn that has ended, at most ``limit`` ids."""
        ...


class EngineIds:
    """The ids the engine sampled, with their log-probabilities: vLLM's ``return_token_ids``."""

    def __init__(self, decoding: Decoding) -> None:
        """Take how it samples."""
        self.fields: Mapping[str, Any] = {
            "top_k": decoding.top_k,
            # Left out, a server takes them from the model's generation config.
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "return_token_ids": True,
            "logprobs": 0,
        }

    def check(self, url: str, answer: Mapping[str, Any], prompt_ids: Sequence[int]) -> None:
        """Refuse text without ids, and a prompt that came back changed."""
        choice = answer["choices"][0]
        if not choice.get("token_ids"):
            raise EvaluationError(
                f"{url}/completions gives back text without the ids that were sampled: use a server with "
                "return_token_ids (vLLM 0.10.2 and later), or have the text encoded again with --retokenize, which may "
                "give others"
            )
        echoed = choice.get("prompt_token_ids")
        if echoed is not None and list(echoed) != list(prompt_ids):
            raise _other_prompt(url)

    def ids(self, choices: Sequence[Choice]) -> list[int]:
        """Return what was sampled."""
        return [one for choice in choices for one in choice.get("token_ids") or ()]

    def generation(self, choices: Sequence[Choice], limit: int) -> Generation:
        """Return the turn as it was sampled; without log-probabilities where there is not one for each id."""
        ids = self.ids(choices)
        log_probs = [one for choice in choices for one in (choice.get("logprobs") or {}).get("token_logprobs") or ()]
        return Generation(
            token_ids=ids,
            log_probs=log_probs if len(log_probs) == len(ids) else None,
            is_aborted=_finish_reason(choices) == "abort",
        )


class Retokenizer:
    """The ids of the text, for servers that give nothing else.

    They may be others than were sampled, so there are no log-probabilities. Such a server leaves out the stop string at
    which it stopped and the token that ended the text, and says ``stop`` of both. So a turn that it ended is closed:
    with the closing tag of the tag opened last, or where none was opened with the end-of-sequence token.
    """

    fields: Mapping[str, Any] = {}

    def __init__(self, tokenizer: Tokenizer, eos_token_id: int | None, stop_strings: Sequence[str]) -> None:
        """Take what encodes, its end-of-sequence token, and the closing tags that end a turn."""
        self._tokenizer = tokenizer
        self._eos_token_id = eos_token_id
        self._openings = {closing: closing.replace("</", "<", 1) for closing in stop_strings}

    def check(self, url: str, answer: Mapping[str, Any], prompt_ids: Sequence[int]) -> None:
        """Refuse an answer without text, and one whose usage counts another prompt; 0 is not counted."""
        if not isinstance(answer["choices"][0].get("text"), str):
            raise EvaluationError(f"{url}/completions gives back no text: it is no server of OpenAI's completions")
        counted = (answer.get("usage") or {}).get("prompt_tokens")
        if counted and counted != len(prompt_ids):
            raise _other_prompt(url)

    def ids(self, choices: Sequence[Choice]) -> list[int]:
        """Return the ids of the text so far."""
        return self._encode(_text(choices))

    def generation(self, choices: Sequence[Choice], limit: int) -> Generation:
        """Return the turn, closed again if the server ended it."""
        text, reason = _text(choices), _finish_reason(choices)
        # A server that keeps stop strings has left the tag where it was.
        is_cut = reason == "stop" and not any(closing in text for closing in self._openings)
        tag = self._missing_tag(text) if is_cut else ""
        ids = self._encode(f"{text}{tag}")
        if is_cut and not tag and self._eos_token_id is not None:
            ids.append(self._eos_token_id)
        return Generation(token_ids=ids[:limit], is_aborted=reason == "abort")

    def _missing_tag(self, text: str) -> str:
        """Return the closing tag of the tag opened last; empty if none was opened."""
        place, closing = max((text.rfind(opening), closing) for closing, opening in self._openings.items())
        return closing if place >= 0 else ""

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(encodable(text), add_special_tokens=False)


def _text(choices: Sequence[Choice]) -> str:
    return "".join(choice.get("text") or "" for choice in choices)


def _finish_reason(choices: Sequence[Choice]) -> str:
    return next((str(choice["finish_reason"]) for choice in reversed(choices) if choice.get("finish_reason")), "")


def _other_prompt(url: str) -> EvaluationError:
    return EvaluationError(
        f"{url}/completions read another prompt than it was sent: it puts ids of its own in front, or reads no ids; "
        "start it without such an option, or use another server"
    )
