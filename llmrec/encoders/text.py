"""Text embedders: the Embedder protocol, and MiniLM as a small sentence encoder on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from llmrec.errors import WeightsError
from llmrec.storage.download import fetch, hide_progress_bars

Vectors = np.ndarray[Any, np.dtype[np.float32]]

# Measured on two cores: the bits are the same in any order and on one or two threads, and larger batches are no faster.
_BATCH = 4


class Embedder(Protocol):
    """Anything that turns texts into L2-normalised vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    @property
    def name(self) -> str:
        """The name that is recorded in artifacts made with this embedder."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32[n, dim], one vector of length 1 per text."""


class MiniLM:
    """all-MiniLM-L6-v2: the normalised mean of the last hidden states (Reimers and Gurevych, EMNLP 2019).

    The vector of a text does not depend on the other texts, down to the last bit. A batch holds texts with the same
    number of tokens, so there is no padding. It always holds `_BATCH` texts (the last one is repeated), so matrix
    products of texts of equal length always have the same shape.
    """

    name = "minilm-l6-v2"

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int = 256) -> None:
        self._model, self._tokenizer, self._max_tokens = model, tokenizer, max_tokens
        self.dim: int = int(model.config.hidden_size)

    @staticmethod
    def load(path: Path | None = None) -> MiniLM:
        """Load from a directory, or download the pinned files.

        Raises:
            WeightsError: the directory does not load, or the files cannot be downloaded.
        """
        from transformers import AutoModel, AutoTokenizer

        path = fetch(MiniLM.name) if path is None else Path(path)
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            with hide_progress_bars():
                model = AutoModel.from_pretrained(path, use_safetensors=True, **options)
                tokenizer = AutoTokenizer.from_pretrained(path, **options)
        except Exception as error:  # a damaged file can make the parsers raise anything
            raise WeightsError(f"no sentence encoder at {path}: {error}") from error
        return MiniLM(model.eval(), tokenizer)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32[n, dim], L2-normalised; texts are truncated to 256 tokens."""
        result = np.zeros((len(texts), self.dim), np.float32)
        if not texts:
            return result
        ids = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens)["input_ids"]
        buckets: dict[int, list[int]] = {}
        for place, one in enumerate(ids):
            buckets.setdefault(len(one), []).append(place)
        for places in buckets.values():
            for start in range(0, len(places), _BATCH):
                chosen = places[start : start + _BATCH]
                padded = chosen + chosen[-1:] * (_BATCH - len(chosen))
                result[chosen] = self._forward([ids[place] for place in padded])[: len(chosen)]
        return result

    def _forward(self, ids: list[list[int]]) -> Vectors:
        import torch

        with torch.inference_mode():
            hidden = self._model(input_ids=torch.tensor(ids)).last_hidden_state
            vectors = torch.nn.functional.normalize(hidden.mean(dim=1), dim=1)
        return np.asarray(vectors.numpy(), dtype=np.float32)
