"""Baseline for stability: a language model that ranks candidates listed in the prompt.

The product's base model, as published, gets the history and the candidates as text, and the request of the variant. It
ranks by the log-probability of each candidate's letter, as listwise LLM rankers do (Hou et al., 2024), and by that of
each candidate's title per token; both come from one forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.eval.retention.continuations import Continuations, score_continuations
from llmrec.eval.stability.request_variants import Case, Variant
from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Message, Text

HISTORY = 10  # number of latest items named in the prompt
SYSTEMS = ("base-letters", "base-titles")


def rank_listed_candidates(
    model: RecModel, catalog: Catalog, case: Case, variant: Variant
) -> dict[str, tuple[int, ...]]:
    """Return the candidates, best first, by system.

    Args:
        model: the bundle, LoRA not merged.
        catalog: provides the titles.
        case: provides the history.
        variant: provides the request and the order of the candidates.
    """
    titles = [catalog[row].title for row in variant.candidates]
    letters, likelihoods = scores(model, prompt(catalog, case, variant), titles)
    return {
        name: tuple(int(variant.candidates[place]) for place in np.argsort(-values, kind="stable"))
        for name, values in zip(SYSTEMS, (letters, likelihoods), strict=True)
    }


def prompt(catalog: Catalog, case: Case, variant: Variant) -> list[Message]:
    """History and lettered candidates as text, then the request; the answer is left open."""
    known = "".join(f"\n- {catalog[row].title}" for row in case.history[-HISTORY:])
    listed = "".join(
        f"\n{letter}. {catalog[row].title}" for letter, row in zip(ascii_uppercase, variant.candidates, strict=False)
    )
    parts = [f"I liked these {catalog.domain}:{known}"] if known else []
    parts += [f"Candidates:{listed}", variant.text, "Answer with the letter of the best candidate."]
    return [Message("user", (Text("\n\n".join(parts)),)), Message("assistant", (), open=True)]


def scores(model: RecModel, messages: Sequence[Message], titles: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probability of each title's letter, and mean log-probability per token of each title: float64[n] twice."""
    start = tuple(model.renderer.render(messages).ids.tolist())
    answers = [model.renderer.encode_text(words) for words in (*ascii_uppercase[: len(titles)], *titles)]
    branches = Continuations(tuple((*start, *ids) for ids in answers), (len(start),) * len(answers))
    with model.base_only():
        nll = score_continuations(model, [branches])[0].nll
    lengths = np.array([len(ids) for ids in answers], np.float64)
    n = len(titles)
    return -nll[:n], -nll[n:] / lengths[n:]
