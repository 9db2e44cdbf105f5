"""Ranks with transformers' `generate`: batched beams restricted to the catalogue, then the same fusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from llmrec.batch.ranker import RankingTask
from llmrec.errors import RequestError
from llmrec.eval.bench.generate_baseline import FAMILIES, plain_copy
from llmrec.ranker import top_k, unseen
from llmrec.ranking.fusion import fill_catalog
from llmrec.recommender import Recommender

Ints = npt.NDArray[np.int64]
Children = dict[tuple[int, ...], tuple[list[int], torch.Tensor]]


@dataclass(frozen=True, eq=False)
class GenerateRanker:
    """A recommender's language model with the item tokens in its vocabulary; the weights are shared, not copied.

    Attributes:
        recommender: provides the prompts and all other score components.
        lm: the causal language model.
        children: path so far -> tokens that may follow, with the trie's prior of each.
        rows: path -> row.
    """

    recommender: Recommender
    lm: Any
    children: Children
    rows: dict[tuple[int, ...], int]

    def lists(self, tasks: Sequence[RankingTask], beams: int) -> list[list[int]]:
        """The k best rows of every task (history), from one batch with `beams` beams each."""
        scorer, model = self.recommender.scorer, self.recommender.model
        histories = [np.asarray(task.history, np.int64) for task in tasks]
        prompts = [scorer.prompt(history) for history in histories]
        length = max(len(prompt.ids) for prompt in prompts)
        embeds = torch.zeros(len(prompts), length, model.items.weight.shape[1])
        mask = torch.zeros(len(prompts), length, dtype=torch.long)
        with torch.inference_mode():
            for line, seen, prompt in zip(embeds, mask, prompts, strict=True):
                line[-len(prompt.ids) :] = model.embed(
                    torch.from_numpy(prompt.ids)[None], torch.from_numpy(prompt.users)
                )[0]
                seen[-len(prompt.ids) :] = 1
            out = self.lm.generate(
                inputs_embeds=embeds,
                attention_mask=mask,
                prefix_allowed_tokens_fn=self._allowed(),
                logits_processor=LogitsProcessorList([_Prior(self.children)]),
                num_beams=beams,
                num_return_sequences=beams,
                max_new_tokens=scorer.trie.depth,
                return_dict_in_generate=True,
                output_scores=True,
            )
        n, found = len(self.recommender.catalog), out.sequences.view(len(tasks), beams, -1).tolist()
        scores = out.sequences_scores.view(len(tasks), beams).numpy()
        kept = [[i for i, path in enumerate(paths) if tuple(path) in self.rows] for paths in found]
        llm = np.stack([
            fill_catalog(np.array([self.rows[tuple(paths[i])] for i in keep], np.int64), line[keep], n)
            for paths, line, keep in zip(found, scores, kept, strict=True)
        ])  # fmt: skip
        parts = scorer.parts(histories, llm=llm)
        fused = self.recommender.fusions["history"].combine(parts)
        rows, _ = top_k(fused, max(task.k for task in tasks), unseen(histories, n))
        return [line[: task.k].tolist() for line, task in zip(rows, tasks, strict=True)]

    def _allowed(self) -> Callable[[int, torch.Tensor], list[int]]:
        return lambda _, ids: self.children[tuple(ids.tolist())][0]


class _Prior(LogitsProcessor):
    """Adds the trie's prior to the logits of the allowed tokens, as this engine does."""

    def __init__(self, children: Children) -> None:
        self.children = children

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """float[b, vocabulary] for paths int[b, steps]."""
        for line, path in zip(scores, input_ids.tolist(), strict=True):
            tokens, prior = self.children[tuple(path)]
            line[tokens] += prior
        return scores


def generate_ranker(recommender: Recommender) -> GenerateRanker:
    """Build the reference for a recommender (merged).

    Raises:
        RequestError: the word table of the architecture cannot take the item tokens.
    """
    model, trie = recommender.model, recommender.scorer.trie
    if model.lm.config.model_type not in FAMILIES:
        raise RequestError(f"the reference is for {', '.join(FAMILIES)}, not {model.lm.config.model_type}")
    rows = model.items.weight.detach()
    scale = model.item_scale.detach().repeat_interleave(model.vocab.ids.size)[:, None]
    lm = plain_copy(model.lm, rows, rows * scale)
    lm.generation_config.update(renormalize_logits=True, length_penalty=0.0)
    tokens = model.vocab.tokens
    return GenerateRanker(
        recommender, lm, _children(trie, tokens), {tuple(p): r for r, p in enumerate(tokens.tolist())}
    )


def _children(trie: Any, tokens: Ints) -> Children:
    """The tokens that may follow each path of the catalogue."""
    out: Children = {}
    for level in range(trie.depth):
        nodes = np.arange(1 if level == 0 else trie.nodes(level - 1))
        for line in trie.ranges(level, nodes):
            child = line[line >= 0]
            below = trie.row(trie.first[level][child])  # any item below a child shows the child's token
            prefix = tuple(tokens[below[0], :level].tolist())
            out[prefix] = (tokens[below, level].tolist(), torch.from_numpy(trie.prior[level][child].copy()))
    return out
