"""The accuracy suite as the command line runs it, on the toy world; and the suites in order."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import HashEmbedder, make_catalog, make_interactions, make_model

from llmrec.data.interactions import Interactions, leave_one_out, split_by_time
from llmrec.encoders import ease
from llmrec.encoders.config import EncoderConfig
from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours
from llmrec.errors import ArtifactError, DataError, RequestError
from llmrec.eval import result_file, run
from llmrec.eval.accuracy import setup, suite
from llmrec.eval.accuracy.ablation import ComponentRanker, leave_one_component_out
from llmrec.eval.accuracy.setup import global_time
from llmrec.eval.accuracy.suite import run_accuracy
from llmrec.eval.baselines import factorisation
from llmrec.eval.chat_client import CachingScorer
from llmrec.eval.result_file import Row, is_current, provenance, stamp_result, write_result
from llmrec.ranking.fusion import Fusion
from llmrec.ranking.scorer import Scorer
from llmrec.recommender import Recommender
from llmrec.semantic_ids.trie import Trie

N = 12
BASELINES = {"popularity", "recent-popularity", "text-lookup", "item-knn", "ease", "sasrec", "hstu"}
FACTORS = {"als", "bpr"} if factorisation.installed() else set()


def make_recommender(interactions):
    model, catalog, embedder = make_model(N), make_catalog(N), HashEmbedder()
    model.merge()
    text = embedder.encode([catalog.describe(row) for row in range(N)])
    knn = fit_neighbours(interactions, N, NeighbourSettings())
    scorer = Scorer(model, Trie(model.vocab.ids.codes, model.vocab.ids.size), text, knn, embedder, "films", 6)
    fusions = {"history": Fusion({"encoder": 1.0, "llm": 0.5, "neighbours": 0.5})}
    meta = {"train_fingerprint": leave_one_out(interactions).train.fingerprint}
    return Recommender(catalog, interactions, scorer, fusions, meta, "toy")


@pytest.fixture(scope="module")
def recommender():
    return make_recommender(make_interactions(users=16))


@pytest.fixture
def world(recommender, monkeypatch):
    """The toy in place of a model directory, and grids of one value."""
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda model, data: recommender))
    one = {"neighbours": 5, "shrink": 1.0, "alpha": 0.5, "decay": 1.0, "recent": 5, "window": 0}
    tiny = EncoderConfig(dim=8, layers=1, heads=2, dropout=0.0, max_len=5, epochs=2, batch=16, lr=0.01)
    few = {
        "item_knn": {"grid": {name: (value,) for name, value in one.items()}},
        "text_lookup": {"grid": {"whiten": (False,), "recent": (1, 3)}},
        "recent_popularity": {"grid": {"half_life": (0.5,)}},
        "ease": {"grid": {"window": (3,), "ridge": (1.0,), "fade": (0.9,)}},
        "als": {"grid": {"factors": (2,), "regularization": (0.1,), "alpha": (1.0,)}},
        "bpr": {"grid": {"factors": (2,), "learning_rate": (0.05,), "regularization": (0.1,), "iterations": (3,)}},
        "encoder": {"grid": {"layers": (1,)}, "start": tiny},
    }
    for name, given in few.items():
        tune = getattr(suite, f"tune_{name}")
        monkeypatch.setattr(suite, f"tune_{name}", lambda *a, _t=tune, _g=given, **k: _t(*a, **k, **_g))
    return recommender


def test_a_run_leaves_values_lists_tuning_and_a_result(world, tmp_path):
    table = run_accuracy(None, None, tmp_path)
    without = {f"hybrid, no {part}" for part in ("encoder", "llm", "neighbours")}
    assert set(table.estimates) == BASELINES | FACTORS | {"llm", "llm, no user vector", "hybrid"} | without
    one, other = (table.measured.values[name]["ndcg@10"] for name in ("llm", "llm, no user vector"))
    assert not np.array_equal(one, other)
    value = json.loads((tmp_path / "accuracy-toy.json").read_text())
    assert value["suite"] == "accuracy" and value["provenance"]["command"] == "llmrec eval --suite accuracy"
    told = value["protocol"]
    assert told["products"] == "float32"
    assert told["best_baseline"] in BASELINES | FACTORS and told["refit_on_validation"] is False
    assert set(told["p_ndcg@10_vs_sasrec"]) == set(table.estimates) - {"sasrec"}
    assert set(told["p_ndcg@10_between_rows"]) == set(table.estimates)
    assert {target["name"] for target in value["targets"]} >= {
        *result_file.TARGETS["accuracy-ml-100k"],
        *result_file.TARGETS["accuracy-beauty"],
    }
    ranked = {line["ranker"] for line in map(json.loads, (tmp_path / "tuning-toy.jsonl").read_text().splitlines())}
    assert ranked == (BASELINES | FACTORS) - {"popularity", "sasrec"}
    stored = pq.read_table(tmp_path / "per_user" / "per-user-toy.parquet")
    assert stored["hybrid ndcg@10"].to_pylist() == table.measured.values["hybrid"]["ndcg@10"].tolist()
    lists = pq.read_table(tmp_path / "per_user" / "per-user-accuracy-lists-toy.parquet").to_pylist()
    assert len(lists) == 16 * len(table.estimates)
    ours = next(line for line in lists if line["ranker"] == "hybrid" and line["user"] == 0)
    history, target = table.measured.histories[0], int(table.measured.targets[0])
    label = world.catalog.label
    assert ours["target"] == label(target) and ours["history"] == "; ".join(label(int(row)) for row in history)
    assert ours["listed"].split("; ")[ours["place"]] == label(target)


def test_rows_that_only_say_what_a_part_earns_may_be_of_a_sample(world, tmp_path):
    whole, few = run_accuracy(None, None, tmp_path / "whole"), run_accuracy(None, None, tmp_path / "few", ablations=6)
    assert set(few.estimates) == set(whole.estimates)
    costly = {"llm", "llm, no user vector", "hybrid, no encoder", "hybrid, no neighbours"}
    value = json.loads((tmp_path / "few" / "accuracy-toy.json").read_text())
    assert set(value["protocol"]["rows_of_the_sample"]) == costly and value["protocol"]["users_sampled"] == 6
    assert value["provenance"]["command"].endswith("--ablations 6") and value["provenance"]["n"] == 16
    for name in few.estimates:
        of = few.measured.asked(name)
        assert of.sum() == (6 if name in costly else 16), name
        np.testing.assert_allclose(
            few.measured.values[name]["ndcg@10"][of], whole.measured.values[name]["ndcg@10"][of], err_msg=name
        )
    lists = pq.read_table(tmp_path / "few" / "per_user" / "per-user-accuracy-lists-toy.parquet").to_pylist()
    assert len(lists) == 16 * (len(few.estimates) - 4) + 6 * 4
    with pytest.raises(RequestError, match="ablations are of 0 users"):
        run_accuracy(None, None, tmp_path, ablations=0)


def test_a_second_run_tries_nothing_again_and_says_the_same(world, tmp_path, monkeypatch):
    first = run_accuracy(None, None, tmp_path)
    monkeypatch.setattr("llmrec.eval.baselines.encoders.train_encoder", lambda *a, **k: pytest.fail("trained again"))
    again = run_accuracy(None, None, tmp_path)
    assert first.estimates == again.estimates and first.pairs == again.pairs


def test_a_split_by_time_has_no_row_of_a_model_trained_on_another(world, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "read_settings", lambda path: {"data": "toy"})
    monkeypatch.setattr(setup, "open_data", lambda name: (world.catalog, spread()))
    monkeypatch.setattr(setup, "read_manifest", lambda *a, **k: SimpleNamespace(meta=world.model_card))
    monkeypatch.setattr(setup.MiniLM, "load", staticmethod(HashEmbedder))
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    table = run_accuracy(None, None, tmp_path, split="time")
    assert set(table.estimates) == BASELINES | FACTORS
    value = json.loads((tmp_path / "accuracy-time-toy.json").read_text())
    assert value["suite"] == "accuracy-time" and value["protocol"]["split"].startswith("by-time")
    assert value["provenance"]["command"] == "llmrec eval --suite accuracy --split time"
    why = value["protocol"]["rows_left_out"]["hybrid"]
    assert world.model_card["train_fingerprint"][:16] in why and "not measured" in why
    assert all(target["value"] is None for target in value["targets"])
    assert (tmp_path / "tuning-time-toy.jsonl").is_file()


def test_a_split_by_time_has_all_rows_of_a_model_trained_on_it(world, tmp_path, monkeypatch):
    x = spread()
    mine = make_recommender(x)
    mine.model_card["train_fingerprint"] = global_time(x).train.fingerprint
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda model, data: mine))
    monkeypatch.setattr(setup, "read_settings", lambda path: {"data": "toy"})
    monkeypatch.setattr(setup, "open_data", lambda name: (mine.catalog, x))
    monkeypatch.setattr(setup, "read_manifest", lambda *a, **k: SimpleNamespace(meta=mine.model_card))
    assert {"llm", "hybrid"} <= set(run_accuracy(None, None, tmp_path, limit=3, split="time").estimates)


def spread():
    """The toy's walks, each begun a little later than the one before, so that moments cut them in the middle."""
    x = make_interactions(users=16)
    return Interactions.build([x.users[u] for u in x.user], x.row, x.time * 10 + x.user, x.value)


