"""Settings that were tried are kept; encoders and factors are baselines like any other."""

import json

import numpy as np
import pytest
from conftest import make_interactions
from ranker_contract import RankerContract

from llmrec.data.interactions import leave_one_out
from llmrec.encoders.config import EncoderConfig
from llmrec.encoders.training import train_encoder
from llmrec.errors import RequestError
from llmrec.eval.baselines import factorisation
from llmrec.eval.baselines.encoders import train_baseline_encoder, tune_encoder
from llmrec.eval.baselines.factorisation import ALS, BPR, train_matrix, tune_als, tune_bpr
from llmrec.eval.baselines.rankers import EncoderRanker, ItemKNN
from llmrec.eval.baselines.tuning import TuningLog, ValidationScorer, tune, tune_item_knn

SPLIT = leave_one_out(make_interactions())
SMALL = {"window": (0, 1), "shrink": (0.0,), "alpha": (0.5,), "neighbours": (12,), "decay": (0.0, 2.0), "recent": (5,)}
TINY = EncoderConfig(dim=8, layers=1, heads=2, dropout=0.0, max_len=10, epochs=4, batch=16, lr=0.02)
needs_implicit = pytest.mark.skipif(not factorisation.installed(), reason="the package implicit is not installed")


@needs_implicit
class TestALS(RankerContract):
    def make(self, toy):
        return ALS(toy.train, toy.n_items, factors=2, regularization=0.1, alpha=4.0)


@needs_implicit
class TestBPR(RankerContract):
    def make(self, toy):
        return BPR(toy.train, toy.n_items, factors=2, regularization=0.01, iterations=200)


class TestHSTU(RankerContract):
    def make(self, toy):
        config = EncoderConfig(
            dim=8, layers=1, heads=2, dropout=0.0, max_len=10, epochs=30, batch=16, lr=0.02, kind="hstu"
        )  # fmt: skip
        return EncoderRanker(train_encoder(toy.train, toy.n_items, config, seed=0)[0], "hstu")


def counting(split=SPLIT):
    """A maker of neighbours that notes what it was asked to make."""
    made = []

    def make(params):
        made.append(dict(params))
        return ItemKNN(split.train, 12, decay=params["decay"])

    return make, made


def test_what_was_tried_is_not_tried_again(tmp_path):
    path, check = tmp_path / "tuning.jsonl", ValidationScorer(SPLIT, 12)
    make, made = counting()
    first, trials = tune("knn", make, {"decay": (0.0, 1.0, 2.0)}, check, TuningLog(path, "toy"))
    assert made[:3] == [{"decay": 0.0}, {"decay": 1.0}, {"decay": 2.0}] and len(made) == 4  # the winner once more
    again, repeated = tune("knn", make, {"decay": (0.0, 1.0, 2.0)}, check, TuningLog(path, "toy"))
    assert len(made) == 5 and repeated == trials and again.decay == first.decay
    tune("knn", make, {"decay": (0.0, 3.0)}, check, TuningLog(path, "toy"))
    assert {"decay": 3.0} in made and made.count({"decay": 0.0}) <= 3


def test_other_inputs_are_tried_anew_and_the_old_ones_forgotten(tmp_path):
    path = tmp_path / "tuning.jsonl"
    make, made = counting()
    grid = {"decay": (0.0, 1.0)}
    tune("knn", make, grid, ValidationScorer(SPLIT, 12), TuningLog(path))
    tune("other", make, grid, ValidationScorer(SPLIT, 12), TuningLog(path))
    other = leave_one_out(make_interactions(seed=1))
    tune("knn", make, grid, ValidationScorer(other, 12), TuningLog(path))
    assert len(made) == 9
    tune("knn", make, grid, ValidationScorer(other, 12), TuningLog(path), inputs="seed 1")
    assert len(made) == 12
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(line["ranker"] for line in lines) == ["knn", "knn", "other", "other"]
    assert all(set(line) == {"dataset", "part", "inputs", "ranker", "params", "metrics"} for line in lines)


