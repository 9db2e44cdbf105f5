"""Promises 1 and 4: only real, allowed, distinct items, ranked as brute force ranks them, alone and in any batch."""

import numpy as np
import pytest
import torch
from conftest import make_ids, make_model
from families import GENERIC, LEAN, make_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.decoding.beam_search import beam_search
from llmrec.decoding.candidate_scores import score_candidates
from llmrec.errors import RequestError
from llmrec.lm.rendering import ItemRef, Message, Rendered, Text, UserRef
from llmrec.semantic_ids.trie import Trie

SHAPES = {"two levels": (48, 2, 8), "three levels": (60, 3, 4), "one level": (20, 1, 32)}


@pytest.fixture(scope="module", params=SHAPES)
def world(request):
    n, depth, size = SHAPES[request.param]
    model = make_model(n, depth, size)
    return model, Trie(model.vocab.ids.codes, size, np.log1p(np.arange(n) % 7)), n


def prompts_of(model, rng, n, count=4):
    out = []
    for _ in range(count):
        rows = rng.integers(0, n, int(rng.integers(0, 6)))
        parts = [Text("seen"), *(ItemRef(int(r)) for r in rows), UserRef(rng.normal(size=8).astype(np.float32))]
        out.append(model.renderer.render([Message("user", tuple(parts)), Message("assistant", (), open=True)]))
    return out


@torch.inference_mode()
def brute_force(model, trie, prompt):
    """float[n]: teacher-forced log-probability of every item, one forward pass an item."""
    codes, size = model.vocab.ids.codes, model.vocab.ids.size
    out = []
    for row, path in enumerate(codes):
        ids = torch.from_numpy(np.concatenate([prompt.ids, model.vocab.tokens[row]]))[None]
        hidden = model.hidden(model.embed(ids, torch.from_numpy(prompt.users)))[0]
        total = 0.0
        for level in range(trie.depth):
            logits = model.level_logits(hidden[len(prompt.ids) - 1 + level], level)
            siblings = np.unique(codes[(codes[:, :level] == path[:level]).all(axis=1), level])
            prior = torch.full((size,), -torch.inf)
            for code in siblings:  # mass below each child: one for an item and one for each time it was taken
                below = (codes[:, : level + 1] == [*path[:level], code]).all(axis=1)
                prior[code] = float(np.log((np.flatnonzero(below) % 7 + 1).sum()))
            total += float(torch.log_softmax(logits + prior, -1)[path[level]])
        out.append(total)
    return np.array(out)


def test_keeping_all_beams_equals_brute_force(world):
    model, trie, n = world
    for prompt in prompts_of(model, np.random.default_rng(0), n, 2):
        exact = brute_force(model, trie, prompt)
        found = beam_search(model, trie, [prompt], k=n)[0]
        assert len(set(found.rows.tolist())) == n
        np.testing.assert_allclose(found.scores, exact[found.rows], atol=1e-4)
        np.testing.assert_allclose(np.exp(exact).sum(), 1.0, atol=1e-4)  # a distribution over the catalogue


@pytest.mark.kernels
def test_alone_and_in_any_batch_are_equal(world):
    model, trie, n = world
    prompts = prompts_of(model, np.random.default_rng(1), n)
    together = beam_search(model, trie, prompts, k=10)
    for prompt, batched in zip(prompts, together, strict=True):
        alone = beam_search(model, trie, [prompt], k=10)[0]
        np.testing.assert_allclose(alone.scores, batched.scores, atol=1e-4)
        assert (alone.rows == batched.rows).all()


def test_merged_weights_give_the_same_scores():
    model, other = make_model(30, 2, 8), make_model(30, 2, 8)
    trie = Trie(model.vocab.ids.codes, 8)
    other.merge()
    prompt = prompts_of(model, np.random.default_rng(2), 30, 1)
    a, b = beam_search(model, trie, prompt, 30)[0], beam_search(other, trie, prompt, 30)[0]
    np.testing.assert_allclose(a.scores[np.argsort(a.rows)], b.scores[np.argsort(b.rows)], atol=1e-4)


def test_a_filter_removes_items_and_changes_no_score(world):
    model, trie, n = world
    prompt = prompts_of(model, np.random.default_rng(3), n, 1)[0]
    everything = beam_search(model, trie, [prompt], k=n)[0]
    score = dict(zip(everything.rows.tolist(), everything.scores.tolist(), strict=True))
    allowed = np.random.default_rng(4).random(n) < 0.4
    item_filter = beam_search(model, trie, [prompt], k=n, allowed=[allowed])[0]
    assert set(item_filter.rows.tolist()) == set(np.flatnonzero(allowed).tolist())
    np.testing.assert_allclose(item_filter.scores, [score[r] for r in item_filter.rows.tolist()], atol=1e-5)


CATALOGUES = {
    n: make_model(n, depth, size, seed=n) for n, depth, size in ((1, 1, 2), (3, 2, 2), (12, 2, 4), (61, 3, 4))
}


@settings(max_examples=700, deadline=None)
@given(st.sampled_from(sorted(CATALOGUES)), st.integers(1, 200), st.integers(1, 100), st.data())
def test_never_an_invented_a_forbidden_or_a_repeated_item(n, k, beams, data):
    model = CATALOGUES[n]
    trie = Trie(model.vocab.ids.codes, model.vocab.ids.size)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    prompt = prompts_of(model, np.random.default_rng(data.draw(st.integers(0, 9))), n, 1)[0]
    found = beam_search(model, trie, [prompt], k, beams, [allowed])[0]
    assert len(set(found.rows.tolist())) == len(found.rows) <= k
    assert allowed[found.rows].all()
    assert np.isfinite(found.scores).all() and (np.diff(found.scores) <= 0).all()
    if beams >= n:
        assert len(found.rows) == min(k, int(allowed.sum()))