def test_the_cut_by_time_leaves_the_shares_behind():
    x = spread()
    split = global_time(x, 0.5, 0.75)
    assert abs(len(split.train) / len(x) - 0.5) < 0.1
    same = split_by_time(x, *(int(word) for word in split.name.split()[1:]))
    assert (same.test == split.test).all() and split.train.time.max() < split.window.time.min()
    with pytest.raises(DataError, match="must be before"):
        global_time(Interactions.build(["a"] * 3, [0, 1, 2], [5, 5, 5], [1.0] * 3))
    with pytest.raises(DataError, match="without interactions"):
        global_time(Interactions.build([], [], [], []))


def test_a_model_of_another_split_and_a_split_that_is_none_are_refused(world, tmp_path, monkeypatch):
    other = make_recommender(make_interactions(users=16))
    other.model_card["train_fingerprint"] = "f" * 64
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda model, data: other))
    with pytest.raises(ArtifactError, match="f" * 16):
        run_accuracy(None, None, tmp_path)
    with pytest.raises(RequestError, match="no split 'random'; there are: loo, time"):
        run_accuracy(None, None, tmp_path, split="random")


def test_rows_that_need_a_missing_package_are_left_out_with_the_reason(world, tmp_path, monkeypatch):
    monkeypatch.setattr(factorisation, "installed", lambda: False)
    table = run_accuracy(None, None, tmp_path, limit=5)
    assert not {"als", "bpr"} & set(table.estimates)
    value = json.loads((tmp_path / "accuracy-toy.json").read_text())
    assert "implicit is not installed" in value["protocol"]["rows_left_out"]["als"]
    assert value["provenance"]["command"].endswith("--limit 5") and value["provenance"]["n"] == 5


