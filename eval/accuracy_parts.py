"""The product's rows of the accuracy table: its parts alone, or fused, each history read by the language model once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from llmrec.fusion import Fusion
from llmrec.rank import Mask, Rows, Scores
from llmrec.scoring import Asked, Scorer


class Parts:
    """What the model says of the latest histories, kept for the rows that share them.

    Args:
        scorer: of the model.
        keep: how many histories; all rows rank a batch before the next one comes, so some batches are enough.
    """

    def __init__(self, scorer: Scorer, keep: int = 32) -> None:
        self.scorer, self._keep = scorer, keep
        self._known: OrderedDict[bytes, Asked] = OrderedDict()

    def of(self, history: Rows) -> Asked:
        """The request for what comes after this history."""
        key = np.asarray(history, np.int64).tobytes()
        if key not in self._known:
            self._known[key] = self.scorer.ask(history)
            if len(self._known) > self._keep:
                self._known.popitem(last=False)
        return self._known[key]


class PartsRanker:
    """A row of the table made from the scorer's parts: one of them alone, or a fusion; exact."""

    def __init__(self, name: str, parts: Parts, fusion: Fusion) -> None:
        self.name, self._parts, self._fusion = name, parts, fusion

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.rank.Ranker.rank`."""
        return self._parts.scorer.rank(self._fusion, [self._parts.of(one) for one in histories], k, allowed)
