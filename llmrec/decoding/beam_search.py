"""Beam search over the trie of semantic IDs: finds the most probable items after a prompt.

Decoding is constrained to paths of the trie, so every result is an existing item and satisfies the filter. If all paths
are kept, the ranking is exact. `trie_scoring` explains how a path is scored and how requests share forward passes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.decoding.trie_scoring import DecodeState, PathRequest, Search, request_all, search_prompts
from llmrec.errors import RequestError
from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Rendered
from llmrec.lm.runtime.prefix_cache import PrefixCache
from llmrec.ranker import RankedList
from llmrec.semantic_ids.trie import Trie, TrieFilter

BEAM_WIDTH = 64  # paths kept per level when scoring a whole level would take too long

ItemFilter = np.ndarray | TrieFilter | None


def beam_search_steps(
    state: DecodeState, beam_width: int | None, k: int, item_filter: TrieFilter | None = None
) -> Search[RankedList]:
    """The search of `beam_search` for one request: the k best allowed items with `beam_width` paths kept per level.

    Paths are kept by score, ties in the order of the trie; items come best first, ties by row. Scores are the items'
    log-probabilities, which are also the part "llm" of the list. A `beam_width` of None keeps all paths.

    Raises:
        RequestError: k or beam_width below 1.
    """
    if k < 1 or (beam_width is not None and beam_width < 1):
        raise RequestError(f"k and beam_width must be at least 1, got k={k}, beam_width={beam_width}")
    trie = state.trie
    if not state.prefilled:
        yield PathRequest(np.zeros((trie.depth, 0), np.int64))
    node, paths = np.zeros(1, np.int64), np.zeros((0, 1), np.int64)
    for level in range(trie.depth):
        child = trie.ranges(level, node)
        there = child >= 0
        if item_filter is not None:
            there &= item_filter.reachable(level, np.maximum(child, 0))
        parent, child = np.nonzero(there)[0], child[there]
        score = state.path[level][child]
        if level == trie.depth - 1:
            rows = trie.row(child)
            order = np.lexsort((rows, -score))[:k]
            return RankedList(rows[order], score[order], {"llm": score[order]})
        kept = _best_places(score, beam_width)
        node = child[kept]
        paths = np.concatenate([paths[:, parent[kept]], node[None]])
        yield from request_all(paths)
    raise AssertionError("a trie has at least one level")


def _best_places(score: np.ndarray, width: int | None) -> np.ndarray:
    """Indices of the best `width` scores (None: all), best first, ties in order.

    Only the scores that beat or tie with the width-th best one are sorted. For fifty beams with 256 children each, that
    is one in a hundred.
    """
    if width is None or width >= len(score):
        return np.argsort(-score, kind="stable")
    places = np.flatnonzero(score >= np.partition(score, -width)[-width])
    return places[np.argsort(-score[places], kind="stable")[:width]]


def beam_search(
    model: RecModel,
    trie: Trie,
    prompts: Sequence[Rendered],
    k: int,
    beam_width: int | None = None,
    allowed: Sequence[ItemFilter] | None = None,
    prefixes: PrefixCache | None = None,
) -> list[RankedList]:
    """The k best items for each prompt.

    Args:
        model: the bundle; merged is faster.
        trie: the catalogue's paths.
        prompts: rendered conversations, of any lengths.
        k: number of items; fewer are returned when fewer are allowed or reached, none when nothing is allowed.
        beam_width: paths kept per level; None keeps all, which makes the ranking exact.
        allowed: for each prompt bool[n], a `TrieFilter` that serves many calls, or None for no filter.
        prefixes: prefix cache; segments found there are not computed again, new ones are added.

    Raises:
        RequestError: k or beam_width below 1, different numbers of filters and prompts, an empty prompt, or one longer
            than the model's context.
    """
    if allowed is not None and len(allowed) != len(prompts):
        raise RequestError(f"{len(allowed)} filters for {len(prompts)} prompts; give one for each, or None")
    filters = _trie_filters(trie, allowed or [None] * len(prompts))
    nothing = np.zeros(0, np.float32)
    out = [RankedList(np.zeros(0, np.int64), nothing, {"llm": nothing}) for _ in prompts]
    capacities = {i: _capacity(trie, beam_width, own) for i, own in enumerate(filters) if own is None or own.count}
    found = search_prompts(
        model, trie, prompts, capacities, lambda i, state: beam_search_steps(state, beam_width, k, filters[i]), prefixes
    )
    for i, ranked in found.items():
        out[i] = ranked
    return out


def _trie_filters(trie: Trie, allowed: Sequence[ItemFilter]) -> list[TrieFilter | None]:
    """Convert masks to filters of the trie; a mask that occurs several times is converted once."""
    known: dict[int, TrieFilter] = {}
    for one in allowed:
        if isinstance(one, np.ndarray) and id(one) not in known:
            known[id(one)] = trie.filter(one)
    return [known[id(one)] if isinstance(one, np.ndarray) else one for one in allowed]


def _capacity(trie: Trie, beam_width: int | None, item_filter: TrieFilter | None) -> int:
    """Return the largest number of item tokens that a request can need; the last level needs none."""
    most = min(beam_width or trie.n, trie.n if item_filter is None else item_filter.count)
    return sum(min(trie.nodes(level), most) for level in range(trie.depth - 1))
