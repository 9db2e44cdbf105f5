"""Traffic to batches: rendered examples, mixed by token share, bucketed by length, with their targets resolved.

Rows of a batch have like lengths and stand left-aligned, so a causal mask alone keeps the padding out and every row is
one document: nothing attends across documents, no block-diagonal mask is needed, and padding stays below a few per
cent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from llmrec.finetune.tasks import TASKS, World
from llmrec.render import Rendered, Renderer
from llmrec.trie import Trie


@dataclass(frozen=True, eq=False)
class Targets:
    """What one kind of position is to predict.

    Attributes:
        line, position: int64[m], the hidden state that predicts.
        answer: int64[m], the code (item levels) or the word id.
        prior: float32[m, size], log mass of the codes that may follow there, -inf for the others; None for words.
    """

    line: np.ndarray
    position: np.ndarray
    answer: np.ndarray
    prior: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Batch:
    """Right-padded ids int64[b, t], user vectors float32[r, d] in the order of their slots, targets by kind.

    `words` are the word targets, `levels[l]` those of level l of the semantic IDs.
    """

    ids: np.ndarray
    users: np.ndarray
    words: Targets
    levels: tuple[Targets, ...]

    @property
    def tokens(self) -> int:
        """Padded size: what is computed."""
        return int(self.ids.size)


def round_of(
    world: World, renderer: Renderer, shares: Mapping[str, float], tokens: int, seed: int, number: int
) -> list[Rendered]:
    """About `tokens` tokens of traffic, each task with its share of them, shuffled; a function of (seed, number)."""
    out: list[Rendered] = []
    for place, name in enumerate(sorted(shares)):
        budget = tokens * shares[name] / sum(shares.values())
        examples = TASKS[name](world, np.random.default_rng([seed, number, place]))
        while budget > 0:
            example = next(examples)
            rendered = example if isinstance(example, Rendered) else renderer.render(example)
            out.append(rendered)
            budget -= len(rendered.ids)
    return [out[i] for i in np.random.default_rng([seed, number, 1_000_000]).permutation(len(out))]


def batches(examples: list[Rendered], trie: Trie, renderer: Renderer, tokens: int, seed: int) -> list[Batch]:
    """Group by length into batches of at most `tokens` padded tokens, in shuffled order."""
    order = np.argsort([len(e.ids) for e in examples], kind="stable")
    groups: list[list[Rendered]] = [[]]
    for i in order:
        longest = len(examples[i].ids)
        if groups[-1] and longest * (len(groups[-1]) + 1) > tokens:
            groups.append([])
        groups[-1].append(examples[i])
    shuffled = np.random.default_rng([seed, 2_000_000]).permutation(len(groups))
    return [collate(groups[i], trie, renderer) for i in shuffled if groups[i]]


def stream(
    world: World,
    renderer: Renderer,
    trie: Trie,
    shares: Mapping[str, float],
    round_tokens: int,
    batch_tokens: int,
    seed: int,
) -> Iterator[Batch]:
    """Batches for ever; the n-th one depends on the arguments alone, which is what makes resuming exact."""
    number = 0
    while True:
        examples = round_of(world, renderer, shares, round_tokens, seed, number)
        yield from batches(examples, trie, renderer, batch_tokens, seed + number)
        number += 1


def collate(examples: list[Rendered], trie: Trie, renderer: Renderer) -> Batch:
    """One batch from rendered examples."""
    vocab = renderer.vocab
    ids = np.zeros((len(examples), max(len(e.ids) for e in examples)), np.int64)
    loss = np.zeros(ids.shape, bool)
    for line, mask, example in zip(ids, loss, examples, strict=True):
        line[: len(example.ids)] = example.ids
        mask[: len(example.ids)] = example.loss
    loss[:, 0] = False  # nothing stands before the first token
    line, place = np.nonzero(loss)
    answer = ids[line, place]
    level = np.where(vocab.is_item(answer), (answer - vocab.base) // vocab.ids.size, -1)
    words = Targets(line[level < 0], place[level < 0] - 1, answer[level < 0], None)
    levels = []
    for number in range(vocab.ids.depth):
        at = level == number
        node = np.zeros(int(at.sum()), np.int64)
        codes = [ids[line[at], place[at] - number + j] - vocab.base - j * vocab.ids.size for j in range(number + 1)]
        for j in range(number):
            node = trie.children(j, node)[np.arange(len(node)), codes[j]]
        prior = trie.priors(number, trie.children(number, node))
        levels.append(Targets(line[at], place[at] - 1, codes[number], prior))
    return Batch(ids, np.concatenate([e.users for e in examples]), words, tuple(levels))
