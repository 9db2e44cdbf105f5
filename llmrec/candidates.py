"""Log-probabilities of given items, exactly, in one pass over the paths that they share.

What is computed depends on the set of candidates alone, never on the order in which they are listed: scores are equal
to the bit however they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llmrec.attention import Part
from llmrec.beams import embed_items, level_log_probabilities
from llmrec.body import Body
from llmrec.errors import RequestError
from llmrec.fallback import body_of
from llmrec.model import RecModel
from llmrec.prefill import Read, check_length, grouped, read
from llmrec.prefix import PrefixCache
from llmrec.render import Rendered
from llmrec.trie import Trie

# leaves a pass: the nodes above them are tokens that see each other by a mask, which grows with their square
LEAVES = 1024
# tokens whose keys and values are held at once; a longer list of prompts is worked off in groups
TOGETHER = 8192


@torch.inference_mode()
def score(
    model: RecModel,
    trie: Trie,
    prompts: Sequence[Rendered],
    candidates: Sequence[np.ndarray],
    prefixes: PrefixCache | None = None,
) -> list[np.ndarray]:
    """The log-probability of each candidate given its prompt, as `decode.items` scores it.

    Args:
        model: the bundle; merged is faster.
        trie: the catalogue's paths.
        prompts: rendered conversations, of any lengths.
        candidates: for each prompt rows int[m], in any order, any of them several times.
        prefixes: what was read before is taken from here, and what is read is left here.

    Returns:
        For each prompt float32[m], in the order of its candidates.

    Raises:
        RequestError: a row that is not in the catalogue, another number of lists than of prompts, an empty prompt, or
            one longer than the model's context.
    """
    if len(candidates) != len(prompts):
        raise RequestError(f"{len(candidates)} lists of candidates for {len(prompts)} prompts; give one for each")
    rows = [_checked(trie, one) for one in candidates]
    for prompt in prompts:
        check_length(model, len(prompt.ids), trie.depth)
    body = body_of(model.lm, model.products)
    unique = [np.unique(trie.leaves(one)) for one in rows]
    room = [min(len(leaves), LEAVES) * (trie.depth - 1) for leaves in unique]
    out = [np.zeros(0, np.float32)] * len(prompts)
    some = [i for i, leaves in enumerate(unique) if len(leaves)]
    for group in grouped(some, [len(p.ids) + more for p, more in zip(prompts, room, strict=True)], TOGETHER):
        reads = read(model, body, [prompts[i] for i in group], [room[i] for i in group], prefixes)
        for i, scores in zip(group, _scores(model, body, trie, reads, [unique[i] for i in group]), strict=True):
            out[i] = scores[np.searchsorted(unique[i], trie.leaves(rows[i]))]
    return out


def _checked(trie: Trie, rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.int64).reshape(-1)
    if len(rows) and not (rows.min() >= 0 and rows.max() < trie.n):
        bad = int(rows[(rows < 0) | (rows >= trie.n)][0])
        raise RequestError(f"candidate row {bad} is not in the catalogue of {trie.n} items")
    return rows


@dataclass(frozen=True, eq=False)
class _Paths:
    """The part of the trie above some leaves, as a tree of tokens.

    Attributes:
        nodes: per level but the last, int64[w], the nodes on the way.
        place: per level, int64[m], which of the level's nodes each leaf lies below; of the last level the leaf itself.
        tokens: int64[t], the nodes' item tokens counted from the first one, level after level.
        level: int64[t].
        seen: bool[t, t], each node's ancestors and itself.
    """

    nodes: list[np.ndarray]
    place: list[np.ndarray]
    tokens: np.ndarray
    level: np.ndarray
    seen: np.ndarray


def _paths(trie: Trie, leaves: np.ndarray) -> _Paths:
    above = trie.ancestors(leaves)
    found = [np.unique(line, return_index=True, return_inverse=True) for line in above[:-1]]
    widths = [len(nodes) for nodes, _, _ in found]
    start = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
    seen = np.eye(start[-1], dtype=bool)
    for level in range(1, len(found)):
        parent = found[level - 1][2][found[level][1]] + start[level - 1]
        seen[start[level] : start[level + 1]] |= seen[parent]
    codes = [trie.code[level][nodes].astype(np.int64) + level * trie.size for level, (nodes, _, _) in enumerate(found)]
    return _Paths(
        [nodes for nodes, _, _ in found],
        [inverse for _, _, inverse in found] + [above[-1]],
        np.concatenate([*codes, np.zeros(0, np.int64)]),
        np.repeat(np.arange(len(widths)), widths),
        seen,
    )


def _scores(
    model: RecModel, body: Body, trie: Trie, reads: Sequence[Read], leaves: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """float32 for each request's sorted leaves."""
    out: list[list[np.ndarray]] = [[] for _ in reads]
    for first in range(0, max(len(one) for one in leaves), LEAVES):
        some = [i for i, one in enumerate(leaves) if first < len(one)]
        paths = [_paths(trie, leaves[i][first : first + LEAVES]) for i in some]
        hidden = _forward(model, body, [reads[i] for i in some], paths)
        for i, path, states in zip(some, paths, hidden, strict=True):
            out[i].append(_along(model, trie, path, torch.cat([reads[i].hidden[None], states])))
    return [np.concatenate(one) for one in out]


def _forward(model: RecModel, body: Body, reads: Sequence[Read], paths: Sequence[_Paths]) -> list[torch.Tensor]:
    """Hidden states float32[t, h] of every request's nodes; the sequences are left as they were."""
    counts = [len(path.tokens) for path in paths]
    if not sum(counts):  # one level: the prompt says it all
        return [read.hidden[:0].reshape(0, len(read.hidden)) for read in reads]
    parts = []
    for one, path in zip(reads, paths, strict=True):
        length, device = one.memory.length, body.layout.device
        seen = torch.from_numpy(path.seen).to(device)
        visible = torch.cat([seen.new_ones(len(seen), length), seen], dim=1)
        parts.append(Part(one.memory, torch.from_numpy(path.level).to(device) + length, visible))
    hidden = body.forward(embed_items(model, np.concatenate([path.tokens for path in paths])), parts)
    for part in parts:
        part.memory.length -= len(part)
    return list(hidden.split(counts))


def _along(model: RecModel, trie: Trie, path: _Paths, hidden: torch.Tensor) -> np.ndarray:
    """float32[m]: the sums along the paths; `hidden` float32[1 + t, h], the prompt's state before the nodes'."""
    m = len(path.place[-1])
    total = np.zeros(m, np.float32)
    node, at, start = np.zeros(1, np.int64), np.zeros(m, np.int64), 0
    for level in range(trie.depth):
        child, logp = level_log_probabilities(model, trie, level, node, hidden[start : start + len(node)])
        last = level == trie.depth - 1
        target = path.place[-1] if last else path.nodes[level][path.place[level]]
        total += logp[at, target - child[at, 0]]  # a node's children are numbered in a row
        if not last:
            start += len(node)
            node, at = path.nodes[level], path.place[level]
    return total
