"""Generates chat text with an OpenAI-compatible server (vLLM, llama.cpp, Ollama), which never chooses items.

The server gets the last message and the first items of a list that is already made. Its answer is not trusted: size,
time and format are limited, and every sentence is checked against the catalogue. If no sentence passes, the local model
writes the text, with a notice.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmrec.app.llm_backend.stream import BackendUnavailable, Endpoint, stream_completion
from llmrec.app.server.settings import Settings
from llmrec.data.catalog import clean_text
from llmrec.errors import UserError
from llmrec.lm.prompts import Slot, fill_template, load_template, without_control_tokens
from llmrec.lm.rendering import Text
from llmrec.nlu.english import FILLER, SMALL
from llmrec.nlu.wording import singular
from llmrec.ranking.explanations import listing, tags
from llmrec.ranking.grounding import GroundingChecker
from llmrec.recommender import grounded_sentences

if TYPE_CHECKING:
    from llmrec.data.catalog import Catalog
    from llmrec.dialogue.chat import Talk
    from llmrec.recommender import Recommendation, Recommender

_PAUSE = 30.0  # seconds for which a server that failed is not asked again
_NAMED = 3  # items that the server is told about, as many as the local model is
_CHARS = 8  # most characters per token: longer answers are cut
_SENTENCE = 600
_CAPITAL = re.compile(r"[^\W\d_a-z][\w'\u2019-]*")
_QUOTED = re.compile(r"[\"\u201c\u201e*_](?P<said>[^\"\u201c\u201d\u201e*_]{2,}?)[\"\u201d\u201c*_]")
_WORD = re.compile(r"[^\W_]+")
# before one of these a capitalised first word is a subject, such as "Inception is ...", which no word list has
_VERBS = frozenset(
    ("is", "was", "has", "had", "will", "would", "tells", "follows", "stars", "features", "offers", "and", "or", "by")
)
_ALWAYS = frozenset({"i", "i'm", "i'd", "i'll", "i've", "ok"})
_THOUGHT = re.compile(r"\s*<think>.*?(?:</think>\s*|\Z)", re.DOTALL)
_OPEN_THOUGHT = "<think>"


@dataclass(frozen=True, eq=False)
class NameChecker(GroundingChecker):
    """A `GroundingChecker` that also rejects foreign names: a larger model knows titles outside the catalogue."""

    def grounded(self, sentence: str, shown: Sequence[int]) -> bool:
        """Return whether the catalogue supports the sentence and all its names and quotations belong to shown items."""
        return super().grounded(sentence, shown) and not self.strangers(sentence, shown)

    def strangers(self, sentence: str, shown: Sequence[int]) -> list[str]:
        """Return the capitalised words and quotations that are not in a shown item's label or attributes."""
        own = _words(self.catalog.domain) | _words(singular(self.catalog.domain))
        for row in shown:
            own |= _words(self.catalog.label(row)) | {word for tag in tags(self.catalog, row) for word in _words(tag)}
        quoted = [match["said"] for match in _QUOTED.finditer(sentence) if not _words(match["said"]) <= own]
        return quoted + [word for word in _names(sentence) if not _words(word) <= own]