def test_only_the_baselines_that_are_asked_for_are_run(world, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "tune_encoder", lambda *a, **k: pytest.fail("trained an encoder"))
    ours = {
        "llm",
        "llm, no user vector",
        "hybrid",
        *(f"hybrid, no {part}" for part in ("encoder", "llm", "neighbours")),
    }
    for words, rows in (("none", set()), ("item-knn, popularity,item-knn", {"item-knn", "popularity"})):
        table = run_accuracy(None, None, tmp_path, limit=5, baselines=words)
        assert set(table.estimates) == ours | rows | {"sasrec"}  # the model's own encoder: it is there already
        value = json.loads((tmp_path / "accuracy-toy.json").read_text())
        left_out = set(value["protocol"]["rows_left_out"])
        assert left_out == set(suite.BASELINES) - rows - {"sasrec"}
        target = next(one for one in value["targets"] if one["name"] == "hybrid_over_best_baseline_ndcg10")
        assert target["value"] is None  # of some rows there is no best
        assert value["provenance"]["command"].startswith("llmrec eval --suite accuracy --limit 5 --baselines ")
    assert len((tmp_path / "tuning-toy-of-5.jsonl").read_text().splitlines()) == 1


def test_a_limit_holds_for_the_tuning_and_leaves_the_whole_one_alone(world, tmp_path, monkeypatch, capsys):
    tuned = []

    class Noted(suite.TuningLog):
        def __init__(self, path, dataset):
            tuned.append(path.name)
            super().__init__(path, dataset)

    monkeypatch.setattr(suite, "TuningLog", Noted)
    asked, tune = [], suite.tune_item_knn
    monkeypatch.setattr(suite, "tune_item_knn", lambda *a, **k: asked.append(k["users"]) or tune(*a, **k))
    for limit in (None, 5):
        run_accuracy(None, None, tmp_path, limit=limit, baselines="item-knn")
        told = json.loads((tmp_path / "accuracy-toy.json").read_text())["protocol"]["validation_users"]
        assert told == asked[-1] == (5 if limit == 5 else 16)
    assert tuned == ["tuning-toy.jsonl", "tuning-toy-of-5.jsonl"]
    subject = SimpleNamespace(split=leave_one_out(make_interactions(users=16)))
    assert [suite._tuned_on(subject, limit) for limit in (None, 16, 100, 1)] == [16, 16, 16, 1]
    assert "choosing settings of item-knn on 5 validation users" in " ".join(capsys.readouterr().err.split())
    lines = []
    suite._announce(lines.append, ["popularity", "sasrec", "hstu"], ["sasrec"], 5)
    said = " ".join(lines)
    assert "choosing settings of hstu on 5 validation users hstu: encoders are trained on the whole train part" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [("eas", r"'eas' \(did you mean ease\?\)"), ("", "''"), ("none,ease", "'none'"), ("ease,x", "'x'")],
)
def test_baselines_that_are_none_are_named(words, named, tmp_path):
    known = "popularity, recent-popularity, text-lookup, item-knn, ease, als, bpr, sasrec, hstu, or none alone"
    with pytest.raises(RequestError, match=f"--baselines: no baseline {named}; there are: {known}"):
        run.run_suite("accuracy", None, None, tmp_path, baselines=words)
    with pytest.raises(RequestError, match="--baselines ease was given with --suite stability; only accuracy has"):
        run.run_suite("stability", None, None, tmp_path, baselines="ease")


