"""The benchmark of ranking compares the same lists, and writes the one form."""

import json
from pathlib import Path

import numpy as np
import pytest
from toy_ranking import load, make_world

from llmrec.batch.ranker import RankingTask
from llmrec.decoding import trie_scoring
from llmrec.decoding.beam_search import beam_search
from llmrec.errors import DataError
from llmrec.eval.bench import batch_ranking, catalog_scaling
from llmrec.eval.bench.generate_ranking import generate_ranker
from llmrec.eval.bench.scaling_page import BEGIN, END, update_page
from llmrec.eval.result_file import check_result
from llmrec.ranker import top_k, unseen
from llmrec.ranking.fusion import fill_catalog


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def recommender(model):
    return load(str(model), None)


def test_generate_makes_the_lists_of_as_many_beams(recommender):
    tasks = [RankingTask(tuple(recommender.history_of(user))) for user in recommender.users[:3]] + [
        RankingTask((1, 7, 30, 2))
    ]
    side, scorer, n = generate_ranker(recommender), recommender.scorer, len(recommender.catalog)
    assert len(side.children[()][0]) == len(set(recommender.model.vocab.ids.codes[:, 0]))
    for task, found in zip(tasks, side.lists(tasks, 4), strict=True):
        history = np.array(task.history)
        (beams,) = beam_search(recommender.model, scorer.trie, [scorer.prompt(history)], 4, 4)
        parts = scorer.parts([history], llm=fill_catalog(beams.rows, beams.scores, n)[None])
        rows, _ = top_k(recommender.fusions["history"].combine(parts), task.k, unseen([history], n))
        assert rows[0].tolist() == found


def test_rates_leave_out_warming_up_and_the_end():
    log = [(0.0, 0), (10.0, 4), (11.0, 8), (12.0, 12), (13.0, 16), (20.0, 20)]
    assert batch_ranking.steady_rate(log, 4) == pytest.approx(4.0)
    assert batch_ranking.steady_rate([(0.0, 0), (2.0, 4)], 4) == pytest.approx(2.0)


def test_growth_is_measured_on_the_layers_of_the_model(recommender, monkeypatch):
    monkeypatch.setattr(catalog_scaling, "REQUESTS", 2)
    monkeypatch.setattr(catalog_scaling, "QUERIES", 20)
    values = catalog_scaling.benchmark_ranking(recommender, 2000, 0) | catalog_scaling.benchmark_index(2000, 0)
    assert 0 < values["recall100_1_of_64"][0] <= values["recall100_1_of_16"][0] <= 1
    assert values["all_tokens"][0] >= trie_scoring.PASS_TOKENS["float32"]


@pytest.mark.long
def test_the_whole_bench_writes_the_one_form(model, tmp_path, monkeypatch, capsys):
    small = batch_ranking.BenchmarkSizes(users=12, few=8, reference=2, memory=2, catalogues=())
    monkeypatch.setattr(batch_ranking, "FULL", small)
    monkeypatch.setattr(batch_ranking, "BEAMS", (2, 3, 4))
    monkeypatch.setattr(batch_ranking, "TARGET_BEAMS", 4)
    monkeypatch.setattr(batch_ranking, "find_spec", lambda name: None)  # Ray has its own tests
    monkeypatch.setattr(batch_ranking.os, "cpu_count", lambda: 1)
    batch_ranking.benchmark_ranking(model, tmp_path / "out", loader=load)
    result = json.loads((tmp_path / "out" / "bench-rank.json").read_text())
    check_result(result, "bench-rank")
    targets = {one["name"]: one["value"] for one in result["targets"]}
    assert targets["speedup_over_generate"] > 0 and targets["ray_two_workers_speedup"] is None
    assert not list((tmp_path / "out").glob("*.parquet")) and "speedup" in capsys.readouterr().out


def test_the_page_is_made_from_the_result():
    numbers = {
        "rank_1_processes": {"users_per_s": 2.0, "users_per_s_with_loading": 1.5, "users": 8},
        "ray_2_actors": {"users_per_s": 4.0, "users_per_s_with_loading": 2.5, "users": 8},
        "generate_beams20": {"users_per_s": 0.25, "speedup": 16.0, "overlap10": 0.875},
        "memory": {"peak_bytes": 1e9, "peak_bytes_100x_input": 1.01e9, "requests": 200},
        "catalogue_10000": dict.fromkeys(
            ("all_tokens", "candidates_tokens", "all_seconds", "candidates_seconds", "dense_seconds",
             "trie_build_seconds", "exact_query_seconds", "query_seconds_1_of_64", "recall100_1_of_64",
             "query_seconds_1_of_16", "recall100_1_of_16", "index_build_seconds"), 0.5),
    }  # fmt: skip
    rows = [
        {"name": n, "metrics": {m: {"mean": v, "ci95": [v, v]} for m, v in one.items()}} for n, one in numbers.items()
    ]
    names = ("speedup_over_generate", "memory_ratio_100x_input", "ray_two_workers_speedup")
    result = {
        "suite": "bench-rank", "dataset": "d", "protocol": "p", "rows": rows,
        "targets": [{"name": name, "value": 1.0} for name in names],
        "provenance": {"commit": "0123456789", "seed": 0, "command": "llmrec bench --rank", "seconds": 1.0, "n": 8,
                       "versions": dict.fromkeys(("python", "torch", "numpy", "transformers", "llmrec"), "1"),
                       "machine": {"cpu": "c", "cores": 2}},
    }  # fmt: skip
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    made = update_page(text, result)
    assert made.startswith("before\n") and made.endswith("\nafter\n") and "old" not in made
    assert "| `generate`, 20 beams, batches of 8, all cores | 0.25 |  | 0.88 |" in made and "13,889 core hours" in made
    assert update_page(made, result) == made
    with pytest.raises(DataError, match="needs one line"):
        update_page("nothing", result)


def test_the_page_on_scaling_can_be_made_anew():
    text = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1 and text.index(BEGIN) < text.index(END)
