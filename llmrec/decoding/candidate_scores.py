"""Exact log-probabilities of given candidate items under the language model; shared prefixes of paths are scored once.

The computation depends only on the set of candidates, so scores have the same bits for every order of the candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.decoding.trie_scoring import FULL_PASS_TOKENS, DecodeState, PathRequest, Search, request_all, search_prompts
from llmrec.errors import RequestError
from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Rendered
from llmrec.lm.runtime.prefix_cache import PrefixCache
from llmrec.semantic_ids.trie import Trie


def leaf_score_steps(state: DecodeState, leaves: np.ndarray) -> Search[np.ndarray]:
    """The search for the log-probabilities float32[m] of leaves int64[m], which must be ascending and distinct."""
    if not state.prefilled:
        yield PathRequest(np.zeros((state.trie.depth, 0), np.int64))
    yield from request_all(state.trie.ancestors(leaves))
    scores: np.ndarray = state.path[-1][leaves]
    return scores


def score_candidates(
    model: RecModel,
    trie: Trie,
    prompts: Sequence[Rendered],
    candidates: Sequence[np.ndarray],
    prefixes: PrefixCache | None = None,
) -> list[np.ndarray]:
    """The log-probability of each candidate given its prompt, as `beam_search` scores it.

    Args:
        model: the bundle; merged is faster.
        trie: the catalogue's paths.
        prompts: rendered conversations, of any lengths.
        candidates: for each prompt, rows int[m] in any order; repetitions are allowed.
        prefixes: prefix cache; segments found there are not computed again, new ones are added.

    Returns:
        For each prompt float32[m], in the order of its candidates.

    Raises:
        RequestError: a row that is not in the catalogue, different numbers of candidate lists and prompts, an empty
            prompt, or one longer than the model's context.
    """
    if len(candidates) != len(prompts):
        raise RequestError(f"{len(candidates)} lists of candidates for {len(prompts)} prompts; give one for each")
    leaves = [trie.leaves(_checked(trie, one)) for one in candidates]
    unique = [np.unique(own) for own in leaves]
    capacities = {i: min(len(own), FULL_PASS_TOKENS) * (trie.depth - 1) for i, own in enumerate(unique) if len(own)}
    found = search_prompts(
        model, trie, prompts, capacities, lambda i, state: leaf_score_steps(state, unique[i]), prefixes
    )
    out = [np.zeros(0, np.float32)] * len(prompts)
    for i, scores in found.items():
        out[i] = scores[np.searchsorted(unique[i], leaves[i])]
    return out


def _checked(trie: Trie, rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.int64).reshape(-1)
    if len(rows) and not (rows.min() >= 0 and rows.max() < trie.n):
        bad = int(rows[(rows < 0) | (rows >= trie.n)][0])
        raise RequestError(f"candidate row {bad} is not in the catalogue of {trie.n} items")
    return rows
