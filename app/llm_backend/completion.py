"""Gets complete answers from an OpenAI-compatible server under a JSON schema, for work without a waiting user."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from llmrec.app.llm_backend.backend import strip_thinking, truncate
from llmrec.app.llm_backend.stream import BackendUnavailable, Endpoint, stream_completion
from llmrec.errors import UserError
from llmrec.lifecycle.enrich import Complete

_CHARS = 8  # most characters per token: longer answers are cut


def completer(endpoint: Endpoint) -> Complete:
    """Return a function that asks this server for one answer; it raises UserError if there is none."""

    def complete(messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], max_tokens: int) -> str:
        try:
            pieces = stream_completion(endpoint, messages, max_tokens, threading.Event(), schema)
            return "".join(truncate(strip_thinking(pieces), max_tokens * _CHARS))
        except BackendUnavailable as error:
            raise UserError(f"no answer from {endpoint.url}: {error}") from None

    return complete
