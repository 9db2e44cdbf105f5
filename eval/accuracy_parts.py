"""The product's rows of the accuracy table: its parts alone, or fused, each history read by the language model once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np

from llmrec.fusion import Fusion
from llmrec.rank import Mask, Rows, Scores, top_k
from llmrec.scoring import Scorer


class Parts:
    """The scorer's parts of the latest histories, kept for the rows that share them.

    Args:
        scorer: of the model.
        keep: how many histories; all rows rank a batch before the next one comes, so some batches are enough.
    """

    def __init__(self, scorer: Scorer, keep: int = 256) -> None:
        self.n = len(scorer.text)
        self._scorer, self._keep = scorer, keep
        self._known: OrderedDict[bytes, Mapping[str, np.ndarray]] = OrderedDict()

    def of(self, history: Rows) -> Mapping[str, np.ndarray]:
        """float32[1, n] by part."""
        key = np.asarray(history, np.int64).tobytes()
        if key not in self._known:
            self._known[key] = self._scorer.parts([history])
            if len(self._known) > self._keep:
                self._known.popitem(last=False)
        return self._known[key]


class PartsRanker:
    """A row of the table made from the scorer's parts: one of them alone, or a fusion."""

    def __init__(self, name: str, parts: Parts, fusion: Fusion) -> None:
        self.name, self._parts, self._fusion = name, parts, fusion

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.rank.Ranker.rank`."""
        scores = np.zeros((len(histories), self._parts.n), np.float32)
        for line, history in zip(scores, histories, strict=True):
            line[:] = self._fusion.combine(self._parts.of(history))[0]
        return top_k(scores, k, allowed)
