"""Rows of the accuracy table that processes rank are those of one process, and nothing is ranked twice."""

from functools import partial

import numpy as np
import pytest
from toy_ranking import load, make_world

from llmrec.data.interactions import leave_one_out
from llmrec.eval import result_file
from llmrec.eval.accuracy import parallel_ranking
from llmrec.eval.accuracy.parallel_ranking import RankingJob, list_cache, rank_in_processes
from llmrec.eval.chat_client import with_caching_scorer
from llmrec.eval.ranked_lists import target_users
from llmrec.ranking.fusion import Fusion

FUSIONS = {"llm": Fusion({"llm": 1.0}), "hybrid": Fusion({"encoder": 1.0, "llm": 0.7, "neighbours": 0.5})}


def opened(model):
    recommender = load(model, None)
    return recommender, leave_one_out(recommender.interactions)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    model = make_world(tmp_path_factory.mktemp("world"))
    recommender, split = opened(str(model))
    return model, with_caching_scorer(recommender), split, partial(opened, str(model))


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(parallel_ranking, "STRETCH", 5)


@pytest.mark.long
def test_two_processes_rank_what_one_ranks_and_files_are_read_again(world, short, tmp_path, monkeypatch):
    _, recommender, split, opener = world
    asked = RankingJob(FUSIONS, target_users(split, "test"), 0)
    told = []
    one = rank_in_processes(
        asked, recommender.scorer, split, tmp_path / "one", 1, opener, lambda *a: told.append(a[1:])
    )
    two = rank_in_processes(asked, recommender.scorer, split, tmp_path / "two", 2, opener)
    assert told[-1] == (len(asked.users), len(asked.users)) and len(told) == -(-len(asked.users) // 5)
    for name in FUSIONS:
        assert one[name].keys() == two[name].keys()
        for condition, lists in one[name].items():
            other = two[name][condition]
            np.testing.assert_array_equal(lists.rows, other.rows)
            np.testing.assert_allclose(lists.scores, other.scores, atol=1e-5)
            np.testing.assert_array_equal(lists.targets, split.test[asked.users])
    (tmp_path / "two" / "00001.npz").unlink()
    ranked = []
    usual = parallel_ranking.rank_each
    monkeypatch.setattr(parallel_ranking, "rank_each", lambda *a: ranked.append(a[5]) or usual(*a))
    again = rank_in_processes(asked, recommender.scorer, split, tmp_path / "two", 1, opener)
    assert [users.tolist() for users in ranked] == [asked.users[5:10].tolist()]
    np.testing.assert_array_equal(again["hybrid"][""].rows, one["hybrid"][""].rows)


@pytest.mark.parametrize("few", [0, 1, 6])
def test_a_row_of_a_sample_has_the_lists_that_it_would_have_among_all(world, short, tmp_path, few):
    _, recommender, split, opener = world
    users = target_users(split, "test")
    chosen = users[1::2][:few] if few else users
    whole = rank_in_processes(RankingJob(FUSIONS, users, 0), recommender.scorer, split, tmp_path / "whole", 1, opener)
    asked = RankingJob(FUSIONS, users, 0, sample=chosen, sampled=("llm",))
    found = rank_in_processes(asked, recommender.scorer, split, tmp_path / "few", 1, opener)
    at = np.searchsorted(users, chosen)
    for condition, lists in whole["hybrid"].items():
        np.testing.assert_array_equal(found["hybrid"][condition].rows, lists.rows)
        np.testing.assert_array_equal(found["hybrid"][condition].targets, lists.targets)
    for condition, lists in whole["llm"].items():
        own = found["llm"][condition]
        assert own.users.tolist() == chosen.tolist()
        np.testing.assert_array_equal(own.rows, lists.rows[at])
        np.testing.assert_allclose(own.scores, lists.scores[at], atol=1e-5)
        np.testing.assert_array_equal(own.targets, lists.targets[at])


def test_what_was_ranked_belongs_to_one_model_code_and_question(world, tmp_path, monkeypatch):
    model, _, split, _ = world
    asked = RankingJob(FUSIONS, target_users(split, "test"), 0)

    def folder(asked=asked, code=("c" * 40, False)):
        monkeypatch.setattr(result_file, "commit", lambda: code)
        with list_cache(asked, model, tmp_path, split) as found:
            return found

    first = folder()
    assert first == folder() and first.parent == tmp_path
    others = [
        folder(code=("d" * 40, False)),
        folder(RankingJob({**FUSIONS, "hybrid": Fusion({"encoder": 1.0})}, asked.users, 0)),
        folder(RankingJob(FUSIONS, asked.users[1:], 0)),
        folder(RankingJob(FUSIONS, asked.users, 1)),
        folder(RankingJob(FUSIONS, asked.users, 0, "bfloat16")),
        folder(RankingJob(FUSIONS, asked.users, 0, blind=("llm",))),
        folder(RankingJob(FUSIONS, asked.users, 0, sample=asked.users[:3], sampled=("llm",))),
        folder(RankingJob(FUSIONS, asked.users, 0, sample=asked.users[:4], sampled=("llm",))),
    ]
    assert len({first, *others}) == 9
    for code in (("c" * 40, True), (None, False)):  # changed or unknown code: nothing is kept
        passing = folder(code=code)
        assert passing.parent != tmp_path and not passing.exists()


def test_a_stretch_leaves_nothing_behind(world, tmp_path, monkeypatch):
    _, recommender, split, opener = world
    made = []
    usual = parallel_ranking.CachingScorer.of

    def remembered(scorer):
        made.append(usual(scorer))
        return made[-1]

    monkeypatch.setattr(parallel_ranking.CachingScorer, "of", staticmethod(remembered))
    asked = RankingJob(FUSIONS, target_users(split, "test"), 0, blind=("llm",))
    rank_in_processes(asked, recommender.scorer, split, tmp_path / "one", 1, opener)
    assert made and not any(one.memory for one in made)
