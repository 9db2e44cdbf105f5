"""Items and words out of the language model.

`items`: beams over the trie with one prefill for any number of beams. The beams of a request are not copies of its
prompt: they are further tokens of the same sequence, and a tree mask lets each see the prompt and its own ancestors
alone. Scores are normalised over the trie (see `beams`). The last level needs no forward pass: its codes are scored
from the beams' hidden states. Paths of the trie are all that can come out.

`score`: the same log-probabilities for given items, over nothing but their own paths (see `candidates`).

`stream`: words (see `streaming`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from llmrec.attention import Part
from llmrec.beams import Beams, embed_items, extend
from llmrec.body import Body
from llmrec.candidates import score
from llmrec.errors import RequestError
from llmrec.fallback import body_of
from llmrec.model import RecModel
from llmrec.prefill import Read, check_length, grouped, read
from llmrec.prefix import PrefixCache
from llmrec.render import Rendered
from llmrec.streaming import stream
from llmrec.trie import Narrowed, Trie

# tokens whose keys and values are held at once; a longer list of requests is worked off in groups
TOGETHER = 8192

Filter = np.ndarray | Narrowed | None


@dataclass(frozen=True, eq=False)
class Decoded:
    """Rows int64[m], best first, and their log-probabilities float32[m]; m may be less than was asked for."""

    rows: np.ndarray
    scores: np.ndarray


@torch.inference_mode()
def items(
    model: RecModel,
    trie: Trie,
    prompts: Sequence[Rendered],
    k: int,
    beams: int | None = None,
    allowed: Sequence[Filter] | None = None,
    prefixes: PrefixCache | None = None,
) -> list[Decoded]:
    """The k best items for each prompt.

    Args:
        model: the bundle; merged is faster.
        trie: the catalogue's paths.
        prompts: rendered conversations, of any lengths.
        k: how many items; fewer come back when fewer are allowed or reached, none when nothing is allowed.
        beams: paths kept a level; None keeps all, which makes the ranking exact (teacher-forced scoring of all items).
        allowed: for each prompt bool[n], or the same narrowed by the trie once for many calls, or None for no filter.
        prefixes: what was read before is taken from here, and what is read is left here.

    Raises:
        RequestError: k or beams below 1, a number of filters that is not that of the prompts, an empty prompt, or one
            longer than the model's context.
    """
    if k < 1 or (beams is not None and beams < 1):
        raise RequestError(f"k and beams must be at least 1, got k={k}, beams={beams}")
    if allowed is not None and len(allowed) != len(prompts):
        raise RequestError(f"{len(allowed)} filters for {len(prompts)} prompts; give one for each, or None")
    filters = _narrowed(trie, allowed or [None] * len(prompts))
    for prompt in prompts:
        check_length(model, len(prompt.ids), trie.depth)
    out = [Decoded(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in prompts]
    open_ = [i for i, narrowed in enumerate(filters) if narrowed is None or narrowed.count]
    body = body_of(model.lm, model.products)
    room = [_room(trie, beams, narrowed) for narrowed in filters]
    for group in grouped(open_, [len(p.ids) + more for p, more in zip(prompts, room, strict=True)], TOGETHER):
        reads = read(model, body, [prompts[i] for i in group], [room[i] for i in group], prefixes)
        found = _search(model, body, trie, reads, [filters[i] for i in group], k, beams)
        for i, decoded in zip(group, found, strict=True):
            out[i] = decoded
    return out


def _narrowed(trie: Trie, allowed: Sequence[Filter]) -> list[Narrowed | None]:
    """Filters as parts of the trie; one that is given several times is narrowed once."""
    known: dict[int, Narrowed] = {}
    for one in allowed:
        if isinstance(one, np.ndarray) and id(one) not in known:
            known[id(one)] = trie.narrow(one)
    return [known[id(one)] if isinstance(one, np.ndarray) else one for one in allowed]


def _room(trie: Trie, beams: int | None, narrowed: Narrowed | None) -> int:
    """How many beam tokens a request can need: none for the last level."""
    most = min(beams or trie.n, trie.n if narrowed is None else narrowed.count)
    return sum(min(trie.nodes(level), most) for level in range(trie.depth - 1))


def _search(
    model: RecModel,
    body: Body,
    trie: Trie,
    reads: Sequence[Read],
    filters: Sequence[Narrowed | None],
    k: int,
    width: int | None,
) -> list[Decoded]:
    hidden = torch.stack([one.hidden for one in reads])
    beams = Beams.roots(len(reads))
    tree = _Tree(model, body, reads)
    for level in range(trie.depth):
        last = level == trie.depth - 1
        beams = extend(model, trie, level, beams, hidden, filters, k if last else width)
        if not last:
            hidden = tree.grow(beams, trie.code[level][beams.node].astype(np.int64) + level * trie.size)
    bounds = np.searchsorted(beams.request, np.arange(len(reads) + 1))
    return [_decoded(trie, beams.node[a:b], beams.score[a:b]) for a, b in pairwise(bounds)]


def _decoded(trie: Trie, node: np.ndarray, score: np.ndarray) -> Decoded:
    rows = trie.row(node)
    order = np.lexsort((rows, -score))  # ties by row, as every ranker does
    return Decoded(rows[order], score[order])


class _Tree:
    """The beam tokens behind each request's prompt: which of them are ancestors of which."""

    def __init__(self, model: RecModel, body: Body, reads: Sequence[Read]) -> None:
        self.model, self.body, self.memories = model, body, [one.memory for one in reads]
        self.prompt = [memory.length for memory in self.memories]
        self.seen = [torch.zeros(1, 0, dtype=torch.bool, device=body.layout.device) for _ in reads]
        self.level = 0

    def grow(self, beams: Beams, item_tokens: np.ndarray) -> torch.Tensor:
        """Append one token a beam, counted from the first item token; hidden states float32[r, h]."""
        bounds = np.searchsorted(beams.request, np.arange(len(self.memories) + 1))
        parts = []
        for number, memory in enumerate(self.memories):
            parent = torch.from_numpy(beams.parent[bounds[number] : bounds[number + 1]])
            self.seen[number] = _seen(self.seen[number], parent)
            positions = torch.full((len(parent),), self.prompt[number] + self.level, device=memory.positions.device)
            parts.append(Part(memory, positions, _with_prompt(self.seen[number], self.prompt[number])))
        self.level += 1
        return self.body.forward(embed_items(self.model, item_tokens), parts)


def _seen(seen: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    """bool[w, t + w]: children see themselves and what their parents int64[w] saw, of `seen` bool[p, t]."""
    own = torch.eye(len(parent), dtype=torch.bool, device=seen.device)
    return torch.cat([seen[parent.to(seen.device)], own], dim=1)


def _with_prompt(seen: torch.Tensor, prompt: int) -> torch.Tensor:
    return torch.cat([seen.new_ones(len(seen), prompt), seen], dim=1)


__all__ = ["Decoded", "PrefixCache", "items", "score", "stream"]
