"""Scores items by parts: encoder, language model, neighbours, text profile, popularity and words, as log-probabilities.

Requests that are ranked together share the language model's forward passes (`trie_scoring`), but a request's scores do
not depend on the others. To keep scores reproducible, the number of threads is also fixed while a request is scored:
another number changes a score by 5e-7. To use more cores, run more processes, not more threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from llmrec.decoding.beam_search import BEAM_WIDTH, beam_search, beam_search_steps
from llmrec.decoding.candidate_scores import score_candidates
from llmrec.decoding.exact_search import branch_and_bound_steps
from llmrec.decoding.trie_scoring import DecodeState, Search, run_searches
from llmrec.encoders.item_knn import ItemKNN
from llmrec.encoders.text import Embedder
from llmrec.encoders.text_similarity import ProfileSettings, TextProfile
from llmrec.inner_product import inner
from llmrec.lm.model import RecModel
from llmrec.lm.prompts import Slot, fill_template, load_template
from llmrec.lm.rendering import ItemRef, Message, Rendered, UserRef
from llmrec.numerics import log_softmax
from llmrec.ranker import Mask, top_k
from llmrec.ranking.fusion import FusedList, Fusion, familiarity, familiarity_parts, fill_catalog
from llmrec.semantic_ids.trie import Trie, counts_of

# cosine similarities are divided by this to give nats; those of MiniLM lie within a few tenths of each other
TEXT_TEMPERATURE = 0.1
UNINFORMATIVE_SHARE = 0.5  # share of the catalogue, the least similar to a message, that gets the same score
THREADS = 2  # threads while a request is scored, see the module docstring
SMALL_TRIE_NODES = 512  # a catalogue is small with at most this many trie nodes (tokens) above the last level
_AS_EMBEDDED = ProfileSettings()
LLM_CANDIDATES = 200  # items that the language model scores in a catalogue that is not small: see `ScoringQuery.top_k`


@contextmanager
def fixed_threads(threads: int = THREADS) -> Iterator[None]:
    """Run torch with this number of threads, and restore the process's setting afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores requests part by part.

    Attributes:
        model: the model bundle.
        trie: trie of the semantic IDs of all items.
        text: float32[n, d], L2-normalised vectors of the catalogue's descriptions.
        neighbours: item-to-item neighbours.
        embedder: embeds messages; None leaves the part "words" out.
        domain: noun for the items, such as "film".
        window: the prompt shows at most this many items of a history.
        beam_width: paths kept per level; None for all (exact).
        threads: number of threads while a request is scored.
        profile_settings: how the texts of a history are compared with those of other items.
        user_vector: whether the prompt ends with the encoder's vector of the history.
        counts: int[n], interactions of each item in training; None derives them from the trie's log masses, see
            `trie.log_mass`.
    """

    model: RecModel
    trie: Trie
    text: np.ndarray
    neighbours: ItemKNN
    embedder: Embedder | None
    domain: str
    window: int
    beam_width: int | None = None
    threads: int = THREADS
    profile_settings: ProfileSettings = _AS_EMBEDDED
    user_vector: bool = True
    counts: np.ndarray | None = None

    def parts(
        self, histories: Sequence[np.ndarray], messages: Sequence[str] | None = None, llm: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Return float32[b, n] by part: the language model's log-probabilities, and `non_llm_parts`.

        `llm` float32[b, n] holds the language model's log-probabilities if they are already known; the other parts are
        cheap to compute.
        """
        messages = messages or [""] * len(histories)
        with fixed_threads(self.threads):
            return {
                "llm": self.llm(histories, messages) if llm is None else llm,
                **self.non_llm_parts(histories, messages),
            }

    def non_llm_parts(self, histories: Sequence[np.ndarray], messages: Sequence[str]) -> dict[str, np.ndarray]:
        """Return float32[b, n] by part, without the language model.

        These are the log-probabilities of encoder, neighbours, profile, popularity and words, and
        `fusion.FAMILIARITY_PARTS`.
        """
        with fixed_threads(self.threads):
            out = {
                "encoder": log_softmax(self.model.encoder.scores(histories)),
                "neighbours": self.neighbours.log_probability(histories),
                "profile": self.profile(histories),
                "popularity": np.tile(self.popularity, (len(histories), 1)),
            }
            if any(messages) and self.embedder is not None:
                out["words"] = self.words(messages)
            return out | familiarity_parts(out, self.familiarity)

    def query(self, history: np.ndarray, message: str = "") -> ScoringQuery:
        """Return a query for a history of rows, oldest first, and a message, which may be empty."""
        return ScoringQuery(self, np.asarray(history, np.int64), message)

    def rank(
        self, fusion: Fusion, asked: Sequence[ScoringQuery], k: int, allowed: Mask | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank queries as the `Ranker` protocol requires: rows int64[b, k] and scores float32[b, k], best first.

        Shorter lists are padded with -1 and -inf. `allowed` is bool[n] for all queries or bool[b, n].
        """
        rows = np.full((len(asked), k), -1, np.int64)
        scores = np.full((len(asked), k), -np.inf, np.float32)
        mask = np.ones(self.trie.n, bool) if allowed is None else allowed
        wanted = [(one, fusion, k, mask if mask.ndim == 1 else mask[line]) for line, one in enumerate(asked)]
        for line, found in enumerate(self.ranked_lists(wanted)):
            rows[line, : len(found.rows)], scores[line, : len(found.rows)] = found.rows, found.scores
        return rows, scores

    def ranked_lists(self, wanted: Sequence[tuple[ScoringQuery, Fusion, int, np.ndarray]]) -> list[FusedList]:
        """Return `ScoringQuery.top_k` for several (query, fusion, k, allowed), sharing the language model's passes."""
        with fixed_threads(self.threads):
            return run_searches(
                [one.state for one, _, _, _ in wanted],
                [one.search(fusion, k, allowed) for one, fusion, k, allowed in wanted],
            )

    @cached_property
    def is_small(self) -> bool:
        """Whether the language model can score the whole catalogue for one request in about a second."""
        return sum(self.trie.nodes(level) for level in range(self.trie.depth - 1)) <= SMALL_TRIE_NODES

    @cached_property
    def popularity(self) -> np.ndarray:
        """float32[n]: the log prior of every item, the same for all users."""
        out: np.ndarray = self.trie.log_masses - np.logaddexp.reduce(self.trie.log_masses)
        return out

    @cached_property
    def familiarity(self) -> np.ndarray:
        """float32[n]: the familiarity of each item, see `fusion.familiarity`."""
        return familiarity(self.interaction_counts)

    @cached_property
    def interaction_counts(self) -> np.ndarray:
        """int64[n]: `counts`, or counts derived from the trie's log masses."""
        return counts_of(self.trie.log_masses) if self.counts is None else self.counts

    def llm(self, histories: Iterable[np.ndarray], messages: Iterable[str]) -> np.ndarray:
        """Return the language model's log-probability of every item, float32[b, n].

        Items outside the beams get a value below the worst item in them, see `fill_catalog`.
        """
        n = len(self.text)
        lines = []
        for history, message in zip(histories, messages, strict=True):
            found = beam_search(self.model, self.trie, [self.prompt(history, message)], n, self.beam_width)[0]
            lines.append(fill_catalog(found.rows, found.scores, n))
        return np.stack(lines) if lines else np.zeros((0, n), np.float32)

    def llm_candidate_scores(self, history: np.ndarray, message: str, rows: np.ndarray) -> np.ndarray:
        """Return float32[m]: the language model's exact log-probabilities of `rows` int[m]."""
        with fixed_threads(self.threads):
            return score_candidates(self.model, self.trie, [self.prompt(history, message)], [rows])[0]

    def prompt(self, history: np.ndarray, message: str = "") -> Rendered:
        """Return the language model's prompt for one request."""
        recent = tuple(ItemRef(int(r)) for r in history[-self.window :])
        known = self.user_vector and len(history)
        user = (UserRef(self.model.encoder.encode([history])[0]),) if known else ()
        slots: dict[str, Slot] = {"domain": self.domain, "history": recent + user, "user": (), "message": message}
        if not message:
            phrase = load_template("next_item").user[0]
            return self.model.renderer.render([Message("user", fill_template(phrase, slots), open=True)])
        phrase = load_template("wish").user[0] if len(history) else "{message}"
        asked = Message("user", fill_template(phrase, slots))
        return self.model.renderer.render([asked, Message("assistant", (), open=True)])

    @cached_property
    def texts(self) -> TextProfile:
        """The text similarity part."""
        return TextProfile(self.text, self.profile_settings)

    def profile(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """Return float32[b, n]: log-probabilities by the similarity of an item's text to those of the latest items."""
        return self.texts.log_probability(histories)

    def words(self, messages: Sequence[str]) -> np.ndarray:
        """Return float32[b, n]: log-probabilities by the similarity of an item's text to the message.

        An empty message gives a uniform distribution. The less similar half of the catalogue gets the same score: that
        far from a message, similarity carries no information, and appending any text to an item's own moved it by
        hundreds of ranks.
        """
        out = np.zeros((len(messages), len(self.text)), np.float32)
        said = [i for i, message in enumerate(messages) if message]
        if said and self.embedder is not None:
            with fixed_threads(self.threads):  # `Recommender.look_up` calls this part by itself
                vectors = self.embedder.encode([messages[i] for i in said])
            found = inner(vectors, self.text)
            out[said] = np.maximum(found, np.quantile(found, UNINFORMATIVE_SHARE, axis=1, keepdims=True))
        return log_softmax(out, TEXT_TEMPERATURE)


@dataclass(frozen=True, eq=False)
class ScoringQuery:
    """One request with cached part scores, so that a second list with other fusion weights is cheap.

    Attributes:
        scorer: computes the parts.
        history: rows int64[h], oldest first.
        message: what the user asks for; may be empty.
    """

    scorer: Scorer
    history: np.ndarray
    message: str

    @cached_property
    def non_llm_parts(self) -> dict[str, np.ndarray]:
        """float32[n] by part, without the language model, see `Scorer.non_llm_parts`."""
        return {name: part[0] for name, part in self.scorer.non_llm_parts([self.history], [self.message]).items()}

    @cached_property
    def prompt(self) -> Rendered:
        """The prompt of the language model."""
        return self.scorer.prompt(self.history, self.message)

    @cached_property
    def state(self) -> DecodeState:
        """The language model's scores after the prompt, as far as they have been computed."""
        return DecodeState(self.scorer.model, self.scorer.trie, self.prompt)

    def top_k(self, fusion: Fusion, k: int, allowed: np.ndarray) -> FusedList:
        """Return the k best allowed items by the fused score; the language model scores only items that can reach it.

        The result is exact if the catalogue `is_small`. In a larger catalogue, the language model scores only the top
        `LLM_CANDIDATES` items of the other parts (or 2 k, if that is more). If no other part has a weight, a beam
        search makes the list.

        Args:
            fusion: weights of the parts.
            k: at least 1.
            allowed: bool[n].
        """
        return self.scorer.ranked_lists([(self, fusion, k, allowed)])[0]

    def search(self, fusion: Fusion, k: int, allowed: np.ndarray) -> Search[FusedList]:
        """Return the search of `top_k`, for `run_searches`."""
        # sorted, so that sums do not depend on the order of a mapping
        names = sorted(name for name in fusion.weights if name in self.non_llm_parts)
        rest = np.zeros(self.scorer.trie.n, np.float64)
        for name in names:
            rest += fusion.weights[name] * self.non_llm_parts[name].astype(np.float64)
        weight = fusion.weights.get("llm", 0.0)
        if weight and not names and not self.scorer.is_small:
            item_filter = self.scorer.trie.filter(allowed)
            found = yield from beam_search_steps(self.state, max(BEAM_WIDTH, k), k, item_filter)
            scores = (weight * found.scores.astype(np.float64)).astype(np.float32)
            return FusedList(found.rows, scores, found.parts, fusion)
        if weight:
            found = yield from branch_and_bound_steps(
                self.state, rest, weight, k, self._llm_candidates(rest, k, allowed)
            )
            rows, scores, parts = found.rows, found.scores, found.parts
        else:
            ranked, values = top_k(rest[None].astype(np.float32), k, allowed)
            kept = ranked[0] >= 0
            rows, scores, parts = ranked[0][kept], values[0][kept], {}
        return FusedList(rows, scores, {**parts, **{name: self.non_llm_parts[name][rows] for name in names}}, fusion)

    def _llm_candidates(self, rest: np.ndarray, k: int, allowed: np.ndarray) -> np.ndarray:
        left = np.flatnonzero(allowed)
        many = max(LLM_CANDIDATES, 2 * k)
        if self.scorer.is_small or len(left) <= many:
            return allowed
        out = np.zeros(len(allowed), bool)
        out[left[np.argsort(-rest[left], kind="stable")[:many]]] = True
        return out
