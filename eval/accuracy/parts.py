"""The product's rows of the accuracy table: its parts alone, or fused; share a scorer that remembers what it read."""

from __future__ import annotations

from collections.abc import Sequence

from llmrec.ranker import Mask, Rows, Scores
from llmrec.ranking.fusion import Fusion
from llmrec.ranking.scorer import Scorer


class PartsRanker:
    """A row of the table made from the scorer's parts: one of them alone, or a fusion."""

    def __init__(self, name: str, scorer: Scorer, fusion: Fusion) -> None:
        self.name, self._scorer, self.fusion = name, scorer, fusion

    def rank(self, histories: Sequence[Rows], k: int, allowed: Mask | None = None) -> tuple[Rows, Scores]:
        """See `llmrec.ranker.Ranker.rank`."""
        return self._scorer.rank(self.fusion, [self._scorer.query(one) for one in histories], k, allowed)