class RemoteTextGenerator:
    """Generates text with the server, or with the local model if that fails; one instance serves the application.

    Args:
        recommender: writes the text if the server does not.
        endpoint: address of the server and limits of its answers.
    """

    def __init__(self, recommender: Recommender, endpoint: Endpoint) -> None:
        self._local, self._endpoint = recommender, endpoint
        self._checker = NameChecker(recommender.catalog)
        self._until = 0.0
        self._why = ""

    def talk(
        self,
        dialogue: Sequence[tuple[str, str]],
        shown: Sequence[Recommendation],
        max_tokens: int,
        stop: threading.Event | None = None,
    ) -> Iterator[str]:
        """Yield text about the shown items, one sentence at a time.

        Raises:
            UserError: the local model wrote the text, or the server broke off. It is raised after the text, and its
                message is the notice to show.
        """
        stop = stop or threading.Event()
        said = False
        try:
            for sentence in self._remote(dialogue, shown, max_tokens, stop):
                said = True
                yield sentence
            why = "the other model said nothing about this list that the catalogue backs"
        except BackendUnavailable as error:
            why = str(error)
            if said:
                raise UserError(f"The rest is missing: {why}.") from None
        if said or stop.is_set():
            return
        yield from self._local.talk(dialogue, shown, max_tokens, stop)
        raise UserError(f"The local model wrote this: {why}.")

    def _remote(
        self, dialogue: Sequence[tuple[str, str]], shown: Sequence[Recommendation], most: int, stop: threading.Event
    ) -> Iterator[str]:
        if time.monotonic() < self._until:
            raise BackendUnavailable(self._why)
        rows = [item.row for item in shown]
        asked = next((text for role, text in reversed(dialogue) if role == "user"), "")
        messages = server_messages(self._local.catalog, asked, rows[:_NAMED])
        try:
            pieces = truncate(strip_thinking(stream_completion(self._endpoint, messages, most, stop)), most * _CHARS)
            for sentence in grounded_sentences(pieces, self._checker, rows):
                yield f"{' ' if sentence[:1] == ' ' else ''}{clean_text(sentence, _SENTENCE)}"
        except BackendUnavailable as error:
            self._until, self._why = time.monotonic() + _PAUSE, str(error)
            raise


def text_generator(recommender: Recommender, settings: Settings) -> Talk | None:
    """Return the function that generates text under these settings; None means the recommender itself."""
    if not settings.backend_url:
        return None
    key = settings.backend_key.get_secret_value() if settings.backend_key else ""
    endpoint = Endpoint(
        settings.backend_url, settings.backend_model, key, settings.backend_seconds, settings.backend_bytes
    )
    return RemoteTextGenerator(recommender, endpoint).talk


def server_messages(catalog: Catalog, asked: str, rows: Sequence[int]) -> list[dict[str, str]]:
    """Return the messages for the server: the local model's prompt, without text that could act as control tokens."""
    slots: dict[str, Slot] = {"domain": catalog.domain, "message": asked, "shown": listing(catalog, rows)}
    return [
        {"role": role, "content": _plain(fill_template(load_template(name).user[0], slots))}
        for role, name in (("system", "system"), ("user", "talk"))
    ]


def strip_thinking(pieces: Iterator[str]) -> Iterator[str]:
    """Remove a leading `<think>...</think>`, which reasoning models send as part of the answer."""
    text, speaking = "", False
    for piece in pieces:
        text = piece if speaking else text + piece
        start = text.lstrip()
        if not speaking and start[: len(_OPEN_THOUGHT)] == _OPEN_THOUGHT[: len(start)] and "</think>" not in text:
            continue
        yield text if speaking else _THOUGHT.sub("", text, count=1) if start.startswith(_OPEN_THOUGHT) else text
        speaking = True


def truncate(pieces: Iterator[str], most: int) -> Iterator[str]:
    """End after `most` characters, even if the server sends more."""
    for piece in pieces:
        yield piece[:most]
        most -= len(piece)
        if most <= 0:
            return


def _plain(parts: Sequence[object]) -> str:
    text = "".join(part.text for part in parts if isinstance(part, Text))
    return without_control_tokens(text)


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in _WORD.findall(text.replace("'s", "").replace("\u2019s", "")))


def _names(sentence: str) -> Iterator[str]:
    """Yield the capitalised words, except those capitalised only because they begin a sentence."""
    for match in _CAPITAL.finditer(sentence):
        word = match.group()
        if word.replace("\u2019", "'").casefold() in _ALWAYS:
            continue
        before, after = sentence[: match.start()].rstrip(), sentence[match.end() :].split()
        first = not before or before.endswith((".", "!", "?", ":", "\u2014"))
        follows = after[0].strip(".,;:!?") if after else ""
        subject = follows.casefold() in _VERBS or follows[:1].isupper() or word.endswith(("'s", "\u2019s"))
        if not first or (subject and word.casefold() not in FILLER | SMALL):
            yield word
