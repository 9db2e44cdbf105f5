"""Exact top-k search by a fused score with branch and bound, without scoring the whole trie (Land & Doig, 1960).

A fused score is `rest + weight * log-probability`. A path's log-probability can only fall as the path gets longer, so
`rest + weight * (log-probability so far)` is an upper bound for every item below a node. The nodes above the most
promising items are scored first, a few dozen per pass. Nodes whose bound is below the k-th best item are never scored.
The result equals that of scoring all items, including ties. With the default model and its two levels, one pass of 24
tokens decides a list; for comparison, a catalogue of 12,000 items on three levels has four thousand nodes.
"""

from __future__ import annotations

import numpy as np

from llmrec.decoding.trie_scoring import DecodeState, PathRequest, Search, run_searches
from llmrec.errors import RequestError
from llmrec.ranker import RankedList


def exact_search(state: DecodeState, rest: np.ndarray, weight: float, k: int, allowed: np.ndarray) -> RankedList:
    """The k best allowed items by `rest + weight * log-probability given the prompt`.

    The list does not depend on what the state has computed before, except for the last bits of its scores.

    Args:
        state: the decode state of the prompt.
        rest: float64[n], the weighted sum of the other parts of the score.
        weight: weight of the log-probability; if negative, there are no bounds and every allowed item is scored.
        k: at least 1; fewer items are returned when fewer are allowed.
        allowed: bool[n].

    Returns:
        Fused scores, and the language model's log-probabilities as the part "llm".

    Raises:
        RequestError: k below 1, or a shape that does not fit.
    """
    return run_searches([state], [branch_and_bound_steps(state, rest, weight, k, allowed)])[0]


def branch_and_bound_steps(
    state: DecodeState, rest: np.ndarray, weight: float, k: int, allowed: np.ndarray
) -> Search[RankedList]:
    """The search of `exact_search`, for `run_searches`."""
    trie = state.trie
    if k < 1:
        raise RequestError(f"k is {k}; ask for at least 1 item")
    if np.shape(rest) != (trie.n,) or np.shape(allowed) != (trie.n,):
        raise RequestError(f"scores {np.shape(rest)} and filter {np.shape(allowed)} for a catalogue of {trie.n} items")
    leaves = np.flatnonzero(np.asarray(allowed, bool)[trie.order])
    if not len(leaves):
        nothing = np.zeros(0, np.float32)
        return RankedList(np.zeros(0, np.int64), nothing, {"llm": nothing})
    above = trie.ancestors(leaves)
    if not state.prefilled:
        yield PathRequest(above[:, :0])
    others = np.asarray(rest, np.float64)[trie.order[leaves]]
    while True:
        known, done = state.path_scores(above)
        # the cast to float32 preserves the order of bounds, so all items that tie in float32 are considered
        bound = np.asarray(others + weight * known.astype(np.float64), np.float32)
        if weight < 0:
            bound[~done] = np.inf
        wanted = ~done
        if int(done.sum()) >= k:
            wanted &= bound >= np.partition(bound[done], -k)[-k]
        if not wanted.any():
            break
        places = np.flatnonzero(wanted)
        yield PathRequest(above[:, places[np.argsort(-bound[places], kind="stable")]])
    rows, scores, llm = trie.row(leaves[done]), bound[done], known[done]
    order = np.lexsort((rows, -scores))[:k]
    return RankedList(rows[order], scores[order], {"llm": llm[order]})
