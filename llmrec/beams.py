"""Paths of the trie under search: one level's probabilities, and which paths to keep.

A path's log-probability is a sum over levels; at each level it is a softmax over the children that exist in the whole
catalogue, of the model's logits plus the trie's prior. That is what a softmax over the full vocabulary becomes when its
mass is confined to the trie and taken as one within every node: the probabilities of all items sum to one, the same
normalisation as in training. A filter removes paths from the result afterwards and so changes no score.

All of it is done for all beams of all requests at once. Children of a node are contiguous, so a step reads them by
offset; its width is the largest number of children in the level, whatever the beams are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llmrec.model import RecModel
from llmrec.trie import Narrowed, Trie


@dataclass(frozen=True, eq=False)
class Beams:
    """Paths of several requests, those of one request next to each other, best first.

    Attributes:
        request: int64[r], whose path it is, ascending.
        node: int64[r], where it ends.
        parent: int64[r], the path of the level before that it goes on from, counted within its request.
        score: float32[r], its log-probability.
    """

    request: np.ndarray
    node: np.ndarray
    parent: np.ndarray
    score: np.ndarray

    @staticmethod
    def roots(requests: int) -> Beams:
        """One empty path a request."""
        zeros = np.zeros(requests, np.int64)
        return Beams(np.arange(requests, dtype=np.int64), zeros, zeros, np.zeros(requests, np.float32))


def level_log_probabilities(
    model: RecModel, trie: Trie, level: int, nodes: np.ndarray, hidden: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Children of nodes int64[r] of the level above and their log-probabilities given hidden states float[r, h].

    Returns int64[r, width] child nodes, -1 where there are fewer, and float32[r, width], -inf there.
    """
    child = trie.ranges(level, nodes)
    safe = np.maximum(child, 0)
    codes = torch.from_numpy(trie.code[level][safe].astype(np.int64))
    prior = torch.from_numpy(np.where(child >= 0, trie.prior[level][safe], np.float32(-np.inf)))
    logits = model.level_logits(hidden, level).float().cpu()
    logp: np.ndarray = torch.log_softmax(logits.gather(1, codes) + prior, dim=-1).numpy()
    return child, logp


def embed_items(model: RecModel, item_tokens: np.ndarray) -> torch.Tensor:
    """Input embeddings float[r, h] of item tokens int64[r], counted from the first one."""
    out: torch.Tensor = model.items(torch.from_numpy(item_tokens).to(model.device))
    return out


def extend(
    model: RecModel,
    trie: Trie,
    level: int,
    beams: Beams,
    hidden: torch.Tensor,
    filters: Sequence[Narrowed | None],
    width: int | None,
) -> Beams:
    """The best `width` (None: all) paths of every request that are one level longer and hold an allowed item."""
    child, logp = level_log_probabilities(model, trie, level, beams.node, hidden)
    requests, columns = len(filters), child.shape[1]
    counts = np.bincount(beams.request, minlength=requests)
    before = np.cumsum(counts) - counts
    total = np.full((requests, int(counts.max()), columns), -np.inf, np.float32)
    total[beams.request, np.arange(len(beams.node)) - before[beams.request]] = np.where(
        _open(child, level, beams, filters), beams.score[:, None] + logp, np.float32(-np.inf)
    )
    request, place = _best(total.reshape(requests, -1), width)
    parent, column = place // columns, place % columns
    return Beams(request, child[before[request] + parent, column], parent, total[request, parent, column])


def _open(child: np.ndarray, level: int, beams: Beams, filters: Sequence[Narrowed | None]) -> np.ndarray:
    """bool[r, width]: which children exist and hold an item that their request allows."""
    out = child >= 0
    for number, narrowed in enumerate(filters):
        if narrowed is not None:
            start, stop = np.searchsorted(beams.request, [number, number + 1])
            out[start:stop] &= narrowed.open(level, np.maximum(child[start:stop], 0))
    return out


def _best(total: np.ndarray, width: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The finite best `width` (None: all) of each line, by line and best first, equals in order: their line and column.

    Only what ties with the last one or beats it is sorted: of fifty beams with 256 children each that is a hundredth.
    """
    kept = np.isfinite(total)
    if width is not None and width < total.shape[1]:
        kept &= total >= np.partition(total, -width, axis=1)[:, -width, None]
    line, column = np.nonzero(kept)
    order = np.lexsort((-total[line, column], line))
    line, column = line[order], column[order]
    if width is not None:
        rank = np.arange(len(line)) - np.searchsorted(line, line)
        line, column = line[rank < width], column[rank < width]
    return line, column
