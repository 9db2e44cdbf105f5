"""Two models whose semantic IDs were made otherwise, compared on validation items."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import make_catalog
from toy_recommender import make_recommender
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.data.interactions import fusion_users, leave_one_out
from llmrec.errors import ArtifactError
from llmrec.eval.semantic_ids import model_comparison
from llmrec.ranking.fusion import Fusion


def a_model(method, depth=2, lr=0.1, weights=None):
    made = make_recommender()
    if weights:
        made.fusions["history"] = Fusion(weights)
    made.model_card["recipe"] = {"lr": lr, "semantic_ids": {"method": method, "depth": depth}}
    return made


@pytest.fixture
def models(monkeypatch):
    """Put models in the place of directories; the way there is tested with the accuracy suite."""
    there = {}
    monkeypatch.setattr(
        model_comparison,
        "open_model",
        lambda path, *_: (there[str(path)], leave_one_out(there[str(path)].interactions)),
    )
    return there


def by_row(path):
    value = json.loads(path.read_text())
    return value, {row["name"]: row["metrics"] for row in value["rows"]}


def test_one_model_beside_itself_differs_in_nothing(models, tmp_path, capsys):
    models |= {"a": a_model("kmeans"), "b": a_model("rqvae")}
    model_comparison.run_model_comparison("a", "b", None, tmp_path)
    value, rows = by_row(tmp_path / "semantic-ids-trained-data.json")
    assert rows["residual k-means: llm"] == rows["rq-vae: llm"]
    for row in ("llm", "hybrid"):
        assert rows[f"rq-vae minus residual k-means: {row}"]["ndcg@10"] == {"mean": 0.0, "ci95": [0.0, 0.0]}
        assert value["protocol"]["p_ndcg@10"][row] == 1.0
        assert 0 < rows[f"rq-vae: {row}"]["recall@10"]["mean"] <= 1
    assert value["provenance"]["command"] == "llmrec eval --suite semantic-ids --model a --beside b"
    assert "rq-vae: hybrid" in capsys.readouterr().out


def test_differences_are_the_second_minus_the_first_over_users_no_fusion_was_fitted_on(models, tmp_path):
    models |= {"a": a_model("rqvae"), "b": a_model("kmeans", weights={"popularity": 1.0})}
    model_comparison.run_model_comparison("a", "b", None, tmp_path)
    value, rows = by_row(tmp_path / "semantic-ids-trained-data.json")
    gap = rows["residual k-means: hybrid"]["ndcg@10"]["mean"] - rows["rq-vae: hybrid"]["ndcg@10"]["mean"]
    assert gap != 0
    assert rows["residual k-means minus rq-vae: hybrid"]["ndcg@10"]["mean"] == pytest.approx(gap, abs=2e-6)
    split = leave_one_out(models["a"].interactions)
    users = model_comparison.comparison_users(split, 1000, 0)
    assert value["provenance"]["n"] == len(users) > 0
    assert not np.isin(users, fusion_users(split)).any() and (split.valid[users] >= 0).all()
    assert len(model_comparison.comparison_users(split, 3, 0)) == 3


def test_what_may_not_be_compared_is_refused(models, tmp_path):
    other = a_model("rqvae")
    other.catalog = make_catalog(11)
    models |= {"k": a_model("kmeans"), "same": a_model("kmeans"), "data": other, "lr": a_model("rqvae", lr=0.2)}
    for beside, said in (("same", "both models were made by kmeans"), ("data", "catalogues"), ("lr", "differ in lr")):
        with pytest.raises(ArtifactError, match=said):
            model_comparison.run_model_comparison("k", beside, None, tmp_path)
    assert not list(Path(tmp_path).iterdir())


def test_an_older_recipe_names_no_method_and_is_kmeans():
    old = a_model("kmeans")
    del old.model_card["recipe"]["semantic_ids"]["method"]
    assert model_comparison.code_methods(old, a_model("rqvae", depth=3)) == ("residual k-means", "rq-vae")


def test_only_one_suite_compares_two_models(tmp_path):
    got = CliRunner().invoke(app, ["eval", "--suite", "accuracy", "--beside", "other", "--out", str(tmp_path / "r")])
    assert got.exit_code == 2 or "semantic-ids" in str(got.exception)
    assert "--beside other" in (got.output + str(got.exception)) and not (tmp_path / "r").exists()
