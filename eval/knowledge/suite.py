"""The knowledge suite: are item notes correct, do they help to find items, and do they answer questions about items?

Facts are compared with another source. Search requests are tags given by other people. The wordings of questions and
requests come from an author who had not seen the program. The product is compared with the same product without notes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from llmrec.data.catalog import Catalog, Item
from llmrec.data.item_notes import load_schema
from llmrec.dialogue.chat import Chat
from llmrec.encoders.text import MiniLM
from llmrec.encoders.text_cache import embed_catalog
from llmrec.errors import RequestError
from llmrec.eval.chat_client import CachingScorer, ChatRecommender, open_evaluated_model
from llmrec.eval.console_tables import print_columns
from llmrec.eval.crs.redial import FILMS
from llmrec.eval.knowledge.constraint_requests import TARGET_KINDS, draw_requests
from llmrec.eval.knowledge.facts import Agreement, casts_agree, directors_agree, matched, read_facts
from llmrec.eval.knowledge.questions import COUNT, ask_question, draw_questions, judge_answer
from llmrec.eval.knowledge.tag_requests import tag_requests
from llmrec.eval.result_file import Estimate, Row, Target, eval_command, provenance, write_result
from llmrec.progress import progress_bar
from llmrec.recommender import Recommender, Request
from llmrec.storage.registry import cache_home

K = 10
TAGS_FILE = "tags.csv"
SCHEMA = "film"
WITH, WITHOUT = "with notes", "without notes"
"""Names of the two rows of the tag requests."""


@dataclass(frozen=True)
class Measured:
    """Values by row name and metric, one per film, tag, question or request."""

    values: Mapping[str, Mapping[str, Sequence[float]]]

    def mean(self, row: str, metric: str) -> float | None:
        """The mean of a metric; None if nothing was measured."""
        found = self.values.get(row, {}).get(metric)
        return float(np.mean(found)) if found else None


def run_knowledge(
    model: str | Path | None,
    data: str | Path | None,
    data_dir: Path | None,
    out: Path,
    limit: int | None = None,
    seed: int = 0,
) -> list[Row]:
    """Measure the notes of a catalogue; writes `knowledge-<dataset>.json` to `out`.

    Args:
        model: model directory, None for the shipped one.
        data: its data, None for the data that the model names.
        data_dir: directory with ReDial's film table and MovieLens' tags, directly or in sub-folders; measurements whose
            files are missing are skipped.
        out: directory of the result.
        limit: number of questions, and of tags and requests drawn by seed.
        seed: random seed for questions, slots and bootstrap.

    Raises:
        RequestError: the catalogue has no notes.
    """
    started = time.monotonic()
    recommender, _ = open_evaluated_model(model, data)
    if not recommender.catalog.notes_by:
        raise RequestError(f"the catalogue of {recommender.data_name} has no notes; see `llmrec items annotate`")
    with progress_bar() as progress:
        measured = Measured(
            {
                "notes": {"described": _described(recommender.catalog)},
                **_facts(recommender.catalog, data_dir),
                **_tags(recommender, data_dir, limit, seed, progress),
                **_questions(recommender, limit or COUNT, seed, progress),
                **_requests(recommender, limit, seed, progress),
            }
        )
    rows = _rows(measured, seed)
    name = Path(str(recommender.data_name)).name
    command = eval_command("knowledge", limit=limit, data_dir=data_dir)
    n = sum(len(values) for metrics in measured.values.values() for values in metrics.values())
    came = provenance(seed, command, time.monotonic() - started, n)
    protocol = _protocol(recommender.catalog)
    write_result(out / f"knowledge-{name}.json", "knowledge", name, protocol, rows, targets(measured), came)
    print_columns(["knowledge", "metric", "mean", "n"], _table(measured), Console())
    return rows


def _described(catalog: Catalog) -> list[float]:
    return [float(bool(item.text) and "director" in item.attributes) for item in catalog.items]


def _folder(data_dir: Path | None, name: str) -> Path | None:
    """Find the directory that contains a file, plain or gzipped: the given one or one of its sub-folders."""
    for folder in (data_dir, *sorted(data_dir.iterdir())) if data_dir is not None and data_dir.is_dir() else ():
        if folder is not None and any((folder / f"{name}{end}").is_file() for end in ("", ".gz")):
            return folder
    return None


def _facts(catalog: Catalog, data_dir: Path | None) -> dict[str, dict[str, list[float]]]:
    folder = _folder(data_dir, FILMS[0])
    if folder is None:
        return {}
    facts = matched(catalog, read_facts(folder))
    found: dict[str, Agreement] = {"director": directors_agree(catalog, facts), "cast": casts_agree(catalog, facts)}
    return {"facts": {f"{name}_agrees": [float(one) for one in each.agreed] for name, each in found.items()}}


def without_notes(recommender: Recommender) -> Recommender:
    """Return the same model over the same catalogue, with notes removed from text, attributes and text vectors."""
    schema, old = load_schema(SCHEMA), recommender.catalog
    bare = [
        Item(item.id, item.title, "", {n: v for n, v in item.attributes.items() if n not in schema.attributes})
        for item in old.items
    ]
    catalog, scorer = Catalog(bare, old.domain), recommender.scorer
    embedder = scorer.embedder if scorer.embedder is not None else MiniLM.load()
    text = embed_catalog(catalog, embedder, cache_home() / "cache")
    plain = CachingScorer.of(replace(scorer, text=text, embedder=embedder))
    return Recommender(catalog, recommender.interactions, plain, recommender.fusions, recommender.model_card, "without")


def _tags(
    recommender: Recommender, data_dir: Path | None, limit: int | None, seed: int, progress: Progress
) -> dict[str, dict[str, list[float]]]:
    folder = _folder(data_dir, TAGS_FILE)
    if folder is None:
        return {}
    tags = tag_requests(folder, recommender.catalog)
    chosen = sorted(tags)
    if limit is not None and limit < len(chosen):
        chosen = sorted(np.random.default_rng(seed).choice(chosen, limit, replace=False).tolist())
    systems = {WITH: recommender, WITHOUT: without_notes(recommender)}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in systems}
    for tag in progress.track(chosen, description="tags"):
        for name, system in systems.items():
            rows = [item.row for item in system.recommend(Request(message=tag, k=K))]
            for metric, value in hit_metrics(rows, tags[tag]).items():
                found[name].setdefault(metric, []).append(value)
    return found


def hit_metrics(rows: Sequence[int], right: frozenset[int]) -> dict[str, float]:
    """Recall@10 and NDCG@10 of a list against a set of right rows; both are 1 for the best possible list.

    >>> hit_metrics([3, 1], frozenset([1]))["recall@10"]
    1.0
    """
    hits = np.array([row in right for row in rows[:K]], float)
    most = min(K, len(right))
    discounts = 1 / np.log2(np.arange(2, K + 2))
    gain = float((hits * discounts[: len(hits)]).sum() / discounts[:most].sum())
    return {"recall@10": float(hits.sum() / most), "ndcg@10": gain}


def _questions(
    recommender: Recommender, count: int, seed: int, progress: Progress
) -> dict[str, dict[str, list[float]]]:
    catalog = recommender.catalog
    weight = np.sqrt(np.bincount(recommender.interactions.row, minlength=len(catalog)) + 1.0)
    chat = Chat(ChatRecommender(recommender, None, False))  # type: ignore[arg-type]
    found: dict[str, dict[str, list[float]]] = {}
    for question in progress.track(draw_questions(catalog, weight, count, seed), description="questions"):
        answer, listed = ask_question(chat, question)
        outcome = judge_answer(catalog, question, answer, listed)
        values = {"answered": float(outcome in ("right", "honest")), "wrong": float(outcome == "wrong")}
        for row in ("questions", f"questions, {question.field}"):
            for metric, value in values.items():
                found.setdefault(row, {}).setdefault(metric, []).append(value)
    return found


def _requests(
    recommender: Recommender, limit: int | None, seed: int, progress: Progress
) -> dict[str, dict[str, list[float]]]:
    catalog = recommender.catalog
    requests = draw_requests(catalog, seed)
    if limit is not None and limit < len(requests):
        chosen = np.random.default_rng(seed).choice(len(requests), limit, replace=False)
        requests = [requests[int(place)] for place in sorted(chosen)]
    found: dict[str, dict[str, list[float]]] = {}
    for one in progress.track(requests, description="requests"):
        rows = [item.row for item in recommender.recommend(Request(message=one.text, k=K))]
        share = float(np.mean([one.satisfied(catalog[row]) for row in rows])) if rows else 0.0
        named = ["requests"] if one.kind in TARGET_KINDS else []
        for row in (*named, f"requests, {one.kind}"):
            found.setdefault(row, {}).setdefault("satisfied", []).append(share)
    return found


def second_pass() -> dict[str, Any]:
    """Return the record of the comparison with a second, independent author of notes."""
    source = files("llmrec.eval") / "tasks" / "knowledge-second-pass.json"
    found: dict[str, Any] = json.loads(source.read_text("utf-8"))
    return found


def targets(measured: Measured) -> list[Target]:
    """The numbers that the project is held to; null where the data to measure them is missing."""
    passed = second_pass()
    before, after = measured.mean(WITHOUT, "recall@10"), measured.mean(WITH, "recall@10")
    return [
        Target("described_share", measured.mean("notes", "described")),
        Target("director_agreement", measured.mean("facts", "director_agrees")),
        Target("cast_agreement", measured.mean("facts", "cast_agrees")),
        Target("second_pass_disagreement", len(passed["contradictions"]) / passed["fields_compared"]),
        Target("tag_wish_recall10_over_before", after / before if before and after is not None else None),
        Target("tag_wish_ndcg10", measured.mean(WITH, "ndcg@10")),
        Target("questions_answered", measured.mean("questions", "answered")),
        Target("questions_wrong", measured.mean("questions", "wrong")),
        Target("constraint_satisfaction", measured.mean("requests", "satisfied")),
    ]


def _rows(measured: Measured, seed: int) -> list[Row]:
    return [
        Row(name, {metric: Estimate.over(np.array(values), seed) for metric, values in metrics.items()})
        for name, metrics in measured.values.items()
    ]


def _table(measured: Measured) -> list[list[str]]:
    return [
        [name, metric, f"{np.mean(values):.3f}", str(len(values))]
        for name, metrics in measured.values.items()
        for metric, values in metrics.items()
    ]


def _protocol(catalog: Catalog) -> dict[str, object]:
    passed = second_pass()
    return {
        "notes": f"written by {catalog.notes_by}",
        "facts": "directors and stars of ReDial's film table, matched by title and year; a note agrees when all its "
        "directors, or its first two actors, are among those given there",
        "second pass": f"{passed['fields_compared']} facts that two writers gave on {passed['films']} films; "
        f"{len(passed['contradictions'])} contradict each other",
        "tags": "tags of MovieLens latest-small that are neither a genre nor a title, each typed as a message; the "
        "films so tagged are right; recall and NDCG are divided by the best that ten places allow",
        WITHOUT: "the same model over the catalogue without what the notes say",
        "questions": f"{COUNT} questions about one of five films on display, in wordings by somebody who had not "
        "seen the program; answered: right, or honestly unknown",
        "requests": "one condition each, in such wordings; the share of the listed films that meet it by their notes",
    }
