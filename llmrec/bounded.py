"""The k best items by a fused score, exactly, without reading the whole trie.

A fused score is `rest + weight * log-probability`, and a path's log-probability only falls as the path goes on: at any
node of the trie `rest + weight * (what the path has so far)` bounds all items below it from above. So the nodes above
the most promising items are read first, some tens a pass, and those that cannot reach the k-th best any more are never
read (branch and bound; Land & Doig, 1960). What comes out is what scoring all items gives, ties included. With the
default model and its two levels one pass of 24 tokens decides a list; a catalogue of 12,000 items on three levels has
four thousand to read.

What a pass holds depends on the request alone, so that its bits do not depend on what else is ranked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from llmrec.attention import KeyValues, Part
from llmrec.beams import embed_items, level_log_probabilities
from llmrec.body import Body
from llmrec.errors import RequestError
from llmrec.fallback import body_of
from llmrec.model import RecModel
from llmrec.prefill import check_length, read
from llmrec.render import Rendered
from llmrec.trie import Trie

# item tokens of a pass: fewer cost as much, because the reading of all weights takes some thirty tokens' time
PASS = 24


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


@torch.inference_mode()
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


@torch.inference_mode()
def search(reading: Reading, rest: np.ndarray, weight: float, k: int, allowed: np.ndarray) -> Best:
    """`best` for a prompt that some of is known for: what is read for one list need not be read for the next.

    Arguments as of `best`. The list is the same whatever was read before, but for the last bits of its scores.
    """
    trie = reading.trie
    if k < 1:
        raise RequestError(f"k is {k}; ask for at least 1 item")
    if np.shape(rest) != (trie.n,) or np.shape(allowed) != (trie.n,):
        raise RequestError(f"scores {np.shape(rest)} and filter {np.shape(allowed)} for a catalogue of {trie.n} items")
    leaves = np.flatnonzero(np.asarray(allowed, bool)[trie.order])
    if not len(leaves):
        none = np.zeros(0, np.float32)
        return Best(np.zeros(0, np.int64), none, none, 0)
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
        reading.read_above(above[:, places[np.argsort(-bound[places], kind="stable")]])
    rows, scores, llm = trie.row(leaves[done]), bound[done], known[done]
    order = np.lexsort((rows, -scores))[:k]
    return Best(rows[order], scores[order], llm[order], reading.tokens)


class Reading:
    """What is known of the paths of a trie given a prompt.

    Attributes:
        path: per level, float32[nodes], log-probability of the path to each node, NaN where it is not known.
        place: (level, node) -> which of the item tokens behind the prompt it is.

    Raises:
        RequestError: an empty prompt, or one longer than the model's context.
    """

    @torch.inference_mode()
    def __init__(self, model: RecModel, trie: Trie, prompt: Rendered) -> None:
        check_length(model, len(prompt.ids), trie.depth)
        self.model, self.trie = model, trie
        self.body: Body = body_of(model.lm)
        self.path = [np.full(trie.nodes(level), np.nan, np.float32) for level in range(trie.depth)]
        self.place: dict[tuple[int, int], int] = {}
        start = read(model, self.body, [prompt], [trie.depth])[0]
        self.memory, self.prompt = start.memory, start.memory.length
        self._choose(0, np.zeros(1, np.int64), start.hidden[None])

    @property
    def tokens(self) -> int:
        """Item tokens that were read."""
        return len(self.place)

    def known(self, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32[m]: the sum along each path as far as it is known; bool[m]: whether that is all of it.

        `above` int[depth, m]: the node of each path on every level.
        """
        out = self.path[0][above[0]]
        for level in range(1, self.trie.depth):
            deeper = self.path[level][above[level]]
            out = np.where(np.isnan(deeper), out, deeper)
        return out, ~np.isnan(self.path[-1][above[-1]])

    def read_above(self, above: np.ndarray) -> None:
        """Read the nodes of paths int[depth, p], best first, that hide their ends, until a pass is full."""
        new: dict[tuple[int, int], None] = {}
        for path in above.T:
            if len(new) >= PASS:
                break
            new.update(dict.fromkeys(self._missing(path)))
        tokens = sorted(new)
        hidden = self._forward(tokens)
        for level in range(self.trie.depth - 1):
            here = [i for i, (at, _) in enumerate(tokens) if at == level]
            if here:
                self._choose(level + 1, np.array([tokens[i][1] for i in here], np.int64), hidden[here])

    def _missing(self, path: np.ndarray) -> list[tuple[int, int]]:
        """The nodes of a path int[depth] that are still to be read: to the last one whose children are a choice."""
        nodes = [(level, int(path[level])) for level in range(self.trie.depth - 1)]
        while nodes and not self._is_choice(*nodes[-1]):
            nodes.pop()
        return [node for node in nodes if node not in self.place]

    def _is_choice(self, level: int, node: int) -> bool:
        first = self.trie.child[level + 1]
        return int(first[node + 1]) - int(first[node]) > 1

    def _choose(self, level: int, nodes: np.ndarray, hidden: torch.Tensor) -> None:
        """Enter the children, of `level`, of nodes int64[r] of the level above, given hidden states float[r, h]."""
        child, logp = level_log_probabilities(self.model, self.trie, level, nodes, hidden)
        if level:
            logp = self.path[level - 1][nodes][:, None] + logp
        there = child >= 0
        nodes = child[there]
        self.path[level][nodes] = logp[there]
        for below in range(level + 1, self.trie.depth):  # an only child is certain: its parent need not be read
            first = self.trie.child[below]
            alone = nodes[first[nodes + 1] - first[nodes] == 1]
            self.path[below][first[alone]] = self.path[below - 1][alone]
            nodes = first[alone].astype(np.int64)

    def _forward(self, tokens: list[tuple[int, int]]) -> torch.Tensor:
        """Append (level, node) tokens, ancestors before what lies below them; hidden states float32[r, h]."""
        before, trie = len(self.place), self.trie
        self.place |= {token: before + i for i, token in enumerate(tokens)}
        level = np.array([one for one, _ in tokens], np.int64)
        codes = np.array([int(trie.code[at][node]) + at * trie.size for at, node in tokens], np.int64)
        seen = np.zeros((len(tokens), self.prompt + before + len(tokens)), bool)
        seen[:, : self.prompt] = True
        for i, (at, node) in enumerate(tokens):
            first = int(trie.first[at][node])
            for up in range(at + 1):
                ancestor = int(np.searchsorted(trie.first[up], first, side="right")) - 1
                seen[i, self.prompt + self.place[up, ancestor]] = True
        self.memory = _with_room(self.memory, self.body, len(tokens))
        device = self.memory.positions.device
        part = Part(self.memory, torch.from_numpy(level).to(device) + self.prompt, torch.from_numpy(seen).to(device))
        return self.body.forward(embed_items(self.model, codes), [part])


def _with_room(memory: KeyValues, body: Body, more: int) -> KeyValues:
    """A sequence that `more` tokens fit behind: this one, or a longer copy."""
    if memory.length + more <= len(memory.positions):
        return memory
    longer = KeyValues(body.layout, memory.length + max(more, 4 * PASS))
    longer.data[:, :, :, : memory.length] = memory.data[:, :, :, : memory.length]
    longer.advance(memory.positions[: memory.length])
    return longer
