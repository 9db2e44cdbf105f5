"""Free-generation baseline: asks the base model in plain text and links the titles in its answer to the catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmrec.data.catalog import Catalog
from llmrec.eval.grounding.requests import Demand
from llmrec.eval.retention.generate import replies
from llmrec.lm.model import RecModel
from llmrec.nlu.title_lists import MAX_TITLES, LinkedTitles, link_titles, parse_title_list

__all__ = ["MAX_TITLES", "LinkedTitles", "ask_base_model", "link_titles", "parse_title_list", "prompt"]

HISTORY = 10  # number of latest items named in the prompt
TOKENS = 200


def ask_base_model(
    model: RecModel, catalog: Catalog, demands: Sequence[Demand], progress: Callable[[int], None] | None = None
) -> list[LinkedTitles]:
    """Let the base model list items for each demand with greedy decoding.

    Args:
        model: the bundle, LoRA not merged.
        catalog: provides the history's titles and the titles to link to.
        demands: the requests.
        progress: called with the number of demands done.
    """
    with model.base_only():
        said = replies(model, [prompt(catalog, demand) for demand in demands], TOKENS, progress=progress)
    return [link_titles(catalog, parse_title_list(one.text)) for one in said]


def prompt(catalog: Catalog, demand: Demand) -> str:
    """The user's message: the history, the request, and the expected form of the answer."""
    titles = [catalog.label(row) for row in demand.history[-HISTORY:]]
    known = f"I liked these {catalog.domain}: {'; '.join(titles)}.\n" if titles else ""
    return (
        f"{known}{demand.text}\nList the titles of {MAX_TITLES} {catalog.domain}, numbered, one a line, nothing else."
    )
