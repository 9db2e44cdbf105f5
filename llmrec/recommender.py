"""The main class of the public API: recommendations for one request or many, and generated text about them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from llmrec.checkpoint import hub
from llmrec.checkpoint.pretrained import load_pretrained
from llmrec.checkpoint.validation import loading_from
from llmrec.data.catalog import Catalog, clean_text
from llmrec.data.dataset import open_data
from llmrec.data.filters import Filters
from llmrec.data.interactions import History, Interactions
from llmrec.data.requests import MAX_K, MAX_MESSAGE, Recommendation, Request
from llmrec.decoding.text_generation import generate_text
from llmrec.dialogue.request_parsing import parse_request
from llmrec.encoders.text import Embedder, MiniLM
from llmrec.encoders.text_cache import embed_catalog
from llmrec.encoders.text_similarity import ProfileSettings
from llmrec.errors import ArtifactError, RequestError
from llmrec.lm.prompts import fill_template, load_template
from llmrec.lm.rendering import Message
from llmrec.lm.runtime.int8 import Int8Weights, int8_weights
from llmrec.lm.runtime.prefix_cache import PrefixCache
from llmrec.ranker import top_k
from llmrec.ranking.explanations import listing, reason
from llmrec.ranking.fusion import Fusion
from llmrec.ranking.grounding import GroundingChecker
from llmrec.ranking.scorer import Scorer
from llmrec.semantic_ids.trie import Trie
from llmrec.storage.registry import cache_home

SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints" / "ml-100k"


class Recommender:
    """A loaded model together with its catalogue.

    Args:
        catalog: the items.
        interactions: known users and their histories; may be empty.
        scorer: computes the scores of items.
        fusions: kind of request ("history" or "words") -> fusion weights.
        meta: metadata of the model.
        data_name: the name or directory of the data.
    """

    name = "hybrid"

    def __init__(
        self,
        catalog: Catalog,
        interactions: Interactions,
        scorer: Scorer,
        fusions: Mapping[str, Fusion],
        meta: Mapping[str, Any] | None = None,
        data_name: str = "data",
    ) -> None:
        self.catalog, self.interactions, self.scorer = catalog, interactions, scorer
        self.fusions, self.model_card = dict(fusions), dict(meta or {})
        self.model, self.data_name = scorer.model, data_name
        self._checker = GroundingChecker(catalog)
        self._prefixes = PrefixCache()

    @staticmethod
    def from_pretrained(
        path: str | Path | None = None, data: str | Path | None = None, embedder: Embedder | None = None
    ) -> Recommender:
        """Load a model directory with the data it belongs to; without a path, the shipped MovieLens-100k model.

        Args:
            path: a directory, or `org/name` on the Hugging Face Hub, which is downloaded once, verified and cached.
            data: prepared data; if None, the data that the model names.
            embedder: embeds texts; MiniLM if None.

        Raises:
            ArtifactError: no such model, damaged files, or a model and data that do not belong together.
        """
        if path is None and not SHIPPED.is_dir():
            raise ArtifactError(
                "no model given, and the shipped one is not beside this installation: give its directory"
            )
        path = SHIPPED if path is None else hub.resolve_model(path)
        source = data if data is not None else hub.data_of(path)
        catalog, interactions = open_data(source)
        loaded = load_pretrained(path, catalog)
        loaded.model.merge()
        embedder = embedder or MiniLM.load()
        ids = loaded.model.vocab.ids
        text = embed_catalog(catalog, embedder, cache_home() / "cache")
        with loading_from(Path(path)):
            trie = Trie(ids.codes, ids.size, loaded.prior)
        scorer = Scorer(
            loaded.model,
            trie,
            text,
            loaded.neighbours,
            embedder,
            catalog.domain,
            int(loaded.settings["window"]),
            profile_settings=ProfileSettings(**loaded.settings.get("profile", {})),
            counts=loaded.counts,
        )
        return Recommender(catalog, interactions, scorer, loaded.fusions, loaded.meta, str(source))

    @property
    def users(self) -> tuple[str, ...]:
        """External ids of the known users."""
        return self.interactions.users

    def history_of(self, user_id: str) -> History:
        """The history of a known user: rows, oldest first, and which of them were not liked.

        Raises:
            RequestError: for an unknown user, with the closest ids.
        """
        return self.interactions.history(self.interactions.number(user_id))

    @overload
    def recommend(self, request: Request) -> list[Recommendation]: ...
    @overload
    def recommend(self, request: Sequence[Request]) -> list[list[Recommendation]]: ...
    def recommend(self, request: Request | Sequence[Request]) -> list[Recommendation] | list[list[Recommendation]]:
        """Return the best items for one request or for many, best first; fewer than k when fewer are allowed.

        A message is read as in the chat: what it rules out is not in the list.
        `llmrec.dialogue.request_parsing.understood` returns how it was read, and notices about it.

        >>> recommender.recommend(Request(message="something funny, no horror", k=5))  # doctest: +SKIP

        Raises:
            RequestError: k out of 1 to 100, a message over 2,000 characters, a row or filter value that does not exist.
        """
        if isinstance(request, Request):
            return self._one(request)
        return [self._one(one) for one in request]

    def _one(self, request: Request) -> list[Recommendation]:
        self._checked(request)
        request = parse_request(request, self.catalog).request
        history, allowed = np.asarray(request.history, np.int64), self.allowed(request)
        fusion = self.fusions["words" if request.message else "history"]
        found = self.scorer.query(history, request.message).top_k(fusion, request.k, allowed)
        vectors = self.model.encoder.item_vectors
        return [
            Recommendation(
                int(row),
                float(score),
                source,
                reason(self.catalog, int(row), request.history, vectors, request.message, request.filters),
            )
            for row, score, source in zip(found.rows, found.scores, found.sources(len(self.catalog)), strict=True)
        ]

    def rank(
        self, histories: Sequence[np.ndarray], k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The `Ranker` protocol: rows int64[b, k] padded with -1, scores float32[b, k] padded with -inf."""
        return self.scorer.rank(self.fusions["history"], [self.scorer.query(one) for one in histories], k, allowed)

    def look_up(self, text: str, n: int = 6) -> list[int]:
        """Semantic search: the rows whose texts are most similar to a text, best first, without the language model.

        Raises:
            RequestError: the text is longer than the limit for messages.
        """
        self._checked(Request(message=text, k=min(n, MAX_K)))
        scores = self.scorer.words([clean_text(text, MAX_MESSAGE)])
        return [int(row) for row in top_k(scores, min(n, MAX_K), None)[0][0] if row >= 0] if scores.any() else []

    def allowed(self, request: Request) -> np.ndarray:
        """bool[n]: the items that a request's filters, candidates and exclusions allow; its message is not read."""
        mask = self.catalog.where(request.filters)
        if request.candidates is not None:
            only = np.zeros(len(self.catalog), bool)
            only[self._rows(request.candidates, "candidate")] = True
            mask = mask & only
        out = self._rows(request.exclude + (request.history if request.unseen else ()), "row")
        mask = mask.copy()
        mask[out] = False
        return np.asarray(mask)

    def _checked(self, request: Request) -> None:
        if not 1 <= request.k <= MAX_K:
            raise RequestError(f"k is {request.k}; it must lie between 1 and {MAX_K}")
        if len(request.message) > MAX_MESSAGE:
            raise RequestError(f"the message has {len(request.message)} characters; at most {MAX_MESSAGE} are read")
        self._rows(request.history, "history row")
        self._rows(request.candidates or (), "candidate")
        self._rows(request.exclude, "row")

    def _rows(self, rows: Sequence[int], what: str) -> np.ndarray:
        out = np.asarray(rows, np.int64).reshape(-1)
        if len(out) and not (out.min() >= 0 and out.max() < len(self.catalog)):
            bad = int(out[(out < 0) | (out >= len(self.catalog))][0])
            raise RequestError(f"{what} {bad} is not in the catalogue of {len(self.catalog)} items")
        return out

    @cached_property
    def _int8_weights(self) -> Int8Weights | None:
        """The int8 copy of the weights. Only text generation uses it; scores stay in float32."""
        return int8_weights(self.model)

    def talk(
        self,
        dialogue: Sequence[tuple[str, str]],
        shown: Sequence[Recommendation],
        max_tokens: int = 60,
        stop: threading.Event | None = None,
        seconds: float = 15.0,
    ) -> Iterator[str]:
        """Stream text about the shown items sentence by sentence, without sentences that the catalogue does not back.

        Args:
            dialogue: (role, text) turns; the last user turn is answered.
            shown: the recommended items; the model is given the first three.
            max_tokens: limit of generated tokens.
            stop: cancels generation.
            seconds: wall-clock limit.
        """
        rows = [item.row for item in shown[:3]]
        message = next((text for role, text in reversed(dialogue) if role == "user"), "")
        slots = {"message": message, "shown": listing(self.catalog, rows)}
        prompt = self.model.renderer.render(
            [
                Message("system", fill_template(load_template("system").user[0], {"domain": self.catalog.domain})),
                Message("user", fill_template(load_template("talk").user[0], slots)),
                Message("assistant", (), open=True),
            ]
        )
        yield from grounded_sentences(
            generate_text(
                self.model, prompt, max_tokens, seconds, stop, prefixes=self._prefixes, weights=self._int8_weights
            ),
            self._checker,
            [item.row for item in shown],
        )


def grounded_sentences(pieces: Iterator[str], checker: GroundingChecker, shown: Sequence[int]) -> Iterator[str]:
    """Yield complete sentences that the catalogue backs; an unfinished last one and repetitions are dropped."""
    text, said = "", set[str]()
    for piece in pieces:
        text += piece
        while match := checker.end_of_sentence(text, shown):
            sentence, text = text[: match.start()], text[match.end() :]
            yield from _say(sentence, said, checker, shown)
    if text.rstrip().endswith((".", "!", "?")):
        yield from _say(text, said, checker, shown)


def _say(sentence: str, said: set[str], checker: GroundingChecker, shown: Sequence[int]) -> Iterator[str]:
    sentence = sentence.strip()
    if sentence and sentence not in said and checker.grounded(sentence, shown):
        yield (" " if said else "") + sentence
        said.add(sentence)


__all__ = ["MAX_K", "MAX_MESSAGE", "Filters", "Recommendation", "Recommender", "Request"]