def test_lines_of_an_older_form_are_left_out(tmp_path):
    path = tmp_path / "tuning.jsonl"
    path.write_text('{"dataset": "toy", "metrics": {}, "params": {}, "part": "valid"}\n')
    _, log = tune_item_knn(SPLIT, 12, SMALL, log=TuningLog(path, "toy"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == len(log) == 4 and all(line["dataset"] == "toy" for line in lines)


def test_tuning_with_and_without_a_log_is_the_same(tmp_path):
    plain = tune_item_knn(SPLIT, 12, SMALL)
    for _ in range(2):
        kept = tune_item_knn(SPLIT, 12, SMALL, log=TuningLog(tmp_path / "t.jsonl"))
        assert kept[1] == plain[1] and (kept[0].similarity != plain[0].similarity).nnz == 0


@pytest.mark.parametrize("kind", ["sasrec", "hstu"])
def test_an_encoder_is_tuned_trained_once_and_found_again(kind, tmp_path):
    said, log = [], TuningLog(tmp_path / "t.jsonl")
    grid = {"layers": (1, 2), "dropout": (0.0,)}
    first, trials = tune_encoder(kind, SPLIT, 12, grid, log=log, work=tmp_path / "work", start=TINY, say=said.append)
    assert first.name == kind and first.encoder.config.kind == kind and len(trials) == 2
    assert sum(line.startswith("training") for line in said) == 2
    assert first.encoder.config.layers in (1, 2) and isinstance(first.encoder.config.layers, int)
    again, repeated = tune_encoder(kind, SPLIT, 12, grid, log=log, work=tmp_path / "work", start=TINY, say=said.append)
    assert sum(line.startswith("training") for line in said) == 2 and repeated == trials
    history = [np.array([0, 2, 4])]
    assert (first.encoder.scores(history) == again.encoder.scores(history)).all()
    assert (tmp_path / "work" / ".gitignore").read_text() == "*\n"


def test_a_damaged_encoder_is_trained_again(tmp_path):
    said, check = [], ValidationScorer(SPLIT, 12)
    first = train_baseline_encoder(SPLIT, 12, TINY, 0, check, tmp_path, said.append)
    (file,) = tmp_path.glob("encoder-sasrec-*/encoder.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    again = train_baseline_encoder(SPLIT, 12, TINY, 0, check, tmp_path, said.append)
    assert any("trained again" in line for line in said)
    assert all((a == again.state()[name]).all() for name, a in first.state().items())


def test_taken_counts_an_item_once():
    assert (train_matrix(SPLIT.train, 12).toarray() <= 1.0).all() and train_matrix(SPLIT.train, 12).shape == (40, 12)


@needs_implicit
def test_factors_are_tuned_like_the_rest(tmp_path):
    log = TuningLog(tmp_path / "t.jsonl")
    als, trials = tune_als(SPLIT, 12, {"factors": (2, 4), "regularization": (0.1,), "alpha": (1.0,)}, log=log)
    assert als.name == "als" and [trial.params["factors"] for trial in trials] == [2, 4]
    bpr, trials = tune_bpr(
        SPLIT,
        12,
        {"factors": (4,), "learning_rate": (0.05,), "regularization": (0.01,), "iterations": (5, 50)},
        log=log,
    )
    assert bpr.name == "bpr" and len(trials) == 2
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 4


@needs_implicit
def test_an_empty_history_is_scored_by_nothing_or_by_the_biases():
    nobody = [np.array([], np.int64)]
    assert (ALS(SPLIT.train, 12, 4, 0.1, 1.0).scores(nobody) == 0).all()
    bpr = BPR(SPLIT.train, 12, 4, 0.01, 5)
    assert (bpr.scores(nobody)[0] == bpr._items[:, -1]).all()


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(factorisation, "installed", lambda: False)
    for tuner in (tune_als, tune_bpr):
        with pytest.raises(RequestError, match=r"implicit is not installed \(pip install 'llmrec\[baselines\]'\)"):
            tuner(SPLIT, 12)


@needs_implicit
def test_settings_that_diverge_lose_the_search_and_stop_nothing():
    wild = BPR(SPLIT.train, 12, 4, 0.0, 300, learning_rate=1e9)
    assert (wild.scores([np.array([0, 2])]) == 0).all()
    grid = {"factors": (4,), "learning_rate": (1e9, 0.05), "regularization": (0.0,), "iterations": (300,)}
    best, trials = tune_bpr(SPLIT, 12, grid)
    assert not (best.scores([np.array([0, 2])]) == 0).all()
    assert trials[0].metrics["ndcg@10"] < trials[1].metrics["ndcg@10"]
