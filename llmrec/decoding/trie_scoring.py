"""The scoring engine of constrained decoding: log-probabilities of trie paths after a prompt, computed on demand.

Every search over the catalogue uses it: beam search (`beam_search`), branch and bound (`exact_search`) and scores of
given candidates (`candidate_scores`). A search is a generator. It yields the paths that it wants scored, best first,
and is sent how many of them are fully scored. `run_searches` runs the searches of several requests side by side, so
that they share forward passes. Cost of a token on one core:

| | float32, 24 rows | float32, 256 rows | bfloat16, 64 rows | bfloat16, 256 rows |
|---|---|---|---|---|
| ms | 3.5 | 1.6 | .6 | .3 |

Which tokens of a request a pass contains depends on that request alone. So a list does not depend on the other requests
in a batch, except for the last bits where a matrix product varies with the number of rows (see `onednn`).

Beams are not copies of the prompt: their item tokens are appended to the same sequence, and a tree mask lets each token
attend to the prompt and its own ancestors only. The last level needs no forward pass: its codes are scored from the
hidden states of the level above.

A path's log-probability is the sum over its levels of a log-softmax over the children that exist in the catalogue, of
the model's logits plus the trie's prior. It is a softmax over the full vocabulary, confined to the trie and
renormalised within every node: the probabilities of all items sum to one, as in training. A filter removes paths
afterwards, and so changes no score.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Rendered
from llmrec.lm.runtime.hf_backend import build_transformer
from llmrec.lm.runtime.kv_cache import Chunk, KVCache
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.lm.runtime.prefill import MAX_ROWS, MAX_ROWS_ACCELERATOR, Prefilled, check_length, group_by_size, prefill
from llmrec.lm.runtime.prefix_cache import PrefixCache
from llmrec.lm.runtime.transformer import Transformer
from llmrec.semantic_ids.trie import Trie

# Most item tokens per pass for a request that may not need them all. Fewer would cost as much, because reading all
# weights takes about as long as thirty tokens. In bfloat16, 64 rows take no longer than 24.
PASS_TOKENS: Mapping[MatmulDtype, int] = {"float32": 24, "bfloat16": 64}
# Most item tokens per pass for a request that needs all its paths; the mask grows with the square of this number.
FULL_PASS_TOKENS = 512
# Most tokens whose keys and values are in memory at once; longer lists of requests are processed in groups.
MAX_GROUP_TOKENS = 8192

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PathRequest:
    """The paths that a search wants scored next.

    Attributes:
        paths: int64[levels, p], the nodes of each path from the first level on; the most promising path first.
        exhaustive: the search needs all of them, so a pass may be as large as possible.
    """

    paths: np.ndarray
    exhaustive: bool = False


# A search yields requests and is sent how many of the paths, counted from the first, are fully scored. If the prompt of
# its state is not prefilled yet, the first step prefills it, whatever was requested, and sends 0.
Search = Generator[PathRequest, int, T]


def request_all(paths: np.ndarray) -> Search[None]:
    """Part of a search: request the paths int64[levels, p] until all of them are scored."""
    while paths.shape[1]:
        paths = paths[:, (yield PathRequest(paths, exhaustive=True)) :]


@torch.inference_mode()
def run_searches(
    states: Sequence[DecodeState], searches: Sequence[Search[T]], prefixes: PrefixCache | None = None
) -> list[T]:
    """Run searches side by side and return their results; searches that share a state take turns.

    Args:
        states: one for each search, all of one model.
        searches: generators, not yet started.
        prefixes: prefix cache; segments found there are not computed again, new ones are added.

    Raises:
        RequestError: what a search raises.
    """
    out: dict[int, T] = {}
    waiting = list(range(len(searches)))
    while waiting:
        first = {id(states[i]): i for i in reversed(waiting)}
        turn = sorted(first.values())
        found = _run_batch([states[i] for i in turn], [searches[i] for i in turn], prefixes)
        out |= dict(zip(turn, found, strict=True))
        waiting = [i for i in waiting if i not in out]
    return [out[i] for i in range(len(searches))]


def search_prompts(
    model: RecModel,
    trie: Trie,
    prompts: Sequence[Rendered],
    capacities: Mapping[int, int],
    search_of: Callable[[int, DecodeState], Search[T]],
    prefixes: PrefixCache | None = None,
) -> dict[int, T]:
    """Run one search per prompt, in groups whose keys and values fit into memory together.

    Args:
        model: the bundle; merged is faster.
        trie: the catalogue's paths.
        prompts: rendered conversations, of any lengths; all are checked, even those that are not searched.
        capacities: index of a prompt to search -> number of item tokens that its search is expected to need.
        search_of: makes the search of a prompt from its index and its fresh state.
        prefixes: prefix cache; segments found there are not computed again, new ones are added.

    Returns:
        The result of each search, by the index of its prompt.

    Raises:
        RequestError: an empty prompt, one longer than the model's context, or what a search raises.
    """
    for prompt in prompts:
        check_length(model, len(prompt.ids), trie.depth)
    sizes = [len(prompt.ids) + capacities.get(i, 0) for i, prompt in enumerate(prompts)]
    out: dict[int, T] = {}
    for group in group_by_size(list(capacities), sizes, MAX_GROUP_TOKENS):
        states = [DecodeState(model, trie, prompts[i], capacities[i]) for i in group]
        searches = [search_of(i, state) for i, state in zip(group, states, strict=True)]
        out |= dict(zip(group, run_searches(states, searches, prefixes), strict=True))
    return out


def _run_batch(states: Sequence[DecodeState], searches: Sequence[Search[T]], prefixes: PrefixCache | None) -> list[T]:
    wanted: dict[int, PathRequest] = {}
    out: dict[int, T] = {}

    def go_on(number: int, known: int | None) -> None:
        wanted.pop(number, None)
        try:
            wanted[number] = searches[number].send(known)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            out[number] = end.value

    for number in range(len(searches)):
        go_on(number, None)
    if not wanted:
        return [out[i] for i in range(len(searches))]
    # built once per batch: it compares a sample of all weights, which takes ten milliseconds
    transformer = build_transformer(states[0].model.lm, states[0].model.matmul_dtype)
    while wanted:
        known = dict.fromkeys(wanted, 0)
        new = [i for i in wanted if not states[i].prefilled]
        _prefill_prompts([states[i] for i in new], transformer, prefixes)
        planned = {i: states[i].plan(wanted[i]) for i in wanted if i not in new}
        known |= {i: count for i, (_, count) in planned.items()}
        _run_passes([states[i] for i in planned], [tokens for tokens, _ in planned.values()], transformer)
        for number, count in known.items():
            go_on(number, count)
    return [out[i] for i in range(len(searches))]


def _prefill_prompts(states: Sequence[DecodeState], transformer: Transformer, prefixes: PrefixCache | None) -> None:
    """Prefill the prompts of these states."""
    if states:
        model, depth = states[0].model, states[0].trie.depth
        found = prefill(
            model, transformer, [one.prompt for one in states], [one.capacity for one in states], prefixes, follow=depth
        )
        for one, prompt in zip(states, found, strict=True):
            one.start(prompt)


def _run_passes(states: Sequence[DecodeState], tokens: Sequence[TreeTokens], transformer: Transformer) -> None:
    """Run the tokens of several states through the model, in as few passes as the row limit allows."""
    some = [i for i, own in enumerate(tokens) if len(own)]
    if not some:
        return
    model = states[0].model
    limit = MAX_ROWS.get(transformer.layout.device.type, MAX_ROWS_ACCELERATOR)
    for group in group_by_size(some, [len(own) for own in tokens], limit):
        codes, chunks = zip(*(states[i].append(tokens[i]) for i in group), strict=True)
        embedded = model.items(torch.from_numpy(np.concatenate(codes)).to(model.device))
        hidden = transformer.forward(embedded, chunks)
        for i, rows in zip(group, hidden.split([len(tokens[i]) for i in group]), strict=True):
            states[i].update(tokens[i], rows)


@dataclass(frozen=True, eq=False)
class TreeTokens:
    """Nodes of the trie above its last level that go through the model as item tokens, ancestors first.

    Attributes:
        level: int64[t], ascending.
        node: int64[t], ascending within a level.
    """

    level: np.ndarray
    node: np.ndarray

    def __len__(self) -> int:
        return len(self.level)


class DecodeState:
    """Log-probabilities of trie paths after a prompt, as far as they are computed; later searches reuse them.

    Args:
        model: the bundle; merged is faster.
        trie: the catalogue's paths.
        prompt: the rendered request.
        capacity: number of item tokens that a search is expected to need; the cache grows when it needs more.

    Attributes:
        path: per level, float32[nodes], the log-probability of the path to each node; NaN where it is not known.

    Raises:
        RequestError: an empty prompt, or one longer than the model's context.
    """

    def __init__(self, model: RecModel, trie: Trie, prompt: Rendered, capacity: int = 0) -> None:
        check_length(model, len(prompt.ids), trie.depth)
        self.model, self.trie, self.prompt, self.capacity = model, trie, prompt, max(capacity, trie.depth)
        self.path = [np.full(trie.nodes(level), np.nan, np.float32) for level in range(trie.depth)]
        # node -> index of its item token after the prompt; -1 for nodes that did not go through the model
        self._token_index = [np.full(trie.nodes(level), -1, np.int32) for level in range(trie.depth - 1)]
        self._cache: KVCache | None = None
        self.tokens = 0

    @property
    def prefilled(self) -> bool:
        """Whether the prompt has been prefilled."""
        return self._cache is not None

    def start(self, prompt: Prefilled) -> None:
        """Take over a prefilled prompt."""
        self._cache = prompt.cache
        self._score_children(0, np.zeros(1, np.int64), prompt.hidden[None])

    def path_scores(self, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return float32[m], the log-probability of each path as far as computed, and bool[m], whether it is complete.

        `above` is int[depth, m], the node of each path on every level.
        """
        out = self.path[0][above[0]]
        for level in range(1, self.trie.depth):
            deeper = self.path[level][above[level]]
            out = np.where(np.isnan(deeper), out, deeper)
        return out, ~np.isnan(self.path[-1][above[-1]])

    def plan(self, wanted: PathRequest) -> tuple[TreeTokens, int]:
        """Return the item tokens of the next pass: nodes on the requested paths whose children are not scored yet.

        Also returns how many of the paths, counted from the first, are fully scored after that pass.
        """
        most = FULL_PASS_TOKENS if wanted.exhaustive else PASS_TOKENS[self.model.matmul_dtype]
        paths = wanted.paths[: self.trie.depth - 1]
        levels, offset = len(paths), np.cumsum([0, *(len(place) for place in self._token_index)])
        found: list[np.ndarray] = []
        count, total = 0, 0
        while count < wanted.paths.shape[1] and total < most:
            chunk = paths[:, count : count + max(most, 64)]
            missing = np.zeros(chunk.shape, bool)
            deeper = np.zeros(chunk.shape[1], bool)
            for level in reversed(range(levels)):  # nodes down to the deepest one of a path with several children
                deeper |= self.trie.is_choice(level)[chunk[level]]
                missing[level] = deeper & (self._token_index[level][chunk[level]] == -1)
            of_path, of_level = np.nonzero(missing.T)
            key, first = np.unique(offset[of_level] + chunk[of_level, of_path], return_index=True)
            new_at = of_path[first]
            new = np.bincount(new_at, minlength=chunk.shape[1])
            taken = int((total + np.cumsum(new) - new < most).sum())
            found.append(key[new_at < taken])
            for level in range(levels):  # mark them as planned, so that the next chunk does not plan them again
                self._token_index[level][self._of(level, found[-1], offset)] = len(self._token_index[level])
            count, total = count + taken, total + len(found[-1])
            if taken < chunk.shape[1]:
                break
        keys = np.sort(np.concatenate([np.zeros(0, np.int64), *found]))
        level_of = np.searchsorted(offset, keys, side="right") - 1
        return TreeTokens(level_of, keys - offset[level_of]), count

    @staticmethod
    def _of(level: int, keys: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The nodes of one level among keys that number the nodes of all levels consecutively."""
        nodes: np.ndarray = keys[(keys >= offset[level]) & (keys < offset[level + 1])] - offset[level]
        return nodes

    def update(self, tokens: TreeTokens, hidden: torch.Tensor) -> None:
        """Score the children of tokens from the tokens' hidden states float32[t, h]."""
        for level in range(self.trie.depth - 1):
            start, stop = np.searchsorted(tokens.level, [level, level + 1])
            if stop > start:
                self._score_children(level + 1, tokens.node[start:stop], hidden[start:stop])

    def _score_children(self, level: int, nodes: np.ndarray, hidden: torch.Tensor) -> None:
        """Score the children on `level` of nodes int64[r] of the level above, from their hidden states float[r, h]."""
        child, logp = self._level_log_probabilities(level, nodes, hidden)
        if level:
            logp = self.path[level - 1][nodes][:, None] + logp
        there = child >= 0
        nodes = child[there]
        self.path[level][nodes] = logp[there]
        # an only child has probability 1, so its parent need not go through the model
        for below in range(level + 1, self.trie.depth):
            first = self.trie.child[below]
            alone = nodes[first[nodes + 1] - first[nodes] == 1]
            self.path[below][first[alone]] = self.path[below - 1][alone]
            nodes = first[alone].astype(np.int64)

    def _level_log_probabilities(
        self, level: int, nodes: np.ndarray, hidden: torch.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Children of nodes int64[r] of the level above and their log-probabilities given hidden states float[r, h].

        Returns child nodes int64[r, width], padded with -1, and log-probabilities float32[r, width], padded with -inf.
        """
        child = self.trie.ranges(level, nodes)
        safe = np.maximum(child, 0)
        codes = torch.from_numpy(self.trie.code[level][safe].astype(np.int64))
        prior = torch.from_numpy(self.trie.priors(level, child))
        logits = self.model.level_logits(hidden, level).float().cpu()
        logp: np.ndarray = torch.log_softmax(logits.gather(1, codes) + prior, dim=-1).numpy()
        return child, logp

    def append(self, tokens: TreeTokens) -> tuple[np.ndarray, Chunk]:
        """Append tokens to the sequence; return their ids int64[t], relative to the first item token, and the chunk."""
        if self._cache is None:
            raise RuntimeError("item tokens need a prefilled prompt")
        before, trie, prompt = self.tokens, self.trie, len(self.prompt.ids)
        self.tokens += len(tokens)
        codes = np.zeros(len(tokens), np.int64)
        seen = np.zeros((len(tokens), prompt + self.tokens), bool)
        seen[:, :prompt] = True
        for level in range(trie.depth - 1):
            here = np.flatnonzero(tokens.level == level)
            nodes = tokens.node[here]
            codes[here] = trie.code[level][nodes].astype(np.int64) + level * trie.size
            self._token_index[level][nodes] = before + here
            for up in range(level + 1):
                ancestor = np.searchsorted(trie.first[up], trie.first[level][nodes], side="right") - 1
                seen[here, prompt + self._token_index[up][ancestor]] = True
        self._cache = _with_capacity(self._cache, len(tokens))
        device = self._cache.positions.device
        positions = torch.from_numpy(tokens.level).to(device) + prompt
        return codes, Chunk(self._cache, positions, torch.from_numpy(seen).to(device))


def _with_capacity(cache: KVCache, more: int) -> KVCache:
    """Return a KV cache with room for `more` tokens: the given one, or a longer copy."""
    if cache.length + more <= len(cache.positions):
        return cache
    longer = KVCache(cache.layout, cache.length + max(more, 4 * max(PASS_TOKENS.values())))
    longer.data[:, :, :, : cache.length] = cache.data[:, :, :, : cache.length]
    longer.advance(cache.positions[: cache.length])
    return longer
