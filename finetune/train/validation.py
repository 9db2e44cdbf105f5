"""Validation during training: NDCG@10 of the language model alone, decoded as in serving, on sampled users."""

from __future__ import annotations

import numpy as np

from llmrec.data.interactions import model_selection_users
from llmrec.decoding.beam_search import beam_search
from llmrec.finetune.stages import Inputs
from llmrec.finetune.train.packed_attention import packed_attention
from llmrec.lm.model import RecModel
from llmrec.lm.prompts import Slot, fill_template, load_template
from llmrec.lm.rendering import ItemRef, Message, Part, Rendered, UserRef
from llmrec.progress import counted
from llmrec.semantic_ids.trie import Trie

BEAM_WIDTH = 20  # a third of the width in serving, to keep validation cheap


class Validation:
    """Callable that returns the mean NDCG@10 over a seeded sample of the model-selection users, without seen items."""

    def __init__(self, inputs: Inputs, model: RecModel, trie: Trie) -> None:
        schedule = inputs.recipe.schedule
        users = model_selection_users(inputs.split)
        rng = np.random.default_rng([inputs.recipe.seed, 11])
        sample = np.sort(rng.permutation(users)[: schedule.validate_users])
        self.model, self.trie, self.n = model, trie, len(inputs.catalog)
        self.targets = inputs.split.valid[sample]
        self.histories = [inputs.split.history(int(u), "valid") for u in sample]
        self.say = inputs.say
        self.window, self.domain = inputs.recipe.traffic.window, inputs.catalog.domain

    def __call__(self) -> float:
        """Rank the whole catalogue with the project's own decoder."""
        gains = []
        told = counted(self.histories, "validation", self.say, "users")
        with packed_attention(self.model, "sdpa"):
            for history, target in zip(told, self.targets, strict=True):
                allowed = np.ones(self.n, bool)
                allowed[history] = False
                (found,) = beam_search(self.model, self.trie, [self._prompt(history)], 10, BEAM_WIDTH, [allowed])
                place = np.flatnonzero(found.rows == target)
                gains.append(1 / np.log2(place[0] + 2) if len(place) else 0.0)
        return float(np.mean(gains)) if gains else 0.0

    def _prompt(self, history: np.ndarray) -> Rendered:
        items = [ItemRef(int(r)) for r in history[-self.window :]]
        parts: tuple[Part, ...] = (*items, UserRef(self.model.encoder.encode([history])[0]))
        slots: dict[str, Slot] = {"domain": self.domain, "history": parts}
        phrase = load_template("next_item").user[0]
        return self.model.renderer.render([Message("user", fill_template(phrase, slots), open=True)])
