"""The doors through which a recommendation is asked for, each as a function of the same question.

A door says what it cannot be asked; everything else must come out as the same rows in the same order.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from llmrec.app.api.endpoints import Api
from llmrec.app.cli.main import app
from llmrec.app.web import batch
from llmrec.batch.process_pool import run_local
from llmrec.batch.rank_file import Settings, rank_file
from llmrec.batch.ranker import BatchRanker, IdLookup, resolve_ids
from llmrec.data.filter_expressions import parse_json_filters
from llmrec.data.filters import Filters
from llmrec.data.interactions import History
from llmrec.dialogue.chat import Chat, Items, Limits
from llmrec.recommender import Recommender, Request

Rows = tuple[int, ...]


@dataclass(frozen=True)
class Ask:
    """One question: a message, ids of liked items, a user of the log, filters, candidates, how many."""

    message: str = ""
    items: Sequence[str] = ()
    user: str = ""
    filters: Mapping[str, Any] = field(default_factory=dict)
    candidates: Sequence[str] | None = None
    k: int = 100


def silent(*_: object) -> Iterator[str]:
    """No words of a language model beside the list."""
    return iter(())


def through_chat(recommender: Recommender, ask: Ask) -> Rows:
    """As a visitor who is that user, has liked these items and set these filters says it."""
    chat = Chat(recommender, Limits(default_k=ask.k), silent)
    session = chat.open()
    chat.switch_user(session, ask.user)
    for one in ask.items:
        chat.record_opinion(session, recommender.catalog.row(one), "like")
    session.profile = replace(session.profile, filters=_filters(recommender, ask))
    if not ask.message:
        return chat.current_list(session).rows
    found = [event.rows for event in chat.turn(session, ask.message) if isinstance(event, Items)]
    return found[0] if found else ()


def through_api(recommender: Recommender, ask: Ask) -> Rows:
    """The endpoint's function, without a server."""
    api = Api(SimpleNamespace(chat=Chat(recommender)))  # type: ignore[arg-type]
    answer = api.recommend([*ask.items], ask.user, ask.message, ask.k, dict(ask.filters))
    return tuple(recommender.catalog.row(one["item_id"]) for one in answer["items"])


def through_python(recommender: Recommender, ask: Ask) -> Rows:
    """`Recommender.recommend`."""
    catalog = recommender.catalog
    history = History(recommender.history_of(ask.user) if ask.user else ()).extended_with(map(catalog.row, ask.items))
    given = None if ask.candidates is None else tuple(map(catalog.row, ask.candidates))
    request = Request(history, ask.message, _filters(recommender, ask), given, k=ask.k, unseen=given is None)
    return tuple(one.row for one in recommender.recommend(request))


def through_batch(recommender: Recommender, ask: Ask) -> Rows:
    """One row of a file of requests, without a file."""
    given = None if ask.candidates is None else tuple(ask.candidates)
    items = tuple(ask.items) if ask.items or not (ask.user or ask.message) else None
    row = batch.BatchRequest(0, 1, ask.user or None, None, items, given, ask.message, ask.k)
    task, _ = resolve_ids(row, IdLookup(recommender.catalog, recommender.interactions), 10)
    assert task is not None
    return tuple(one.row for one in BatchRanker(recommender).rank(task))


def through_cli(recommender: Recommender, ask: Ask, *given: str) -> Rows:
    """`llmrec recommend` in this process, over a recommender that is loaded already."""
    words = [*given, "-k", str(ask.k), "--json", "--message", ask.message]
    words += ["--user", ask.user] if ask.user else []
    words += ["--items", "|".join(ask.items)] if ask.items else []
    for name, value in ask.filters.get("none_of", {}).items():
        words += ["--exclude", f"{name}={'|'.join(value)}"]
    for part in ("any_of", "all_of"):
        for name, value in ask.filters.get(part, {}).items():
            words += ["--where", f"{name}={'|'.join(value)}"]
    for name, bounds in ask.filters.get("ranges", {}).items():
        marks = zip((">=", "<="), bounds, strict=True)
        words += [one for mark, bound in marks if bound is not None for one in ("--where", f"{name}{mark}{bound}")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recommender, "from_pretrained", staticmethod(lambda *_: recommender))
        done = CliRunner().invoke(app, ["recommend", *words])
    assert done.exit_code == 0, (done.output, done.exception)
    return tuple(recommender.catalog.row(one["item_id"]) for one in json.loads(done.stdout)["items"])


def ranked(recommender: Recommender, model: Path, folder: Path, asks: Sequence[Ask]) -> list[Rows]:
    """`rank_file` over a file with a request for each question, by a recommender that is loaded already."""
    lines = []
    for number, ask in enumerate(asks):
        given = {"user_id": ask.user, "message": ask.message, "items": [*ask.items], "candidates": ask.candidates}
        row = {name: value for name, value in given.items() if value} or {"items": []}
        lines.append(json.dumps({"request_id": number, **row, "k": ask.k}))
    source, target = folder / "asked.jsonl", folder / "ranked.jsonl"
    source.write_text("\n".join(lines) + "\n", encoding="utf-8")
    rank_file(source, target, Settings(model), partial(run_local, workers=1, loader=lambda *_: recommender))
    found: list[list[int]] = [[] for _ in asks]
    for line in target.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        found[answer["request_id"]].append(recommender.catalog.row(answer["item_id"]))
    return [tuple(rows) for rows in found]


DOORS: Mapping[str, Callable[[Recommender, Ask], Rows]] = {
    "chat": through_chat,
    "api": through_api,
    "python": through_python,
    "batch": through_batch,
}


def _filters(recommender: Recommender, ask: Ask) -> Filters:
    return parse_json_filters(dict(ask.filters), recommender.catalog)
