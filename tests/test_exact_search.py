"""Branch and bound finds what scoring every item finds."""

import numpy as np
import pytest
from conftest import make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.decoding.beam_search import beam_search, beam_search_steps
from llmrec.decoding.exact_search import branch_and_bound_steps, exact_search
from llmrec.decoding.trie_scoring import DecodeState, run_searches
from llmrec.errors import RequestError
from llmrec.lm.rendering import ItemRef, Message, Text
from llmrec.lm.runtime.onednn import can_prepack
from llmrec.ranker import top_k
from llmrec.ranking.fusion import fill_catalog
from llmrec.semantic_ids.trie import Trie

# items -> depth, codes: many children, few children, chains of only children, one level
SIZES = {1: (1, 2), 12: (2, 4), 60: (3, 5), 120: (3, 8), 300: (4, 7), 40: (1, 40)}


def world(n):
    depth, size = SIZES[n]
    model = make_model(n, depth, size)
    model.merge()
    return model, Trie(model.vocab.ids.codes, size, np.log1p(np.arange(n) % 7))


WORLDS = {n: world(n) for n in SIZES}


def prompt_of(model, rows=(0,), words="next"):
    parts = (Text(words), *(ItemRef(int(row)) for row in rows))
    return model.renderer.render([Message("user", parts, open=True)])


def everything(model, trie, prompt, rest, weight, k, allowed):
    found = beam_search(model, trie, [prompt], trie.n, None)[0]
    llm = fill_catalog(found.rows, found.scores, trie.n)
    rows, scores = top_k((rest + weight * llm.astype(np.float64))[None].astype(np.float32), k, allowed)
    kept = rows[0] >= 0
    return rows[0][kept], scores[0][kept], llm[rows[0][kept]]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SIZES)), st.data())
def test_the_same_items_as_scoring_all(n, data):
    model, trie = WORLDS[n]
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    rest = rng.normal(0, data.draw(st.sampled_from([0.0, 0.1, 3.0])), n)
    allowed = rng.random(n) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    weight, k = data.draw(st.sampled_from([0.3, 1.0, -0.5])), data.draw(st.integers(1, 2 * n))
    prompt = prompt_of(model, rng.integers(0, n, 3))
    found = exact_search(DecodeState(model, trie, prompt), rest, weight, k, allowed)
    rows, scores, llm = everything(model, trie, prompt, rest, weight, k, allowed)
    assert len(found.rows) == min(k, allowed.sum())
    np.testing.assert_allclose(found.scores, scores, atol=2e-5)
    for mine, theirs, score in zip(found.rows, rows, scores, strict=True):  # the last bits may swap equals
        assert mine == theirs or np.isclose(scores, score, atol=2e-5).sum() > 1
    np.testing.assert_allclose(np.sort(found.parts["llm"]), np.sort(llm), atol=2e-4)


def test_few_nodes_are_read_when_the_rest_points_the_way():
    model, trie = WORLDS[300]
    rest = np.where(np.arange(300) < 5, 0.0, -50.0)
    state = DecodeState(model, trie, prompt_of(model))
    assert sorted(exact_search(state, rest, 1.0, 5, np.ones(300, bool)).rows) == [0, 1, 2, 3, 4]
    assert state.tokens < sum(trie.nodes(level) for level in range(3)) / 4


def test_ties_come_in_order_of_rows():
    model, trie = WORLDS[40]
    found = exact_search(DecodeState(model, trie, prompt_of(model)), np.zeros(40), 0.0, 10, np.ones(40, bool))
    assert found.rows.tolist() == list(range(10))


def test_a_score_does_not_depend_on_what_else_was_asked():
    model, trie = WORLDS[120]
    rest = np.random.default_rng(0).normal(size=120)
    once = exact_search(DecodeState(model, trie, prompt_of(model, (4, 9))), rest, 0.7, 10, np.ones(120, bool))
    exact_search(DecodeState(model, trie, prompt_of(model, (1,))), rest, 0.7, 3, np.ones(120, bool))
    again = exact_search(DecodeState(model, trie, prompt_of(model, (4, 9))), rest, 0.7, 10, np.ones(120, bool))
    assert once.scores.tobytes() == again.scores.tobytes() and once.rows.tolist() == again.rows.tolist()


def test_what_was_read_for_one_list_serves_the_next():
    model, trie = WORLDS[120]
    rng = np.random.default_rng(2)
    state = DecodeState(model, trie, prompt_of(model, (4, 9)))
    for weight in (0.7, 0.2, 1.5):
        rest, allowed = rng.normal(size=120), rng.random(120) < 0.6
        alone = exact_search(DecodeState(model, trie, prompt_of(model, (4, 9))), rest, weight, 10, allowed)
        before = state.tokens
        found = exact_search(state, rest, weight, 10, allowed)
        np.testing.assert_allclose(found.scores, alone.scores, atol=2e-5)
        assert found.rows.tolist() == alone.rows.tolist()
        after = state.tokens
        exact_search(state, rest, weight, 10, allowed)
        assert state.tokens == after >= before, "nothing is read twice"
    assert state.tokens <= sum(trie.nodes(level) for level in range(trie.depth - 1))


