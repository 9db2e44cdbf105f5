"""Item tokens: maps catalogue rows to token ids of the language model and back.

The ids of item tokens follow those of word tokens: code c of level l has the id `base + l * size + c`. Item tokens have
an embedding table of their own (`RecModel.items`), so the word embeddings, the tokenizer and the tied LM head stay as
published.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmrec.errors import RequestError
from llmrec.semantic_ids.residual_kmeans import SemanticIds


@dataclass(frozen=True, eq=False)
class ItemVocab:
    """The item tokens of a catalogue: maps rows to token ids and back.

    Attributes:
        base: number of word tokens, which is the id of the first item token.
        ids: the semantic IDs.
    """

    base: int
    ids: SemanticIds

    def __len__(self) -> int:
        """Number of item tokens."""
        return self.ids.depth * self.ids.size

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.ids.codes)

    @cached_property
    def tokens(self) -> np.ndarray:
        """int64[n, depth]: token ids of every item."""
        level = np.arange(self.ids.depth, dtype=np.int64) * self.ids.size
        out: np.ndarray = self.base + level + self.ids.codes
        return out

    def is_item(self, token_ids: np.ndarray) -> np.ndarray:
        """Return bool of the same shape: which ids are item tokens."""
        out: np.ndarray = (token_ids >= self.base) & (token_ids < self.base + len(self))
        return out

    def row(self, token_ids: tuple[int, ...]) -> int:
        """The row of the item with this token path.

        Raises:
            RequestError: for a path that belongs to no item.
        """
        try:
            return self._rows[tuple(int(t) for t in token_ids)]
        except KeyError:
            raise RequestError(f"no item has the token path {tuple(token_ids)}") from None

    @cached_property
    def _rows(self) -> dict[tuple[int, ...], int]:
        return {tuple(path): row for row, path in enumerate(self.tokens.tolist())}

    def names(self) -> list[str]:
        """Return the name of every item token, for exports and debugging; names are never parsed from text."""
        return [f"<|item_{level}_{code}|>" for level in range(self.ids.depth) for code in range(self.ids.size)]