def test_bad_numbers_are_refused(model):
    trie = Trie(make_ids(12).codes, 4)
    with pytest.raises(RequestError, match="at least 1"):
        beam_search(model, trie, prompts_of(model, np.random.default_rng(0), 12, 1), 0)
    long = model.renderer.render([Message("user", (Text("a" * 2000),), open=True)])
    with pytest.raises(RequestError, match="the context holds 1024"):
        beam_search(model, trie, [long], 3)
    with pytest.raises(RequestError, match="2 filters for 1 prompts"):
        beam_search(model, trie, prompts_of(model, np.random.default_rng(0), 12, 1), 3, allowed=[None, None])
    empty = Rendered(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros((0, 8), np.float32))
    with pytest.raises(RequestError, match="the prompt is empty"):
        beam_search(model, trie, [empty], 3)
    assert beam_search(model, trie, [], 3) == []


def test_no_allowed_item_is_an_empty_list_beside_full_ones(world):
    model, trie, n = world
    prompts = prompts_of(model, np.random.default_rng(6), n, 3)
    nothing, some = np.zeros(n, bool), np.arange(n) == 5
    found = beam_search(model, trie, prompts, 7, 4, [nothing, some, None])
    assert [len(one.rows) for one in found] == [0, 1, min(7, len(found[2].rows))]
    assert found[1].rows.tolist() == [5] and len(found[2].rows) > 0


def test_filters_narrowed_once_and_requests_in_groups_change_nothing(world, monkeypatch):
    model, trie, n = world
    prompts = prompts_of(model, np.random.default_rng(7), n, 6)
    allowed = np.random.default_rng(8).random(n) < 0.5
    expected = beam_search(model, trie, prompts, 9, 5, [allowed] * 6)
    monkeypatch.setattr("llmrec.decoding.trie_scoring.MAX_GROUP_TOKENS", 60)
    monkeypatch.setattr("llmrec.lm.runtime.prefill.MAX_ROWS", {"cpu": 20})
    found = beam_search(model, trie, prompts, 9, 5, [trie.filter(allowed)] * 6)
    for a, b in zip(expected, found, strict=True):
        assert a.rows.tolist() == b.rows.tolist()
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("name", LEAN | GENERIC)
def test_every_architecture_equals_brute_force_alone_and_in_a_batch(name, merge):
    model = make_bundle((LEAN | GENERIC)[name], 30, 3, 4, merge=merge)
    trie = Trie(model.vocab.ids.codes, 4, np.log1p(np.arange(30) % 7))
    prompts = prompts_of(model, np.random.default_rng(9), 30, 3)
    for prompt, found in zip(prompts, beam_search(model, trie, prompts, k=30), strict=True):
        np.testing.assert_allclose(found.scores, brute_force(model, trie, prompt)[found.rows], atol=1e-4)
        alone = beam_search(model, trie, [prompt], k=30)[0]
        assert alone.rows.tolist() == found.rows.tolist()
        np.testing.assert_allclose(alone.scores, found.scores, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(CATALOGUES)), st.integers(0, 5), st.data())
def test_given_items_are_scored_as_they_are_decoded_in_whatever_order(n, seed, data):
    model = CATALOGUES[n]
    trie = Trie(model.vocab.ids.codes, model.vocab.ids.size, np.log1p(np.arange(n) % 7))
    prompts = prompts_of(model, np.random.default_rng(seed), n, 2)
    lists = [np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=20)), np.int64) for _ in prompts]
    scores = score_candidates(model, trie, prompts, lists)
    for prompt, rows, found in zip(prompts, lists, scores, strict=True):
        everything = beam_search(model, trie, [prompt], n)[0]
        exact = everything.scores[np.argsort(everything.rows)]
        np.testing.assert_allclose(found, exact[rows], atol=1e-4)
    shuffled = [data.draw(st.permutations(range(len(rows)))) for rows in lists]
    again = score_candidates(model, trie, prompts, [rows[order] for rows, order in zip(lists, shuffled, strict=True)])
    for found, other, order in zip(scores, again, shuffled, strict=True):
        assert found[order].tolist() == other.tolist()  # to the bit


def test_many_candidates_take_several_passes(world, monkeypatch):
    model, trie, n = world
    prompt = prompts_of(model, np.random.default_rng(10), n, 1)[0]
    expected = score_candidates(model, trie, [prompt], [np.arange(n)])[0]
    monkeypatch.setattr("llmrec.decoding.trie_scoring.FULL_PASS_TOKENS", 7)
    found = score_candidates(model, trie, [prompt], [np.arange(n)])[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_candidates_that_do_not_exist_are_refused(model):
    trie = Trie(make_ids(12).codes, 4)
    prompt = prompts_of(model, np.random.default_rng(0), 12, 1)
    with pytest.raises(RequestError, match="row 12 is not in the catalogue of 12"):
        score_candidates(model, trie, prompt, [np.array([3, 12])])
    with pytest.raises(RequestError, match="2 lists of candidates for 1 prompts"):
        score_candidates(model, trie, prompt, [np.array([3]), np.array([4])])
