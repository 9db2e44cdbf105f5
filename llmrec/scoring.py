"""The parts of a score: encoder, language model, text profile and words, each a log-probability for every item.

A request is scored alone whatever batch it came in: one prompt a forward pass. On two cores a prompt of a hundred
tokens already keeps the matrix product busy, and what a request gets can then not depend on its neighbours, not in the
last bit. The number of threads is fixed while a request is scored for the same reason: with another one a score moves
by 5e-7. More cores are used by more processes, not by more threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from llmrec import decode
from llmrec.embed import Embedder
from llmrec.fusion import log_softmax, spread
from llmrec.model import RecModel
from llmrec.neighbours import ItemKNN
from llmrec.render import ItemRef, Message, Rendered, UserRef
from llmrec.templates import Slot, fill, load
from llmrec.trie import Trie

# cosine similarities of MiniLM lie within a few tenths of each other: this divides them into nats
TEXT_TEMPERATURE = 0.1
THREADS = 2  # see above


@contextmanager
def fixed_threads(threads: int = THREADS) -> Iterator[None]:
    """Score with this many threads whatever the process was set to, and put its setting back."""
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
        model: the bundle.
        trie: all items.
        text: float32[n, d], L2-normalised vectors of the catalogue's descriptions.
        neighbours: what tends to be taken after what.
        embedder: for words; None leaves the words part out.
        domain: the noun for the items.
        window: most items of a history that the prompt shows.
        beams: paths kept a level, None for all (exact).
        threads: that score a request.
    """

    model: RecModel
    trie: Trie
    text: np.ndarray
    neighbours: ItemKNN
    embedder: Embedder | None
    domain: str
    window: int
    beams: int | None = None
    threads: int = THREADS

    def parts(
        self, histories: Sequence[np.ndarray], messages: Sequence[str] | None = None, llm: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """float32[b, n] log-probabilities by part: encoder, llm, neighbours, profile, popularity, words.

        `llm` float32[b, n] are the language model's when they are known already: all else costs next to nothing.
        """
        messages = messages or [""] * len(histories)
        with fixed_threads(self.threads):
            out = {
                "llm": self.llm(histories, messages) if llm is None else llm,
                "encoder": log_softmax(self.model.encoder.scores(histories)),
                "neighbours": self.neighbours.log_probability(histories),
                "profile": self.profile(histories),
                "popularity": np.tile(self.popularity, (len(histories), 1)),
            }
            if any(messages) and self.embedder is not None:
                out["words"] = self.words(messages)
        return out

    @cached_property
    def popularity(self) -> np.ndarray:
        """float32[n]: the trie's prior of every item, the same for everybody."""
        out = np.empty(self.trie.n, np.float32)
        out[self.trie.order] = self.trie.prior[-1] - np.logaddexp.reduce(self.trie.prior[-1])
        return out

    def llm(self, histories: Sequence[np.ndarray], messages: Sequence[str]) -> np.ndarray:
        """The language model's log-probability of every item; items outside the beams lie below the worst in them."""
        n = len(self.text)
        lines = []
        for history, message in zip(histories, messages, strict=True):
            found = decode.items(self.model, self.trie, [self.prompt(history, message)], n, self.beams)[0]
            lines.append(spread(found.rows, found.scores, n))
        return np.stack(lines) if lines else np.zeros((0, n), np.float32)

    def prompt(self, history: np.ndarray, message: str = "") -> Rendered:
        """What the language model is given for one request."""
        recent = tuple(ItemRef(int(r)) for r in history[-self.window :])
        user = (UserRef(self.model.encoder.encode([history])[0]),) if len(history) else ()
        slots: dict[str, Slot] = {"domain": self.domain, "history": recent + user, "user": (), "message": message}
        if not message:
            phrase = load("next_item").user[0]
            return self.model.renderer.render([Message("user", fill(phrase, slots), open=True)])
        phrase = load("wish").user[0] if len(history) else "{message}"
        asked = Message("user", fill(phrase, slots))
        return self.model.renderer.render([asked, Message("assistant", (), open=True)])

    def profile(self, histories: Sequence[np.ndarray], last: int = 10) -> np.ndarray:
        """Likeness of every item's text to the mean of the latest items' texts, float32[b, n]."""
        centred = self.text - self.text.mean(axis=0)
        queries = [centred[h[-last:]].mean(axis=0) if len(h) else np.zeros(self.text.shape[1]) for h in histories]
        return log_softmax(np.asarray(queries, np.float32) @ centred.T, TEXT_TEMPERATURE)

    def words(self, messages: Sequence[str]) -> np.ndarray:
        """Likeness of every item's text to the message, float32[b, n]; an empty message is even."""
        out = np.zeros((len(messages), len(self.text)), np.float32)
        said = [i for i, message in enumerate(messages) if message]
        if said and self.embedder is not None:
            out[said] = self.embedder.encode([messages[i] for i in said]) @ self.text.T
        return log_softmax(out, TEXT_TEMPERATURE)
