"""Promises 1 and 4: only real, allowed, distinct items, ranked as brute force ranks them, alone and in any batch."""

import threading
import time

import numpy as np
import pytest
import torch
from conftest import make_ids, make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec import decode
from llmrec.errors import RequestError
from llmrec.render import ItemRef, Message, Text, UserRef
from llmrec.trie import Trie

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
        found = decode.items(model, trie, [prompt], k=n)[0]
        assert len(set(found.rows.tolist())) == n
        np.testing.assert_allclose(found.scores, exact[found.rows], atol=1e-4)
        np.testing.assert_allclose(np.exp(exact).sum(), 1.0, atol=1e-4)  # a distribution over the catalogue


def test_alone_and_in_any_batch_are_equal(world):
    model, trie, n = world
    prompts = prompts_of(model, np.random.default_rng(1), n)
    together = decode.items(model, trie, prompts, k=10)
    for prompt, batched in zip(prompts, together, strict=True):
        alone = decode.items(model, trie, [prompt], k=10)[0]
        np.testing.assert_allclose(alone.scores, batched.scores, atol=1e-4)
        assert (alone.rows == batched.rows).all()


def test_merged_weights_give_the_same_scores():
    model, other = make_model(30, 2, 8), make_model(30, 2, 8)
    trie = Trie(model.vocab.ids.codes, 8)
    other.merge()
    prompt = prompts_of(model, np.random.default_rng(2), 30, 1)
    a, b = decode.items(model, trie, prompt, 30)[0], decode.items(other, trie, prompt, 30)[0]
    np.testing.assert_allclose(a.scores[np.argsort(a.rows)], b.scores[np.argsort(b.rows)], atol=1e-4)


def test_a_filter_removes_items_and_changes_no_score(world):
    model, trie, n = world
    prompt = prompts_of(model, np.random.default_rng(3), n, 1)[0]
    everything = decode.items(model, trie, [prompt], k=n)[0]
    score = dict(zip(everything.rows.tolist(), everything.scores.tolist(), strict=True))
    allowed = np.random.default_rng(4).random(n) < 0.4
    narrowed = decode.items(model, trie, [prompt], k=n, allowed=[allowed])[0]
    assert set(narrowed.rows.tolist()) == set(np.flatnonzero(allowed).tolist())
    np.testing.assert_allclose(narrowed.scores, [score[r] for r in narrowed.rows.tolist()], atol=1e-5)


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
    found = decode.items(model, trie, [prompt], k, beams, [allowed])[0]
    assert len(set(found.rows.tolist())) == len(found.rows) <= k
    assert allowed[found.rows].all()
    assert np.isfinite(found.scores).all() and (np.diff(found.scores) <= 0).all()
    if beams >= n:
        assert len(found.rows) == min(k, int(allowed.sum()))


def test_bad_numbers_are_refused(model):
    trie = Trie(make_ids(12).codes, 4)
    with pytest.raises(RequestError, match="at least 1"):
        decode.items(model, trie, prompts_of(model, np.random.default_rng(0), 12, 1), 0)
    long = model.renderer.render([Message("user", (Text("a" * 2000),), open=True)])
    with pytest.raises(RequestError, match="the context holds 1024"):
        decode.items(model, trie, [long], 3)
    assert decode.items(model, trie, [], 3) == []


def test_words_stop_when_told_and_at_every_limit(model):
    prompt = model.renderer.render([Message("user", (Text("hello"),)), Message("assistant", (), open=True)])
    words = "".join(decode.stream(model, prompt, max_tokens=12))
    assert 0 < len(words.encode()) <= 12 * 4
    stop = threading.Event()
    pieces = decode.stream(model, prompt, max_tokens=500, seconds=60, stop=stop)
    next(pieces)
    stop.set()
    assert list(pieces) == []
    start = time.monotonic()
    list(decode.stream(model, prompt, max_tokens=100_000, seconds=0.3))
    assert time.monotonic() - start < 3


def test_words_hold_no_item_and_no_control_token(model):
    prompt = model.renderer.render([Message("user", (Text("hello"),)), Message("assistant", (), open=True)])
    text = "".join(decode.stream(model, prompt, max_tokens=64))
    assert "<|" not in text or model.renderer.control.isdisjoint(model.renderer.words(text))
