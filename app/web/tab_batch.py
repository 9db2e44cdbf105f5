"""The Batch tab: ranks a request file from the server's folder, with metrics and charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from llmrec.app.server.services import Services
from llmrec.app.web import batch
from llmrec.app.web.html import cards, tabs
from llmrec.errors import UserError

_HTML: dict[str, Any] = {"sanitize_html": True, "latex_delimiters": [], "container": False, "padding": False}


def build(services: Services) -> None:
    """Build the tab's components and connect their events; call it inside a Tab."""
    folder = services.settings.batch_dir
    if folder is None:
        gr.Markdown(
            cards.muted_line(
                "No folder is set. Start the server with --batch-dir FOLDER to choose among the request files in it "
                "(Parquet, CSV or JSON Lines, in the format of llmrec rank). Files cannot be uploaded."
            ),
            **_HTML,
        )
        return
    gr.Markdown(
        cards.muted_line(
            "Request files in the server's folder, in the format of llmrec rank. If there is a column target (the id "
            f"of the next item), accuracy is measured. Up to {batch.MOST_ROWS} requests are ranked here; "
            "llmrec rank has no limit."
        ),
        **_HTML,
    )
    with gr.Row(elem_id="batch-form", equal_height=True):
        names = batch.request_files(folder)
        name = gr.Dropdown(
            names, value=names[0] if names else None, label="File", filterable=True, elem_id="batch-file"
        )
        again = gr.Button("Refresh", elem_id="batch-again", min_width=100)
        go = gr.Button("Rank", variant="primary", elem_id="batch-go", min_width=100)
        stop = gr.Button("Stop", elem_id="batch-stop", min_width=80)
    out = gr.Markdown(elem_id="batch-out", **_HTML)
    # one batch at a time, with a limit separate from that of replies, because a batch takes minutes
    one: dict[str, Any] = {**services.quick, "concurrency_id": "batch", "concurrency_limit": 1}
    running = go.click(_ranked(services), name, out, **one)
    stop.click(None, None, None, cancels=[running], **services.quick)
    again.click(_names(services), None, name, **services.quick)


def _names(services: Services) -> Callable[[], Any]:
    def look() -> Any:
        names = batch.request_files(services.settings.batch_dir)
        return gr.update(choices=names, value=names[0] if names else None)

    return look


def _ranked(services: Services) -> Callable[[Any], Iterator[str]]:
    def run(name: Any) -> Iterator[str]:
        catalog = services.chat.catalog
        try:
            path = batch.open_request_file(services.settings.batch_dir, name)
            for outcome in batch.rank_requests(services.recommender, path):
                measured = batch.batch_metrics(outcome, len(catalog)) if outcome.ended else {}
                plots = (
                    tabs.bar_chart("Rank of the target", batch.target_ranks(outcome))
                    + tabs.bar_chart("Main reason for each item", batch.main_sources(outcome))
                    if outcome.ended
                    else ""
                )
                yield tabs.batch_results(catalog, outcome, measured, plots)
        except UserError as error:
            # do not reveal the path of the folder
            said = str(error).replace(f"{services.settings.batch_dir}/", "")
            raise gr.Error(cards.escape_html(said), print_exception=False) from None

    return run
