"""Inner products, and every score that is made of them, are the same bits in any batch and with any threads."""

import numpy as np
import pytest
from conftest import make_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from llmrec.encoders.text_similarity import ProfileSettings, TextProfile
from llmrec.inner_product import inner
from llmrec.ranking.item_index import ItemIndex


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.kernels
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(1, 70), st.integers(1, 130))
def test_a_product_depends_on_its_two_vectors_alone(seed, n, b, d):
    queries, items = normal(seed, b, d), normal(seed + 1, n, d)
    whole = inner(queries, items)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, queries.astype(np.float64) @ items.T.astype(np.float64), rtol=1e-4, atol=1e-4)
    rng = np.random.default_rng(seed + 2)
    lines, rows = rng.integers(0, b, 5), rng.integers(0, n, rng.integers(1, 9))
    assert np.array_equal(inner(queries[lines], items[rows]), whole[np.ix_(lines, rows)])
    shifted = np.zeros(items.size + 1, np.float32)[1:].reshape(items.shape)  # at another place in memory
    shifted[:] = items
    assert np.array_equal(inner(np.asfortranarray(queries), shifted), whole)


def test_no_queries_no_items_and_float64():
    assert inner(normal(0, 0, 3), normal(1, 4, 3)).shape == (0, 4)
    assert inner(normal(0, 2, 3), normal(1, 0, 3)).shape == (2, 0)
    assert inner(np.eye(2), np.eye(2, dtype=np.float32)).dtype == np.float64


ITEMS, WIDE = 3000, 96
TEXT = normal(0, ITEMS, WIDE)
HISTORIES = [np.random.default_rng(seed).integers(0, ITEMS, 1 + seed) for seed in range(33)]
ENCODER = make_encoder(ITEMS, dim=64)
WHITE = TextProfile(TEXT, ProfileSettings(dims=48, fade=0.8))
INDEX = ItemIndex(TEXT)
SCORERS = {
    "profile": TextProfile(TEXT).log_probability,
    "profile, whitened": WHITE.log_probability,
    "encoder": ENCODER.scores,
    "index": lambda histories: INDEX.scores(np.stack([TEXT[history].mean(axis=0) for history in histories])),
}


@pytest.mark.kernels
@pytest.mark.parametrize("name", SCORERS)
def test_a_score_has_the_same_bits_alone_in_any_batch_and_with_any_threads(name):
    scores = SCORERS[name]
    whole = scores(HISTORIES)
    for threads, batch in ((1, 33), (2, 33), (2, 7), (4, 1)):
        with threadpool_limits(threads, "blas"):
            found = np.concatenate([scores(HISTORIES[i : i + batch]) for i in range(0, 33, batch)])
        assert found.tobytes() == whole.tobytes(), f"{threads} threads, {batch} at a time"
