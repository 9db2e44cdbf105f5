"""Text vectors of dialogues, embedded once and cached by fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from llmrec.encoders.text import Embedder
from llmrec.encoders.text_cache import embed_catalog
from llmrec.errors import ArtifactError
from llmrec.eval.crs.data import Corpus, CrsQuestions, Turn
from llmrec.ranker import Scores
from llmrec.storage.artifacts import fingerprint_bytes, read_manifest, write_artifact

KIND = "sentence-vectors"
CONTEXT_TURNS = 4  # number of latest turns that the text look-up reads
CONTEXT_CHARS = 900  # about as much as the encoder's 256 tokens hold


@dataclass(frozen=True, eq=False)
class SentenceVectors:
    """Vectors of texts.

    Attributes:
        place: row of each text's vector in `table`.
        table: float32[m, d], unit length.
    """

    place: Mapping[str, int]
    table: Scores

    def of(self, texts: Sequence[str]) -> Scores:
        """float32[len(texts), d]."""
        return self.table[[self.place[text] for text in texts]]


@dataclass(frozen=True, eq=False)
class CorpusVectors:
    """All text vectors of a corpus.

    Attributes:
        items: float32[n, d], vectors of the films' descriptions.
        words: vectors of every turn without the titles.
        contexts: vectors of the latest turns before every question, with the titles.
    """

    items: Scores
    words: SentenceVectors
    contexts: SentenceVectors


def embed_corpus(corpus: Corpus, cases: Sequence[CrsQuestions], embedder: Embedder, cache: Path) -> CorpusVectors:
    """Embed all texts of a corpus; `cases` are the questions whose contexts are needed."""
    turns = [turn for part in (corpus.train, corpus.test) for dialogue in part for turn in dialogue.turns]
    contexts = [context_text(context) for part in cases for context in part.contexts()]
    return CorpusVectors(
        embed_catalog(corpus.catalog, embedder, cache),
        embed_sentences([turn.words for turn in turns], embedder, cache),
        embed_sentences(contexts, embedder, cache),
    )


def context_text(context: Sequence[Turn]) -> str:
    """The latest turns as one text with the titles, oldest first, truncated at the beginning."""
    return " ".join(turn.text for turn in context[-CONTEXT_TURNS:])[-CONTEXT_CHARS:].strip()


def embed_sentences(texts: Sequence[str], embedder: Embedder, cache: Path) -> SentenceVectors:
    """Embed distinct texts, reading vectors from the cache where available."""
    unique = sorted(set(texts))
    print_of = fingerprint_bytes(*(text.encode() for text in unique))
    path = cache / f"said-{print_of[:16]}-{embedder.name}"
    place = {text: number for number, text in enumerate(unique)}
    try:
        read_manifest(path, KIND)
        return SentenceVectors(place, load_file(path / "vectors.safetensors")["vectors"])
    except ArtifactError:
        pass
    table = np.asarray(embedder.encode(unique), np.float32)
    with write_artifact(path, KIND, {"texts": print_of}, own_place=True) as directory:
        save_file({"vectors": table}, directory / "vectors.safetensors")
    return SentenceVectors(place, table)


def turn_vectors(cases: CrsQuestions, vectors: CorpusVectors, choose: Callable[[Turn], bool], decay: float) -> Scores:
    """Vector of the chosen turns before each question: float32[q, d], of length 1, or 0 if there are none.

    The weight of a turn is `decay` to the power of the number of chosen turns after it.
    """
    out = np.zeros((len(cases), vectors.words.table.shape[1]), np.float32)
    for line, context in zip(out, cases.contexts(), strict=True):
        words = [turn.words for turn in context if choose(turn)][::-1]
        if words:
            weights = (decay ** np.arange(len(words))).astype(np.float32)
            line += np.einsum("t,td->d", weights, vectors.words.of(words))
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(out / np.maximum(length, 1e-6), np.float32)
