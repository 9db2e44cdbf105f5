"""The tabs Compare, Batch and Model: what they say, what they refuse, and that nothing in them can run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_catalog, make_model
from toy_recommender import make_recommender

from llmrec.app.server.guard import Sessions
from llmrec.app.server.services import Services
from llmrec.app.server.settings import load_settings
from llmrec.app.web import batch, compare, model_view, tab_batch, tab_compare, tab_model
from llmrec.app.web.base_model_list import BaseModelLister, base_bundle
from llmrec.app.web.html import tabs
from llmrec.data.catalog import Catalog, Item
from llmrec.dialogue.chat import Chat
from llmrec.errors import DataError, RequestError, WeightsError
from llmrec.nlu.title_lists import LinkedTitles
from llmrec.recommender import Recommender, Request

HOSTILE = "<img src=x onerror=alert(1)>**[a](javascript:alert(1))** <script>x</script>"


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    return make_recommender()


def services(recommender: Recommender, **given: Any) -> Services:
    return Services(Chat(recommender), Sessions(10, 60), load_settings(**given))


class Said:
    """Stands for the base model in words: answers as it is told."""

    def __init__(self, *lists: LinkedTitles, error: Exception | None = None) -> None:
        self.lists, self.error = lists, error

    def listed(self, *_: object) -> Any:
        if self.error:
            raise self.error
        yield from self.lists


def columns(recommender: Recommender, said: Said, **given: Any) -> tuple[compare.ComparisonColumn, ...]:
    form = {"liked": "", "user": "", "message": "", "k": 4, **given}
    request, _ = compare.parse_form(recommender, Chat(recommender).limits, **form)
    return list(compare.compare(recommender, request, said))[-1]  # type: ignore[arg-type]


# ---- Compare


def test_four_ways_answer_the_same_request(recommender: Recommender) -> None:
    said = Said(LinkedTitles(("Funny Tale 4",), (4,)), LinkedTitles(("Funny Tale 4", "Inception"), (4, -1)))
    whole, encoder, text, base = columns(recommender, said, liked="Funny Tale 2\ni4", message="comedy")
    assert [one.ended for one in (whole, encoder, text, base)] == [True] * 4
    expected = recommender.recommend(Request((2, 4), "comedy", k=4))
    assert [line.row for line in whole.lines] == [one.row for one in expected]
    assert all(line.fits and line.row % 2 == 0 for line in whole.lines)
    scores = recommender.model.encoder.scores([np.array([2, 4])])[0]
    order = [row for row in np.argsort(-scores, kind="stable") if row not in (2, 4)][:4]
    assert [line.row for line in encoder.lines] == order
    assert [line.fits for line in encoder.lines] == [row % 2 == 0 for row in order]
    words = recommender.scorer.words(["comedy"])[0]
    assert text.lines[0].row == max((row for row in range(12) if row not in (2, 4)), key=lambda row: (words[row], -row))
    assert [(line.title, line.row) for line in base.lines] == [("Funny Tale 4 (1994)", 4), ("Inception", -1)]


def test_a_base_model_that_is_not_there_costs_its_column_only(recommender: Recommender) -> None:
    found = columns(recommender, Said(error=WeightsError("no such weights")), liked="i3")
    assert found[3].note == "no such weights"
    assert found[3].ended
    assert all(found[place].lines for place in range(3))
    assert "no such weights" in tabs.comparison_columns(found, [])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "the request is empty"),
        ({"liked": "Nothing Like It"}, "Nothing Like It"),
        ({"liked": ["i1"]}, "must be texts"),
        ({"liked": "i1\n" * 51}, "at most 50"),
        ({"message": "x" * 2001}, "2,001 characters"),
        ({"message": {"role": "system"}}, "must be texts"),
        ({"user": "u999"}, "u999"),
        ({"message": "x", "k": 0}, "from 1 to 20"),
        ({"message": "x", "k": 2.5}, "from 1 to 20"),
        ({"message": "x", "k": True}, "from 1 to 20"),
        ({"message": "x", "k": "9"}, "from 1 to 20"),
    ],
)
def test_what_the_form_cannot_mean_is_said(recommender: Recommender, given: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        columns(recommender, Said(), **given)


def test_the_base_model_is_the_one_without_lora(recommender: Recommender) -> None:
    fresh = make_model(12)
    with fresh.base_only():
        expected = fresh.lm(input_ids=np_ids()).logits
    merged = BaseModelLister(recommender, lambda: without_lora(make_model(12)))
    model, _ = merged._ready()
    assert (model.lm(input_ids=np_ids()).logits - expected).abs().max() < 1e-5
    assert model is merged._ready()[0]
    (*_, last) = merged.listed((2,), "a comedy")
    assert set(last.rows) <= {-1, *range(12)}
    prompt = merged.prompt((2,), "a comedy")
    assert "Funny Tale 2 (1992)" in prompt
    assert "a comedy" in prompt
    with pytest.raises(WeightsError, match="does not say which base"):
        base_bundle(recommender)


def np_ids() -> Any:
    import torch

    return torch.arange(40, 60)[None]


def without_lora(model: Any) -> Any:
    """As it is right after LoRA was put in: the second factor is zero."""
    import torch

    with torch.no_grad():
        for name, parameter in model.trainable().items():
            if "lora_B" in name:
                parameter.zero_()
    return model


def test_the_chat_can_be_taken_over(recommender: Recommender) -> None:
    made = services(recommender)
    visit = made.sessions.get("abc", None)
    list(made.chat.turn(visit, "I liked Funny Tale 2"))

    class Asked:
        session_hash = "abc"

    wish, liked, user = tab_compare._taken(made)(Asked())  # type: ignore[arg-type]
    assert (wish, liked, user) == (visit.profile.wish, "Funny Tale 2 (1992)", "")
    Asked.session_hash = "other"
    assert tab_compare._taken(made)(Asked())[1] == ""  # type: ignore[arg-type]


# ---- Batch


def folder_of(tmp_path: Path) -> Path:
    folder = tmp_path / "requests"
    folder.mkdir()
    (tmp_path / "secret.jsonl").write_text('{"request_id": 1, "items": []}\n')
    (folder / "a.jsonl").write_text(
        '{"request_id": 1, "items": ["i2", "i4"], "target": "i6", "k": 10}\n'
        '{"request_id": 2, "user_id": "u999"}\n'
        '{"request_id": 3, "user_id": "u1", "message": "no comedy", "target": "i0"}\n'
        '{"request_id": 4, "similar_to": "i5", "candidates": ["i5", "i7", "zz"]}\n'
    )
    table = pa.table({"request_id": [1, 2], "items": [["i1"], ["i3"]]})
    pq.write_table(table, folder / "b.parquet")
    (folder / "c.csv").write_text("request_id,items\n1,i1|i3\n")
    (folder / "empty.jsonl").touch()
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.jsonl").write_text("x")
    (folder / "sub").mkdir()
    (folder / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (folder / "sub.jsonl").mkdir()
    return folder


def test_only_plain_files_of_the_folder_can_be_chosen(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    assert batch.request_files(folder) == ["a.jsonl", "b.parquet", "c.csv"]
    assert batch.open_request_file(folder, "a.jsonl") == folder / "a.jsonl"
    hostile = (
        "../secret.jsonl", "link.jsonl", "sub/../a.jsonl", "./a.jsonl", str(tmp_path / "secret.jsonl"), "a.jsonl\x00",
        "/etc/passwd", "", ".", "..", ".hidden.jsonl", "notes.txt", "empty.jsonl", "sub", "sub.jsonl", "A.JSONL",
        None, 3, ["a.jsonl"], {"path": "a.jsonl"},
    )  # fmt: skip
    for name in hostile:
        with pytest.raises(RequestError, match="not among the listed files"):
            batch.open_request_file(folder, name)
    assert batch.request_files(None) == batch.request_files(tmp_path / "gone") == []
    with pytest.raises(RequestError, match="batch_dir"):
        batch.open_request_file(None, "a.jsonl")


def test_a_file_is_ranked_as_the_page_would_and_measured(recommender: Recommender, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    *_, outcome = batch.rank_requests(recommender, folder / "a.jsonl")
    assert outcome.ended
    assert [answer.row.request_id for answer in outcome.answers] == [1, 3, 4]
    assert outcome.counts == {"unknown_users": 1, "unknown_candidates": 1, "skipped_requests": 1}
    first, second, third = outcome.answers
    assert list(first.items) == recommender.recommend(Request((2, 4), k=10))
    place = [one.row for one in first.items].index(6) + 1
    assert (first.place, second.place, third.place) == (place, 0, None)
    assert all(one.row % 2 for one in second.items)
    assert {one.row for one in third.items} == {5, 7}
    found = batch.batch_metrics(outcome, 12)
    assert found["requests with a target"] == 2
    assert found["recall@10"] == 0.5
    assert found["ndcg@10"] == pytest.approx(1 / math.log2(place + 1) / 2)
    assert found["mrr@10"] == pytest.approx(1 / place / 2)
    assert sum(count for _, count in batch.target_ranks(outcome)) == 2
    assert sum(count for _, count in batch.main_sources(outcome)) == sum(
        len(answer.items) for answer in outcome.answers
    )


def test_a_batch_is_bounded_in_rows_and_time(
    recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"request_id": n, "items": ["i1"], "k": 1}) + "\n" for n in range(9)))
    monkeypatch.setattr(batch, "MOST_ROWS", 5)
    *_, outcome = batch.rank_requests(recommender, path)
    assert (len(outcome.answers), outcome.total) == (5, 5)
    assert "first 5 requests" in outcome.notes[0]
    *_, cut = batch.rank_requests(recommender, path, limit=0.0)
    assert len(cut.answers) == 1
    assert any("Stopped after" in note for note in cut.notes)


def test_without_targets_nothing_is_claimed(recommender: Recommender, tmp_path: Path) -> None:
    *_, outcome = batch.rank_requests(recommender, folder_of(tmp_path) / "b.parquet")
    assert not any("@" in name for name in batch.batch_metrics(outcome, 12))
    assert batch.target_ranks(outcome) == []
    assert tabs.bar_chart("x", []) == ""


def test_the_batch_tab_shows_lists_and_keeps_paths_to_itself(recommender: Recommender, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    made = services(recommender, batch_dir=folder)
    *_, html = tab_batch._ranked(made)("a.jsonl")
    for words in ("recall&#64;10", "Rank of the target", "no comedy", "unknown users&#58; 1"):
        assert words in html, words
    (folder / "bad.jsonl").write_text('{"request_id": 1}\n')
    with pytest.raises(gr.Error, match=r"bad\.jsonl") as caught:
        list(tab_batch._ranked(made)("bad.jsonl"))
    assert str(tmp_path) not in str(caught.value.message)
    with pytest.raises(gr.Error, match="not among the listed files"):
        list(tab_batch._ranked(made)("../secret.jsonl"))


# ---- Model


def test_the_map_has_every_item_once_and_the_same_everywhere(recommender: Recommender) -> None:
    ids = recommender.model.vocab.ids
    points = model_view.project_semantic_ids(ids)
    assert [point.row for point in points] == list(range(12))
    assert [point.code for point in points] == ids.codes[:, 0].tolist()
    xs, ys = [p.x for p in points], [p.y for p in points]
    assert (min(xs), max(xs), min(ys), max(ys)) == (0, 1, 0, 1)
    assert points == model_view.project_semantic_ids(ids)
    vectors = ids.codebook[0][ids.codes[:, 0]] + ids.codebook[1][ids.codes[:, 1]]
    spread = np.var(vectors - vectors.mean(axis=0), axis=0).sum()
    values = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2 / 12
    assert values.sum() == pytest.approx(spread, rel=1e-4)
    scale = np.ptp((vectors - vectors.mean(axis=0)) @ np.linalg.svd(vectors - vectors.mean(axis=0))[2][0])
    assert np.var(xs) * scale**2 == pytest.approx(values[0], rel=1e-3)
    html = tabs.semantic_id_map(recommender.catalog, points, 12)
    assert html.count("<circle") == 12
    assert "Funny Tale 4 &#40;1994&#41;" in html


def test_large_maps_are_thinned_out(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_view, "MOST_POINTS", 5)
    points = model_view.project_semantic_ids(recommender.model.vocab.ids)
    assert 4 <= len(points) <= 5
    assert "of 12 are drawn" in tabs.semantic_id_map(recommender.catalog, points, 12)


def test_groups_say_what_a_code_means(recommender: Recommender) -> None:
    found = model_view.code_groups(recommender.catalog, recommender.model.vocab.ids)
    assert sum(one.size for one in found) == 12
    assert [one.size for one in found] == sorted((one.size for one in found), reverse=True)
    for one in found:
        rows = np.flatnonzero(recommender.model.vocab.ids.codes[:, 0] == one.code)
        for tag, share in one.tags:
            assert share == pytest.approx(np.mean([(row % 2 == 0) == (tag == "Comedy") for row in rows]))


def test_facts_come_from_what_is_loaded(recommender: Recommender) -> None:
    found = dict(model_view.model_facts(recommender))
    assert found["Catalogue"].startswith("12 films")
    assert found["Training tokens"] == "900"
    assert found["Base model"] == "not recorded"
    assert "encoder 1.00" in found["Fusion weights, history"]


def test_curves_are_read_from_the_journal_of_training(tmp_path: Path) -> None:
    model = tmp_path / "model"
    work = tmp_path / "model.work"
    work.mkdir()
    assert model_view.training_curves(model) == {}
    lines = [{"step": n, "tokens": 100 * n, "seconds": n, "item": 5 - n, "task/next_item": 1.0} for n in range(4)]
    lines[2]["ndcg10"] = 0.1
    (work / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n[1]\n{"step": 4, "tok')
    assert model_view.training_curves(model) == {"item": [(0, 5), (100, 4), (200, 3), (300, 2)]}
    model.mkdir()
    (model / "metrics.jsonl").write_text("".join(f'{{"tokens": {n}, "kl": {n % 7}}}\n' for n in range(5000)))
    (kl,) = model_view.training_curves(model).values()
    assert len(kl) <= 401
    assert (kl[0], kl[-1]) == ((0, 0), (4999, 4999 % 7))
    html = tabs.learning_curves({"kl": kl})
    assert html.count("<line") == len(kl) - 1
    assert not re.search(r'(?:x|y)[12]="(?:nan|inf|-)', html)


def result(**given: Any) -> dict[str, Any]:
    row = {"name": HOSTILE, "metrics": {"recall@10": {"mean": 0.2, "ci95": [0.1, 0.3]}}}
    came = {"n": 9, "seed": 0, "commit": "abcdef1234567890", "command": "llmrec eval", "seconds": 1.0}
    targets = [{"name": "hybrid_over_x", "value": 1.25}, {"name": "later", "value": None}]
    return {"suite": "accuracy", "dataset": "toy", "protocol": {}, "rows": [row], "targets": targets,
            "provenance": came, **given}  # fmt: skip


def test_result_files_become_tables_and_others_are_named(tmp_path: Path) -> None:
    (tmp_path / "accuracy-toy.json").write_text(json.dumps(result()))
    (tmp_path / "bench-toy.json").write_text(json.dumps(result(suite="bench", rows=[])))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("[1, 2]")
    found, wrong = model_view.load_result_tables(tmp_path)
    assert [one.name for one in found] == ["accuracy-toy", "bench-toy"]
    assert found[0].rows[0][1] == ((0.2, 0.1, 0.3),)
    assert found[0].targets == (("hybrid_over_x", 1.25), ("later", None))
    assert [line.split()[0] for line in wrong] == ["broken.json", "other.json"]
    html = tabs.result_tables(found, wrong)
    for words in ("0&#46;2", "0&#46;1 to 0&#46;3", "1&#46;25", "not measured", "abcdef123456"):
        assert words in html, words
    assert model_view.load_result_tables(tmp_path / "gone") == ([], [])


def test_the_results_of_this_repository_can_be_shown() -> None:
    found, wrong = model_view.load_result_tables(None)
    assert wrong == []
    assert "accuracy-ml-100k" in {one.name for one in found}


# ---- all of them


def test_all_tabs_build_and_their_events_are_private(recommender: Recommender, tmp_path: Path) -> None:
    made = services(recommender, batch_dir=folder_of(tmp_path))
    with gr.Blocks(analytics_enabled=False) as blocks, gr.Tabs():
        for module in (tab_compare, tab_batch, tab_model):
            with gr.Tab(module.__name__):
                module.build(made)
    assert len(blocks.fns) >= 7
    assert {fn.api_visibility for fn in blocks.fns.values()} == {"private"}
    assert not any(type(block).__name__ in {"HTML", "File", "UploadButton", "Plot"} for block in blocks.blocks.values())
    fill = next(fn.fn for fn in blocks.fns.values() if len(fn.outputs) == 4)
    card, drawn, curves, results = fill()
    assert "12 films" in card
    assert "<svg" in drawn
    assert curves
    assert "accuracy&#45;ml&#45;100k" in results


def hostile_catalog() -> Catalog:
    items = [replace(item, title=f"{HOSTILE} {n}", attributes={"genre": (HOSTILE,), "year": 1990})
             for n, item in enumerate(make_catalog().items)]  # fmt: skip
    return Catalog([Item(f"i{n}", one.title, "", one.attributes) for n, one in enumerate(items)], "films")


@pytest.mark.parametrize(
    "draw",
    [
        lambda c: tabs.comparison_columns(
            [
                compare.ComparisonColumn(
                    HOSTILE, HOSTILE, (compare.ComparisonEntry(HOSTILE, -1, False, HOSTILE),), 1.0, True, HOSTILE
                )
            ],
            [HOSTILE],
        ),
        lambda c: tabs.semantic_id_map(c, [model_view.MapPoint(0, 0, 0.5, 0.5)], 12),
        lambda c: tabs.code_groups(c, [model_view.CodeGroup(0, 1, ((HOSTILE, 1.0),), (0, 1))]),
        lambda c: tabs.fact_list([(HOSTILE, HOSTILE)]),
        lambda c: tabs.learning_curves({HOSTILE: [(0.0, 1.0), (1.0, 2.0)]}),
        lambda c: tabs.bar_chart(HOSTILE, [(HOSTILE, 3)]),
        lambda c: tabs.metric_tiles({HOSTILE: 1.0}),
        lambda c: tabs.error_line(HOSTILE),
        lambda c: tabs.result_tables([model_view._result(HOSTILE, result(dataset=HOSTILE))], [HOSTILE]),
    ],
)  # fmt: skip
def test_hostile_text_stays_text(draw: Callable[[Catalog], str]) -> None:
    html = draw(hostile_catalog())
    assert "onerror" in html
    assert not re.search(r"<(?:img|script|a)\b", html)
    assert "](javascript" not in html
    assert "**" not in html
    for tag in re.findall(r"<[^>]*>", html):
        assert "onerror" not in tag
        assert "javascript" not in tag


def test_a_batch_list_is_escaped_too(recommender: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"request_id": HOSTILE, "message": HOSTILE, "target": "i1"}) + "\n")
    (row,) = batch.read_requests(path)
    answer = batch.RankedRequest(row, tuple(recommender.recommend(Request((2,), k=2))), 0)
    html = tabs.batch_results(hostile_catalog(), batch.BatchResult((answer,), 1, 0.1, ended=True), {}, "")
    assert "<img" not in html
    assert "<script" not in html
    assert "not listed" in html


def test_a_file_with_a_bad_row_is_refused_before_anything_is_ranked(recommender: Recommender, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"request_id": 1, "items": []}\n{"request_id": 2, "items": [], "target": [1]}\n')
    with pytest.raises(DataError, match="target is"):
        list(batch.rank_requests(recommender, path))
