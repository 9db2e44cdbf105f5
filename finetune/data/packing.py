"""Sequence packing: mixes rendered documents by token share, concatenates them, and resolves their targets.

A pack is one row of tokens without padding; `packed_attention` keeps its documents apart. The documents of a pack come
from all tasks, so that a step sees the mixture rather than one task. They are sorted by length, so that equal lengths
share one attention call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llmrec.finetune.data.context import TaskContext
from llmrec.finetune.data.tasks import TASKS, TEXT_TASKS
from llmrec.lm.rendering import Message, Rendered, Renderer, UserRef
from llmrec.semantic_ids.trie import Trie

UserVectorMode = Literal["mixed", "none", "only"]


@dataclass(frozen=True, eq=False)
class Document:
    """One rendered example and the task it comes from."""

    task: str
    rendered: Rendered

    @property
    def is_text(self) -> bool:
        """Whether this is ordinary text, on which the model is kept close to the base model instead of taught."""
        return self.task in TEXT_TASKS

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.rendered.ids)


@dataclass(frozen=True, eq=False)
class Targets:
    """Prediction targets of one kind.

    Attributes:
        position: int64[m], index of the hidden state that predicts.
        answer: int64[m], the code (item levels) or the word id.
        task: int64[m], index into `Pack.tasks`.
        prior: float32[m, size], log mass of the codes that may follow at the position, -inf for the others; None for
            words.
    """

    position: np.ndarray
    answer: np.ndarray
    task: np.ndarray
    prior: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of targets."""
        return len(self.answer)


@dataclass(frozen=True, eq=False)
class Pack:
    """A row of concatenated documents.

    Attributes:
        ids: int64[t], token ids.
        lengths: lengths of the documents, in order; they sum to t.
        users: float32[r, d], user vectors in the order of their slots.
        words: targets over the word table.
        text: targets of ordinary text; its documents are the last of the pack.
        text_start: position where the first text document begins, t if there is none.
        levels: targets of each level of the semantic IDs.
        tasks: task names that `Targets.task` indexes.
    """

    ids: np.ndarray
    lengths: tuple[int, ...]
    users: np.ndarray
    words: Targets
    text: Targets
    text_start: int
    levels: tuple[Targets, ...]
    tasks: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.ids)

    @property
    def targets(self) -> int:
        """Number of positions with a loss."""
        return len(self.words) + len(self.text) + sum(len(t) for t in self.levels)


def mixture_round(
    context: TaskContext,
    renderer: Renderer,
    shares: Mapping[str, float],
    tokens: int,
    seed: int,
    number: int,
    users: UserVectorMode = "mixed",
) -> list[Document]:
    """Return about `tokens` tokens of shuffled examples, with each task's share; deterministic in (seed, number).

    `users` is "mixed" for user vectors as the tasks make them, "none" to leave user vectors out, and "only" to leave
    out documents without one.
    """
    out: list[Document] = []
    for place, name in enumerate(sorted(shares)):
        budget = tokens * shares[name] / sum(shares.values())
        examples = TASKS[name](context, np.random.default_rng([seed, number, place]))
        while budget > 0:
            example = next(examples)
            rendered = (
                example
                if isinstance(example, Rendered)
                else renderer.render(_without_users(example) if users == "none" else example)
            )
            out.append(Document(name, rendered))
            budget -= len(rendered.ids)
    if users == "only":
        out = [document for document in out if len(document.rendered.users)]
    return [out[i] for i in np.random.default_rng([seed, number, 1_000_000]).permutation(len(out))]


def _without_users(messages: list[Message]) -> list[Message]:
    return [replace(m, parts=tuple(p for p in m.parts if not isinstance(p, UserRef))) for m in messages]


def pack_documents(documents: Sequence[Document], trie: Trie, renderer: Renderer, tokens: int) -> list[Pack]:
    """Fill packs of at most `tokens` tokens in the given order; a longer document gets a pack of its own."""
    groups: list[list[Document]] = [[]]
    room = tokens
    for document in documents:
        if groups[-1] and len(document) > room:
            groups.append([])
            room = tokens
        groups[-1].append(document)
        room -= len(document)
    return [make_pack(group, trie, renderer) for group in groups if group]


def pack_stream(
    context: TaskContext,
    renderer: Renderer,
    trie: Trie,
    shares: Mapping[str, float],
    round_tokens: int,
    pack_tokens: int,
    seed: int,
    users: UserVectorMode = "mixed",
) -> Iterator[Pack]:
    """Yield packs endlessly; the n-th pack depends only on the arguments, so a run can be resumed exactly."""
    number = 0
    while True:
        documents = mixture_round(context, renderer, shares, round_tokens, seed, number, users)
        yield from pack_documents(documents, trie, renderer, pack_tokens)
        number += 1


def make_pack(documents: Sequence[Document], trie: Trie, renderer: Renderer) -> Pack:
    """Return one pack of these documents, regardless of their order."""
    documents = sorted(documents, key=lambda d: (d.is_text, len(d)))
    lengths = tuple(len(d) for d in documents)
    ids = np.concatenate([d.rendered.ids for d in documents])
    loss = np.concatenate([d.rendered.loss for d in documents])
    start = np.concatenate([[0], np.cumsum(lengths)])
    loss[start[:-1]] = False  # a document's first token has nothing before it to predict it from
    names = tuple(sorted({d.task for d in documents}))
    task = np.repeat([names.index(d.task) for d in documents], lengths)
    text_start = int(start[sum(not d.is_text for d in documents)])
    at = np.flatnonzero(loss)
    vocab = renderer.vocab
    level = np.where(vocab.is_item(ids[at]), (ids[at] - vocab.base) // vocab.ids.size, -1)
    of_words, of_text = at[(level < 0) & (at < text_start)], at[(level < 0) & (at >= text_start)]
    return Pack(
        ids=ids,
        lengths=lengths,
        users=np.concatenate([d.rendered.users for d in documents]),
        words=Targets(of_words - 1, ids[of_words], task[of_words]),
        text=Targets(of_text - 1, ids[of_text], task[of_text]),
        text_start=text_start,
        levels=tuple(_level(ids, at[level == n], task, n, trie, vocab.base) for n in range(vocab.ids.depth)),
        tasks=names,
    )


def _level(ids: np.ndarray, at: np.ndarray, task: np.ndarray, level: int, trie: Trie, base: int) -> Targets:
    """Return the targets of one level; the preceding codes of each path determine which codes are valid."""
    node = np.zeros(len(at), np.int64)
    codes = [ids[at - level + j] - base - j * trie.size for j in range(level + 1)]
    for j in range(level):
        node = trie.children(j, node)[np.arange(len(node)), codes[j]]
    prior = trie.priors(level, trie.children(level, node))
    return Targets(at - 1, codes[level], task[at], prior)
