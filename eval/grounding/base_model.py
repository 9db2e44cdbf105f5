"""Baseline by free generation: asks the base model in plain text and links its titles to the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmrec.data.catalog import Catalog
from llmrec.eval.grounding.requests import Demand
from llmrec.eval.retention.generate import replies
from llmrec.lm.model import RecModel
from llmrec.nlu.title_lists import MAX_TITLES, LinkedTitles, link_titles, parse_title_list

__all__ = ["MAX_TITLES", "LinkedTitles", "ask_base_model", "link_titles", "parse_title_list", "prompt"]

HISTORY = 10  # latest items that the prompt names
TOKENS = 200


def ask_base_model(
    model: RecModel, catalog: Catalog, demands: Sequence[Demand], progress: Callable[[int], None] | None = None
) -> list[LinkedTitles]:
    """Let the base model list items for each demand, greedily.

    Args:
        model: the bundle, LoRA not merged.
        catalog: for the history's titles and for looking up.
        demands: the requests.
        progress: is told how many are done.
    """
    with model.base_only():
        said = replies(model, [prompt(catalog, demand) for demand in demands], TOKENS, progress=progress)
    return [link_titles(catalog, parse_title_list(one.text)) for one in said]


def prompt(catalog: Catalog, demand: Demand) -> str:
    """The user's message: what is known, the request, and the form of the answer."""
    titles = [catalog.label(row) for row in demand.history[-HISTORY:]]
    known = f"I liked these {catalog.domain}: {'; '.join(titles)}.\n" if titles else ""
    return (
        f"{known}{demand.text}\nList the titles of {MAX_TITLES} {catalog.domain}, numbered, one a line, nothing else."
    )
