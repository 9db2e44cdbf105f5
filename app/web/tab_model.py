"""The Model tab: model card, map of the semantic IDs, learning curves and evaluation tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import gradio as gr
from gradio.context import get_render_context

from llmrec.app.server.services import Services
from llmrec.app.web import model_view
from llmrec.app.web.html import cards, tabs
from llmrec.recommender import SHIPPED

_HTML: dict[str, Any] = {"sanitize_html": True, "latex_delimiters": [], "container": False, "padding": False}


def build(services: Services) -> None:
    """Build the tab's components; call it inside a Tab.

    The tab is filled only when it is selected, so that other visitors do not wait for it.
    """
    tab = get_render_context()
    parts = []
    for name in ("Card", "Map of the items", "Learning curves", "Evaluation"):
        with gr.Accordion(name, open=name in {"Card", "Map of the items"}, elem_classes="model-part"):
            parts.append(gr.Markdown(**_HTML))
    if not isinstance(tab, gr.Tab):
        raise RuntimeError("tab_model.build belongs inside a gr.Tab")
    tab.select(_filled(services), None, parts, **services.quick)


def _filled(services: Services) -> Callable[[], list[str]]:
    @cache
    def still() -> tuple[str, str]:
        recommender, catalog = services.recommender, services.chat.catalog
        ids = recommender.model.vocab.ids
        drawn = tabs.semantic_id_map(catalog, model_view.project_semantic_ids(ids), len(catalog))
        found = tabs.code_groups(catalog, model_view.code_groups(catalog, ids))
        return tabs.fact_list(model_view.model_facts(recommender)), drawn + found

    def fill() -> list[str]:
        card, drawn = still()
        found = model_view.training_curves(services.settings.model or SHIPPED)
        curves = tabs.learning_curves(found) or cards.muted_line(
            f"No {model_view.JOURNAL} was found next to the model; training writes one to its work directory."
        )
        tables, unread = model_view.load_result_tables(services.settings.results)
        results = tabs.result_tables(tables, unread) or cards.muted_line(
            "There are no result files yet; make eval writes them."
        )
        return [card, drawn, curves, results]

    return fill