def test_a_baseline_that_cannot_be_had_here_is_refused_by_name(world, tmp_path, monkeypatch):
    monkeypatch.setattr(factorisation, "installed", lambda: False)
    with pytest.raises(RequestError, match=r"--baselines names als, which cannot be measured here: .*implicit"):
        run_accuracy(None, None, tmp_path, baselines="popularity,als")
    monkeypatch.setattr(setup, "read_settings", lambda path: {"data": "toy"})
    monkeypatch.setattr(setup, "open_data", lambda name: (world.catalog, spread()))
    monkeypatch.setattr(setup, "read_manifest", lambda *a, **k: SimpleNamespace(meta=world.model_card))
    monkeypatch.setattr(setup.MiniLM, "load", staticmethod(HashEmbedder))
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    with pytest.raises(RequestError, match=r"--baselines none leaves nothing to measure: .*not measured"):
        run_accuracy(None, None, tmp_path, split="time", baselines="none")
    table = run_accuracy(None, None, tmp_path, split="time", baselines="popularity,item-knn")
    assert set(table.estimates) == {"popularity", "item-knn"} and table.reference == "item-knn"


def test_ease_is_left_out_with_the_reason_where_memory_does_not_hold_it(world, tmp_path, monkeypatch):
    monkeypatch.setattr(ease.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    table = run_accuracy(None, None, tmp_path, limit=5)
    assert "ease" not in table.estimates and "item-knn" in table.estimates
    value = json.loads((tmp_path / "accuracy-toy.json").read_text())
    assert value["protocol"]["rows_left_out"]["ease"].startswith(
        "not measured: neighbours by ridge regression of 12 items"
    )


def test_parts_are_made_once_a_history_and_not_kept_for_ever(recommender):
    asked = []

    class Counting(CachingScorer):
        def non_llm_parts(self, histories, messages):
            asked.append(histories[0].tolist())
            return super().non_llm_parts(histories, messages)

    parts = Counting.of(recommender.scorer, kept=2)
    rankers = [ComponentRanker(name, parts, Fusion({name: 1.0})) for name in ("llm", "encoder")]
    histories = [np.array([0, 2]), np.array([1])]
    for ranker in rankers:
        rows, _ = ranker.rank(histories, 3)
        assert rows.shape == (2, 3)
    assert asked == [[0, 2], [1]]
    rankers[0].rank([np.array([3])], 3)
    rankers[0].rank([np.array([0, 2])], 3)
    assert asked == [[0, 2], [1], [3], [0, 2]]
    fused = ComponentRanker("hybrid", parts, recommender.fusions["history"])
    assert fused.rank(histories, 5)[0].tolist() == recommender.rank(histories, 5)[0].tolist()


# The suites in order


@pytest.fixture
def suites(monkeypatch, tmp_path):
    """Suites that only leave a file, and what was run."""
    ran = []

    def measuring(name):
        def measure(job):
            ran.append(name)
            came = provenance(0, f"llmrec eval --suite {name}", 1.0, 1)
            write_result(job.out / f"{name}-toy.json", name, "toy", "told", [Row("a", {})], [], came)

        return measure

    monkeypatch.setattr(run, "MEASURING", {name: measuring(name) for name in run.MEASURING})
    monkeypatch.setattr(run, "run_report", lambda out, model: ran.append("report"))
    monkeypatch.setattr(run, "fingerprints", lambda job: {"catalog": "c", "model": str(job.model)})
    monkeypatch.setattr(run.Job, "dataset", property(lambda job: "toy"))
    return ran


def test_all_suites_run_in_order_and_those_that_have_a_result_not_again(suites, tmp_path):
    run.run_suite("all", "m", None, tmp_path, data_dir=tmp_path)
    assert suites == ["accuracy", "stability", "retention", "grounding", "conversation", "report"]
    suites.clear()
    (tmp_path / "stability-toy.json").unlink()
    run.run_suite("all", "m", None, tmp_path, data_dir=tmp_path)
    assert suites == ["stability", "report"]
    suites.clear()
    run.run_suite("all", "other", None, tmp_path)  # another model, and nowhere to read benchmarks from
    assert suites == ["accuracy", "stability", "grounding", "conversation", "report"]
    suites.clear()
    run.run_suite("all", "other", None, tmp_path, limit=5)
    assert suites == ["accuracy", "stability", "grounding", "conversation", "report"]


def test_one_suite_is_measured_whether_it_was_or_not_and_stamped(suites, tmp_path):
    for _ in range(2):
        run.run_suite("stability", "m", None, tmp_path, limit=3)
    assert suites == ["stability", "stability"]
    came = json.loads((tmp_path / "stability-toy.json").read_text())["provenance"]
    assert came["fingerprints"] == {"catalog": "c", "model": "m"} and came["arguments"] == {"limit": 3, "split": None}


def test_a_limit_of_all_is_a_like_share_of_every_suite(suites, tmp_path):
    run.run_suite("all", "m", None, tmp_path, limit=100, data_dir=tmp_path)
    limits = {
        name: json.loads((tmp_path / f"{name}-toy.json").read_text())["provenance"]["arguments"]["limit"]
        for name in run.MEASURING
    }
    assert limits == {"accuracy": 100, "stability": 2, "retention": 10, "grounding": 6, "conversation": 12}


def test_a_result_is_of_as_many_users_a_part_as_were_asked_for(suites, tmp_path):
    for ablations in (None, 5, 5):
        run.run_suite("all", "m", None, tmp_path, ablations=ablations)
    run.run_suite("all", "m", None, tmp_path, ablations=5, baselines="none")
    run.run_suite("all", "m", None, tmp_path, ablations=5)
    assert suites.count("accuracy") == 4 and suites.count("stability") == 1
    came = json.loads((tmp_path / "accuracy-toy.json").read_text())["provenance"]
    assert came["arguments"] == {"limit": None, "split": "loo", "ablations": 5}


def test_the_report_alone_measures_nothing(suites, tmp_path):
    run.run_suite("report", "m", None, tmp_path)
    assert suites == ["report"]


def test_an_unknown_suite_names_those_that_there_are(tmp_path):
    with pytest.raises(RequestError, match=r"no suite 'speed'; there are: accuracy, stability, .*, report, all"):
        run.run_suite("speed", None, None, tmp_path)


def test_a_result_of_other_code_is_not_current(tmp_path, monkeypatch):
    path = tmp_path / "x-toy.json"
    write_result(path, "x", "toy", "told", [], [], provenance(0, "llmrec eval", 1.0, 1))
    assert not is_current(path, {}, {})
    stamp_result(path, {"catalog": "c"}, {"limit": None})
    assert is_current(path, {"catalog": "c"}, {"limit": None})
    assert not is_current(path, {"catalog": "d"}, {"limit": None}) and not is_current(tmp_path / "no.json", {}, {})
    monkeypatch.setattr(result_file, "commit", lambda: ("0" * 40, False))
    assert not is_current(path, {"catalog": "c"}, {"limit": None})


def test_familiarity_is_left_out_like_a_part(recommender):
    weights = {"encoder": 1.0, "llm": 0.5, "profile": 0.5, "encoder*familiarity": 0.2, "profile*novelty": 0.2}
    fusions, split = {"history": Fusion(weights)}, leave_one_out(recommender.interactions)
    leaning = Recommender(recommender.catalog, recommender.interactions, recommender.scorer, fusions, {}, "toy")
    rows = {one.name: set(one.fusion.weights) for one in leave_one_component_out(leaning, split, 0)}
    assert set(rows) == {f"hybrid, no {part}" for part in ("encoder", "llm", "profile", "familiarity")}
    assert rows["hybrid, no familiarity"] == {"encoder", "llm", "profile"}
    assert rows["hybrid, no encoder"] == {"llm", "profile", "profile*novelty"}
