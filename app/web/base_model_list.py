"""Asks the published base model for a list in plain text, as a comparison without item tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from llmrec.decoding.text_generation import generate_text
from llmrec.errors import WeightsError
from llmrec.lm.rendering import Message, Text
from llmrec.lm.runtime.int8 import Int8Weights, int8_weights
from llmrec.nlu.title_lists import MAX_TITLES, LinkedTitles, link_titles, parse_title_list
from llmrec.nlu.wording import singular

if TYPE_CHECKING:
    from llmrec.lm.model import RecModel
    from llmrec.recommender import Recommender

TOKENS, SECONDS = 160, 20.0
_HISTORY = 10  # latest items that the prompt names
_CHARS = 500


class BaseModelLister:
    """Lists titles with a second copy of the base model, loaded on first use, since the served one has LoRA merged.

    Args:
        recommender: gives the base model, and the catalogue in which titles are looked up.
        load: returns a bundle whose LoRA has no effect; by default the base model in the model's record is loaded.
    """

    def __init__(self, recommender: Recommender, load: Callable[[], RecModel] | None = None) -> None:
        self._recommender = recommender
        self._load = load or (lambda: base_bundle(recommender))
        self._lock = threading.Lock()
        self._loaded: tuple[RecModel, Int8Weights | None] | None = None

    def listed(
        self, history: Sequence[int], message: str, stop: threading.Event | None = None
    ) -> Iterator[LinkedTitles]:
        """Yield the list so far after every line that the model finishes, and the complete list at the end.

        Raises:
            WeightsError: the base model cannot be found.
        """
        model, weights = self._ready()
        prompt = model.renderer.render(
            [
                Message("user", (Text(self.prompt(history, message)),)),
                Message("assistant", (), open=True),
            ]
        )
        catalog, text, lines = self._recommender.catalog, "", 0
        for piece in generate_text(model, prompt, TOKENS, SECONDS, stop, weights=weights):
            text += piece
            if text.count("\n") > lines:
                lines = text.count("\n")
                yield link_titles(catalog, parse_title_list(text.rpartition("\n")[0]))
        yield link_titles(catalog, parse_title_list(text))

    def prompt(self, history: Sequence[int], message: str) -> str:
        """Return the user message of the prompt: liked items, the wish, and the form of the answer."""
        catalog = self._recommender.catalog
        known = "; ".join(catalog.label(row) for row in history[-_HISTORY:])
        these = f"these {catalog.domain}" if len(history) > 1 else f"this {singular(catalog.domain)}"
        parts = [f"I liked {these}: {known}." if known else "", message[:_CHARS]]
        ask = f"List the titles of {MAX_TITLES} {catalog.domain}, numbered, one a line, nothing else."
        return "\n".join(part for part in (*parts, ask) if part)

    def _ready(self) -> tuple[RecModel, Int8Weights | None]:
        with self._lock:
            if self._loaded is None:
                model = self._load()
                model.merge()
                self._loaded = model, int8_weights(model)
            return self._loaded


def base_bundle(recommender: Recommender) -> RecModel:
    """Return the base model of a recommender in the same kind of bundle, with fresh LoRA, which has no effect.

    Raises:
        WeightsError: the model's record names no base model, or the base model cannot be found.
    """
    from llmrec.lm.base_models import base_model, load_base
    from llmrec.lm.model import RecModel

    recipe = recommender.model_card.get("recipe")
    name = recipe.get("base") if isinstance(recipe, dict) else None
    if not isinstance(name, str):
        raise WeightsError("the model's record does not say which base model it was trained from")
    lm, tokenizer = load_base(base_model(name, progress=False))
    own = recommender.model
    return RecModel(lm, tokenizer, own.vocab.ids, own.encoder, own.config)
