"""The k best items by a fused score, exactly, without reading the whole trie.

A fused score is `rest + weight * log-probability`, and a path's log-probability only falls as the path goes on: at any
node of the trie `rest + weight * (what the path has so far)` bounds all items below it from above. So the nodes above
the most promising items are read first, some tens a pass, and those that cannot reach the k-th best any more are never
read (branch and bound; Land & Doig, 1960). What comes out is what scoring all items gives, ties included. With the
default model and its two levels one pass of 24 tokens decides a list; a catalogue of 12,000 items on three levels has
four thousand to read.

See `trie_reading` for how several requests share a pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec.errors import RequestError
from llmrec.model import RecModel
from llmrec.render import Rendered
from llmrec.trie import Trie
from llmrec.trie_reading import Reading, Steps, together

__all__ = ["Best", "Reading", "beam_steps", "beams", "best", "search", "steps", "together"]


@dataclass(frozen=True, eq=False)
class Best:
    """The best items of a request, best first, ties by row.

    Attributes:
        rows: int64[m], m <= k.
        scores: float32[m], fused.
        llm: float32[m], the language model's log-probabilities.
        tokens: item tokens that were read.
    """

    rows: np.ndarray
    scores: np.ndarray
    llm: np.ndarray
    tokens: int


def best(
    model: RecModel, trie: Trie, prompt: Rendered, rest: np.ndarray, weight: float, k: int, allowed: np.ndarray
) -> Best:
    """The k best allowed items by `rest + weight * log-probability given the prompt`.

    Args:
        model: the bundle; merged is faster.
        trie: the catalogue's paths.
        prompt: the rendered request.
        rest: float64[n], the other parts of the score, weighted and summed.
        weight: of the log-probability; below zero nothing is bounded and every allowed item is scored.
        k: at least 1; fewer come back when fewer are allowed.
        allowed: bool[n].

    Raises:
        RequestError: k below 1, a shape that does not fit, an empty prompt, or one longer than the model's context.
    """
    return search(Reading(model, trie, prompt), rest, weight, k, allowed)


def search(reading: Reading, rest: np.ndarray, weight: float, k: int, allowed: np.ndarray) -> Best:
    """`best` for a prompt that some of is known for: what is read for one list need not be read for the next.

    Arguments as of `best`. The list is the same whatever was read before, but for the last bits of its scores.
    """
    return together([reading], [steps(reading, rest, weight, k, allowed)])[0]


def steps(reading: Reading, rest: np.ndarray, weight: float, k: int, allowed: np.ndarray) -> Steps[Best]:
    """`search` step by step, for `together`."""
    trie = reading.trie
    if k < 1:
        raise RequestError(f"k is {k}; ask for at least 1 item")
    if np.shape(rest) != (trie.n,) or np.shape(allowed) != (trie.n,):
        raise RequestError(f"scores {np.shape(rest)} and filter {np.shape(allowed)} for a catalogue of {trie.n} items")
    leaves = np.flatnonzero(np.asarray(allowed, bool)[trie.order])
    if not len(leaves):
        none = np.zeros(0, np.float32)
        return Best(np.zeros(0, np.int64), none, none, 0)
    if not reading.begun:
        yield trie.ancestors(leaves[:0])
    above = trie.ancestors(leaves)
    others = np.asarray(rest, np.float64)[trie.order[leaves]]
    while True:
        known, done = reading.known(above)
        # the cast keeps the order of bounds, so items that tie as float32 are all looked at
        bound = np.asarray(others + weight * known.astype(np.float64), np.float32)
        if weight < 0:
            bound[~done] = np.inf
        wanted = ~done
        if int(done.sum()) >= k:
            wanted &= bound >= np.partition(bound[done], -k)[-k]
        if not wanted.any():
            break
        places = np.flatnonzero(wanted)
        yield above[:, places[np.argsort(-bound[places], kind="stable")]]
    rows, scores, llm = trie.row(leaves[done]), bound[done], known[done]
    order = np.lexsort((rows, -scores))[:k]
    return Best(rows[order], scores[order], llm[order], reading.tokens)


def beams(reading: Reading, width: int, k: int, allowed: np.ndarray) -> Best:
    """The k best allowed items that `width` paths a level lead to, by the language model alone.

    What `decode.items` gives for one prompt, from what was read before and for what will be read next.

    Raises:
        RequestError: k or width below 1, or a filter of another size.
    """
    return together([reading], [beam_steps(reading, width, k, allowed)])[0]


def beam_steps(reading: Reading, width: int, k: int, allowed: np.ndarray) -> Steps[Best]:
    """`beams` step by step, for `together`."""
    trie = reading.trie
    if k < 1 or width < 1 or np.shape(allowed) != (trie.n,):
        raise RequestError(f"k={k}, width={width}, filter {np.shape(allowed)} for a catalogue of {trie.n} items")
    above = trie.ancestors(np.flatnonzero(np.asarray(allowed, bool)[trie.order]))
    if not reading.begun:
        yield above[:, :0]
    for level in range(trie.depth - 1):
        there = np.zeros(trie.nodes(level), bool)
        there[above[level]] = True
        nodes = np.flatnonzero(there)
        kept = nodes[np.argsort(-reading.path[level][nodes], kind="stable")[:width]]
        there[:] = False
        there[kept] = True
        above = above[:, there[above[level]]]
        first = np.searchsorted(above[level], kept)  # leaves are in the order of their nodes
        paths = above[: level + 1, first]
        while paths.shape[1]:
            paths = paths[:, (yield paths) :]
    llm = reading.path[-1][above[-1]]
    rows = trie.row(above[-1])
    order = np.lexsort((rows, -llm))[:k]
    return Best(rows[order], llm[order], llm[order], reading.tokens)
