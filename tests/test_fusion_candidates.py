"""What a fusion is fitted on when the catalogue is too large to read."""

from dataclasses import fields, replace

import numpy as np
import pytest
from test_recommender import recommender  # noqa: F401  (a fixture)

from llmrec.ranking import fusion_candidates
from llmrec.ranking import scorer as scorer_module
from llmrec.ranking.fusion import PRIOR_WEIGHTS, Fusion, fit
from llmrec.ranking.fusion_candidates import sample_users, shortlists, whole_catalog
from llmrec.ranking.scorer import Scorer


@pytest.fixture
def scorer(recommender):  # noqa: F811
    return recommender.scorer


class Large(Scorer):
    """One whose catalogue counts as too large to read."""

    is_small = False


def large_of(scorer):
    return Large(**{field.name: getattr(scorer, field.name) for field in fields(Scorer)})


def asked(scorer, seed=0, users=12):
    rng = np.random.default_rng(seed)
    histories = [rng.choice(scorer.trie.n, 4, replace=False) for _ in range(users)]
    targets = np.array([rng.choice(np.setdiff1d(np.arange(scorer.trie.n), history)) for history in histories])
    return histories, [""] * users, targets


def test_a_shortlist_holds_the_target_the_first_of_each_part_and_exact_scores(scorer, monkeypatch):
    monkeypatch.setattr(fusion_candidates, "TOP_PER_PART", 2)
    monkeypatch.setattr(fusion_candidates, "UNIFORM_SAMPLE", 1)
    histories, said, targets = asked(scorer)
    of = shortlists(scorer, histories, said, targets, 0)
    full = scorer.parts(histories)
    assert of.targets.tolist() == [0] * len(histories) and (of.allowed[:, 0] == 1).all()
    for line, (history, target) in enumerate(zip(histories, targets, strict=True)):
        count = int((of.allowed[line] > 0).sum())
        for name in full:
            assert of.parts[name][line, 0] == pytest.approx(full[name][line, target], abs=2e-4)
        # the best unseen item of every part is there
        open_ = np.setdiff1d(np.arange(scorer.trie.n), history)
        for name in ("encoder", "neighbours", "profile", "popularity"):
            assert of.parts[name][line, :count].max() == pytest.approx(full[name][line, open_].max(), abs=1e-5)
        assert count <= 2 * 4 + 1 + 1


def test_a_shortlist_of_everything_is_the_whole_catalogue(scorer, monkeypatch):
    monkeypatch.setattr(fusion_candidates, "UNIFORM_SAMPLE", scorer.trie.n)
    histories, said, targets = asked(scorer)
    few, all_ = (
        shortlists(scorer, histories, said, targets, 0),
        whole_catalog(scorer.parts(histories), histories, targets),
    )
    prior = {name: weight for name, weight in PRIOR_WEIGHTS.items() if name in all_.parts}
    one = fit(few.parts, few.targets, few.allowed, prior).weights
    other = fit(all_.parts, all_.targets, all_.allowed, prior).weights
    assert one == pytest.approx(other, abs=2e-3)


def test_the_sum_over_a_shortlist_is_on_average_that_over_the_catalogue(scorer, monkeypatch):
    monkeypatch.setattr(fusion_candidates, "TOP_PER_PART", 1)
    monkeypatch.setattr(fusion_candidates, "UNIFORM_SAMPLE", 2)
    monkeypatch.setattr(
        Scorer, "llm_candidate_scores", lambda self, history, message, rows: np.zeros(len(rows), np.float32)
    )
    (history, *_), _, (target, *_) = asked(scorer)
    fusion = Fusion({"encoder": 0.6, "neighbours": 0.3, "popularity": -0.2})
    of = shortlists(scorer, [history] * 400, [""] * 400, np.full(400, target), 0)
    assert of.allowed.sum(axis=1) == pytest.approx(scorer.trie.n - len(history), abs=1e-3)
    open_ = np.setdiff1d(np.arange(scorer.trie.n), history)
    whole_sum = np.exp(fusion.combine(scorer.non_llm_parts([history], [""]))[0, open_]).sum()
    drawn_sums = (of.allowed * np.exp(fusion.combine(of.parts))).sum(axis=1)
    assert drawn_sums.std() > 0.005 * whole_sum  # they do differ
    assert drawn_sums.mean() == pytest.approx(whole_sum, rel=0.02)


def test_of_a_large_catalogue_some_users_are_drawn_and_of_a_small_one_all(scorer, monkeypatch):
    monkeypatch.setattr(fusion_candidates, "MAX_USERS", 5)
    users = np.arange(40)
    assert sample_users(users, scorer, 0).tolist() == users.tolist()

    large = large_of(scorer)
    some = sample_users(users, large, 0)
    assert len(some) == 5 and (np.diff(some) > 0).all() and sample_users(users, large, 0).tolist() == some.tolist()
    assert replace(scorer).is_small


def test_lists_with_leaning_weights_are_the_best_of_the_whole_catalogue(scorer):
    fusion = Fusion({"encoder": 0.7, "llm": 0.7, "profile": 0.4, "encoder*familiarity": 0.3, "profile*novelty": 0.5})
    history, allowed = np.array([1, 4]), np.ones(scorer.trie.n, bool)
    allowed[history] = False
    parts = scorer.parts([history])
    score = np.where(allowed, fusion.combine(parts)[0], -np.inf)
    plain = Fusion({name: weight for name, weight in fusion.weights.items() if "*" not in name}).combine(parts)[0]
    assert np.ptp(fusion.combine(parts)[0] - plain) > 0.01, "familiarity changes nothing here"
    found = scorer.query(history).top_k(fusion, 4, allowed)
    assert found.rows.tolist() == np.argsort(-score, kind="stable")[:4].tolist()
    np.testing.assert_allclose(found.scores, score[found.rows], atol=2e-4)
    assert found.sources(scorer.trie.n)[0] in ("encoder", "llm", "profile")
    sums = sum(fusion.weights[name] * share for name, share in found.parts.items())
    np.testing.assert_allclose(sums, found.scores, atol=2e-4)


def test_lists_of_a_large_catalogue_are_exact_within_reach_and_never_leave_what_is_allowed(scorer, monkeypatch):
    fusion = Fusion({"encoder": 1.0, "llm": 0.7, "neighbours": 0.4})
    history, allowed = np.array([1, 4]), np.ones(scorer.trie.n, bool)
    allowed[[1, 4, 6]] = False
    exact = scorer.query(history).top_k(fusion, 3, allowed)
    monkeypatch.setattr(scorer_module, "LLM_CANDIDATES", scorer.trie.n)
    everything = large_of(scorer).query(history).top_k(fusion, 3, allowed)
    assert everything.rows.tolist() == exact.rows.tolist()
    monkeypatch.setattr(scorer_module, "LLM_CANDIDATES", 2)  # twice the length of the list is the least
    near = large_of(scorer).query(history).top_k(fusion, 3, allowed)
    assert len(near.rows) == 3 and allowed[near.rows].all()
    rest = sum(fusion.weights[name] * scorer.query(history).non_llm_parts[name] for name in ("encoder", "neighbours"))
    first = np.flatnonzero(allowed)[np.argsort(-rest[allowed], kind="stable")[:6]]
    assert set(near.rows) <= set(first)
    alone = scorer.query(history).top_k(Fusion({"llm": 1.0}), 3, allowed)
    beams = large_of(scorer).query(history).top_k(Fusion({"llm": 1.0}), 3, allowed)
    assert beams.rows.tolist() == alone.rows.tolist()
    np.testing.assert_allclose(beams.scores, alone.scores, atol=2e-4)