def test_the_catalogue_may_be_larger_than_the_context():
    model, trie = WORLDS[300]
    assert trie.nodes(2) + trie.nodes(1) > 64
    long = prompt_of(model, (), "x" * 1000)
    found = exact_search(DecodeState(model, trie, long), np.zeros(300), 1.0, 300, np.ones(300, bool))
    assert sorted(found.rows) == list(range(300))


def test_wrong_shapes_are_named():
    model, trie = WORLDS[12]
    prompt, rest, allowed = prompt_of(model), np.zeros(12), np.ones(12, bool)
    with pytest.raises(RequestError, match="k is 0"):
        exact_search(DecodeState(model, trie, prompt), rest, 1.0, 0, allowed)
    with pytest.raises(RequestError, match="catalogue of 12"):
        exact_search(DecodeState(model, trie, prompt), rest[:5], 1.0, 1, allowed)
    with pytest.raises(RequestError, match="context holds"):
        exact_search(DecodeState(model, trie, prompt_of(model, (), "x" * 2000)), rest, 1.0, 1, allowed)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SIZES)), st.data())
def test_beams_on_a_state_are_those_of_decoding(n, data):
    model, trie = WORLDS[n]
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    allowed = rng.random(n) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    width, k = data.draw(st.sampled_from([1, 3, 10, 400])), data.draw(st.integers(1, 20))
    prompt = prompt_of(model, rng.integers(0, n, 3))
    state = DecodeState(model, trie, prompt)
    if data.draw(st.booleans()):  # what was read before changes nothing
        exact_search(state, rng.normal(size=n), 0.5, 5, np.ones(n, bool))
    (found,) = run_searches([state], [beam_search_steps(state, width, k, trie.filter(allowed))])
    expected = beam_search(model, trie, [prompt], k, width, [allowed])[0]
    np.testing.assert_allclose(found.parts["llm"], expected.scores, atol=2e-4)
    for mine, theirs, score in zip(found.rows, expected.rows, expected.scores, strict=True):
        assert mine == theirs or np.isclose(expected.scores, score, atol=2e-4).sum() > 1


@pytest.mark.parametrize(("width", "k"), [(0, 1), (1, 0)])
def test_beams_refuse_what_cannot_be(width, k):
    model, trie = WORLDS[12]
    state = DecodeState(model, trie, prompt_of(model))
    with pytest.raises(RequestError, match=f"k={k}, beam_width={width}"):
        run_searches([state], [beam_search_steps(state, width, k)])


@pytest.mark.kernels
@pytest.mark.skipif(not can_prepack(), reason="without oneDNN's products the last bits depend on what shares a pass")
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(SIZES)), st.data())
def test_searches_side_by_side_find_the_bits_that_each_finds_alone(n, data):
    model, trie = WORLDS[n]
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    prompts = [prompt_of(model, rng.integers(0, n, rng.integers(0, 5))) for _ in range(5)]
    rest, allowed = rng.normal(size=(5, n)), rng.random((5, n)) < 0.7

    def steps(i, state):
        if i == 3:
            return beam_search_steps(state, 4, 6, trie.filter(allowed[i]))
        return branch_and_bound_steps(state, rest[i], 0.7, 6, allowed[i])

    single = [DecodeState(model, trie, prompt) for prompt in prompts]
    alone = [run_searches([state], [steps(i, state)])[0] for i, state in enumerate(single)]
    states = [DecodeState(model, trie, prompt) for prompt in prompts]
    found = run_searches(states, [steps(i, state) for i, state in enumerate(states)])
    assert [state.tokens for state in states] == [state.tokens for state in single]
    for one, other in zip(found, alone, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        assert (
            one.scores.tobytes() == other.scores.tobytes()
            and one.parts["llm"].tobytes() == other.parts["llm"].tobytes()
        )


def test_two_searches_in_one_state_take_turns():
    model, trie = WORLDS[120]
    rest, allowed = np.random.default_rng(4).normal(size=(2, 120)), np.ones(120, bool)
    state, other = (DecodeState(model, trie, prompt_of(model, (row,))) for row in (1, 2))
    both = [branch_and_bound_steps(state, one, 0.7, 5, allowed) for one in rest]
    found = run_searches(
        [state, other, state], [both[0], branch_and_bound_steps(other, rest[0], 0.7, 5, allowed), both[1]]
    )
    for one, own in zip((found[0], found[2]), rest, strict=True):
        assert (
            one.rows.tolist()
            == exact_search(DecodeState(model, trie, prompt_of(model, (1,))), own, 0.7, 5, allowed).rows.tolist()
        )
    assert run_searches([], []) == []


def test_an_error_in_one_search_ends_them_all():
    model, trie = WORLDS[12]
    state = DecodeState(model, trie, prompt_of(model))
    with pytest.raises(RequestError, match="k is 0"):
        run_searches([state], [branch_and_bound_steps(state, np.zeros(12), 1.0, 0, np.ones(12, bool))])
