"""What a language model says of the paths of a trie behind a prompt, read as far as somebody wants to know.

A search is a generator: it yields the paths that it wants to know more of, best first, and is told how many of them are
known when it goes on. `together` carries out the searches of several requests side by side, and one forward pass reads
for all of them: on one core a token costs 3.5 ms in a pass of 24 and 1.6 in one of 256 (in bfloat16 .6 in one of 64 and
.3 in one of 256). What a pass holds of a request depends on that request alone, so a list does not depend on what else
is ranked, but for the last bits where products have other ones beside other rows (see `packed`).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

from llmrec.attention import KeyValues, Part
from llmrec.beams import embed_items, level_log_probabilities
from llmrec.body import Body
from llmrec.fallback import body_of
from llmrec.model import RecModel
from llmrec.packed import Products
from llmrec.prefill import ROWS, ROWS_ELSEWHERE, Read, check_length, grouped, read
from llmrec.render import Rendered
from llmrec.trie import Trie

# Item tokens of a pass for one request: fewer cost as much, because the reading of all weights takes some thirty
# tokens' time. In bfloat16 64 rows take no longer than 24.
PASS: Mapping[Products, int] = {"float32": 24, "bfloat16": 64}

T = TypeVar("T")
Token = tuple[int, int]  # level and node
# Yields paths int[levels, p], best first; is sent how many of them, from the first on, nothing is left to read of. A
# reading whose prompt was not read begins with that, whatever is wanted, and 0 is sent.
Steps = Generator[np.ndarray, int, T]


@torch.inference_mode()
def together(readings: Sequence[Reading], steps: Sequence[Steps[T]]) -> list[T]:
    """What each search finds in its reading; searches in the same reading take turns.

    Raises:
        RequestError: what a search raises.
    """
    out: dict[int, T] = {}
    waiting = list(range(len(steps)))
    while waiting:
        first = {id(readings[i]): i for i in reversed(waiting)}
        turn = sorted(first.values())
        out |= dict(zip(turn, _side_by_side([readings[i] for i in turn], [steps[i] for i in turn]), strict=True))
        waiting = [i for i in waiting if i not in out]
    return [out[i] for i in range(len(steps))]


def _side_by_side(readings: Sequence[Reading], steps: Sequence[Steps[T]]) -> list[T]:
    wanted: dict[int, np.ndarray] = {}
    out: dict[int, T] = {}

    def go_on(number: int, known: int | None) -> None:
        wanted.pop(number, None)
        try:
            wanted[number] = steps[number].send(known)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            out[number] = end.value

    for number in range(len(steps)):
        go_on(number, None)
    if not wanted:
        return [out[i] for i in range(len(steps))]
    # asked for once: it compares a sample of all weights, ten milliseconds
    body = body_of(readings[0].model.lm, readings[0].model.products)
    while wanted:
        known = dict.fromkeys(wanted, 0)
        new = [i for i in wanted if not readings[i].begun]
        _begin([readings[i] for i in new], body)
        planned = {i: readings[i].plan(wanted[i]) for i in wanted if i not in new}
        known |= {i: count for i, (_, count) in planned.items()}
        _read([readings[i] for i in planned], [tokens for tokens, _ in planned.values()], body)
        for number, count in known.items():
            go_on(number, count)
    return [out[i] for i in range(len(steps))]


def _begin(readings: Sequence[Reading], body: Body) -> None:
    """Read the prompts."""
    if readings:
        model, depth = readings[0].model, readings[0].trie.depth
        prompts = [one.prompt for one in readings]
        found = read(model, body, prompts, [depth] * len(prompts))
        for one, prompt in zip(readings, found, strict=True):
            one.begin(prompt)


def _read(readings: Sequence[Reading], tokens: Sequence[Sequence[Token]], body: Body) -> None:
    """Read each one's tokens, in as few passes as rows allow."""
    some = [i for i, own in enumerate(tokens) if own]
    if not some:
        return
    model = readings[0].model
    limit = ROWS.get(body.layout.device.type, ROWS_ELSEWHERE)
    for group in grouped(some, [len(own) for own in tokens], limit):
        codes, parts = zip(*(readings[i].part(tokens[i]) for i in group), strict=True)
        hidden = body.forward(embed_items(model, np.concatenate(codes)), parts)
        for i, states in zip(group, hidden.split([len(tokens[i]) for i in group]), strict=True):
            readings[i].enter(tokens[i], states)


