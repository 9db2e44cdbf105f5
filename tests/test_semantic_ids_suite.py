"""The suite that makes codes both ways."""

import json

import numpy as np
import pytest
from toy_recommender import make_recommender

from llmrec.data.interactions import leave_one_out
from llmrec.eval.semantic_ids import suite
from llmrec.semantic_ids.rqvae import RqVaeConfig


@pytest.fixture
def recommender(monkeypatch):
    made = make_recommender()
    made.model_card["recipe"] = {"semantic_ids": {"text_dims": 8, "text_weight": 0.5}}
    monkeypatch.setattr(suite, "open_evaluated_model", lambda *_: (made, leave_one_out(made.interactions)))
    usual = suite.rqvae.train_rqvae
    few = RqVaeConfig(hidden=(8,), latent=4, epochs=2)
    monkeypatch.setattr(suite.rqvae, "train_rqvae", lambda *given: usual(*given, few))
    return made


def test_both_ways_are_measured_on_the_models_own_vectors(recommender, tmp_path, capsys):
    rows = suite.run_semantic_ids(None, None, tmp_path, seeds=2)
    assert [row.name for row in rows] == ["residual k-means", "rq-vae"]
    value = json.loads((tmp_path / "semantic-ids-data.json").read_text())
    for row in value["rows"]:
        metrics = row["metrics"]
        assert {"collisions", "moved", "kept_together", "usage_level_2", "left_level_1"} <= set(metrics)
        for one in metrics.values():
            assert one["ci95"][0] <= one["mean"] <= one["ci95"][1]
    (target,) = value["targets"]
    assert target["name"] == "kmeans_collisions"
    assert target["value"] == pytest.approx(rows[0].metrics["collisions"].mean, abs=1e-6)
    shown = capsys.readouterr().out
    assert "k-means" in shown and "rq-vae" in shown and "collisions" in shown


def test_what_is_quantised_is_text_beside_item_vectors(recommender):
    vectors, shape = suite.fused_vectors(recommender)
    dims = recommender.model.encoder.item_vectors.shape[1]
    assert vectors.shape == (12, 8 + dims) and shape == (
        recommender.model.vocab.ids.depth,
        recommender.model.vocab.ids.size,
    )
    for name, made in (("k", suite.by_kmeans), ("r", suite.by_rqvae)):
        codes, nearest = made(vectors, 3, 4, 0)
        assert nearest.shape == codes.codes.shape, name
        assert len(np.unique(codes.codes, axis=0)) == 12