class Reading:
    """What is known of the paths of a trie given a prompt.

    Attributes:
        path: per level, float32[nodes], log-probability of the path to each node, NaN where it is not known.
        place: (level, node) -> which of the item tokens behind the prompt it is.

    Raises:
        RequestError: an empty prompt, or one longer than the model's context.
    """

    def __init__(self, model: RecModel, trie: Trie, prompt: Rendered) -> None:
        check_length(model, len(prompt.ids), trie.depth)
        self.model, self.trie, self.prompt = model, trie, prompt
        self.full = PASS[model.products]
        self.path = [np.full(trie.nodes(level), np.nan, np.float32) for level in range(trie.depth)]
        self.place: dict[Token, int] = {}
        self._memory: KeyValues | None = None

    @property
    def begun(self) -> bool:
        """Whether the prompt was read."""
        return self._memory is not None

    def begin(self, prompt: Read) -> None:
        """Take what was read of the prompt."""
        self._memory = prompt.memory
        self._choose(0, np.zeros(1, np.int64), prompt.hidden[None])

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

    def plan(self, above: np.ndarray) -> tuple[list[Token], int]:
        """The tokens of the next pass: nodes of paths int[levels, p], best first, that hide what lies below them.

        Also how many of the paths, from the first on, nothing is left to read of afterwards.
        """
        new: dict[Token, None] = {}
        count = 0
        for path in above.T:
            if len(new) >= self.full:
                break
            new.update(dict.fromkeys(self._missing(path)))
            count += 1
        return sorted(new), count

    def enter(self, tokens: Sequence[Token], hidden: torch.Tensor) -> None:
        """Learn what lies below tokens that were read, from their hidden states float32[r, h]."""
        for level in range(self.trie.depth - 1):
            here = [i for i, (at, _) in enumerate(tokens) if at == level]
            if here:
                self._choose(level + 1, np.array([tokens[i][1] for i in here], np.int64), hidden[here])

    def _missing(self, path: np.ndarray) -> list[Token]:
        """The nodes of a path int[levels] that are still to be read: to the last one whose children are a choice."""
        nodes = [(level, int(path[level])) for level in range(min(len(path), self.trie.depth - 1))]
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

    def part(self, tokens: Sequence[Token]) -> tuple[np.ndarray, Part]:
        """Append tokens, ancestors before what lies below them: their item tokens int64[r], and what they see."""
        if self._memory is None:
            raise RuntimeError("the prompt comes before what follows it")
        before, trie, prompt = len(self.place), self.trie, len(self.prompt.ids)
        self.place |= {token: before + i for i, token in enumerate(tokens)}
        level = np.array([one for one, _ in tokens], np.int64)
        codes = np.array([int(trie.code[at][node]) + at * trie.size for at, node in tokens], np.int64)
        seen = np.zeros((len(tokens), prompt + before + len(tokens)), bool)
        seen[:, :prompt] = True
        for i, (at, node) in enumerate(tokens):
            first = int(trie.first[at][node])
            for up in range(at + 1):
                ancestor = int(np.searchsorted(trie.first[up], first, side="right")) - 1
                seen[i, prompt + self.place[up, ancestor]] = True
        self._memory = _with_room(self._memory, len(tokens))
        device = self._memory.positions.device
        positions = torch.from_numpy(level).to(device) + prompt
        return codes, Part(self._memory, positions, torch.from_numpy(seen).to(device))


def _with_room(memory: KeyValues, more: int) -> KeyValues:
    """A sequence that `more` tokens fit behind: this one, or a longer copy."""
    if memory.length + more <= len(memory.positions):
        return memory
    longer = KeyValues(memory.layout, memory.length + max(more, 4 * max(PASS.values())))
    longer.data[:, :, :, : memory.length] = memory.data[:, :, :, : memory.length]
    longer.advance(memory.positions[: memory.length])
    return longer
