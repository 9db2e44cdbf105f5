"""Semantic IDs by an RQ-VAE, and the numbers that they are compared by."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.errors import DataError
from llmrec.semantic_ids import residual_kmeans, rqvae
from llmrec.semantic_ids.diagnostics import diagnose
from llmrec.semantic_ids.residual_kmeans import SemanticIds
from llmrec.semantic_ids.rqvae import RqVaeConfig

QUICK = RqVaeConfig(hidden=(16,), latent=4, epochs=40, batch=32, lr=5e-3)


def tastes(n=64, groups=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(groups, 6))[np.arange(n) % groups] * 4 + rng.normal(size=(n, 6)) * 0.2


@pytest.mark.kernels
def test_same_seed_same_codes_and_alike_items_share_the_first_one():
    x = tastes()
    ids, again = rqvae.fit(x, 2, 16, 0, QUICK), rqvae.fit(x, 2, 16, 0, QUICK)
    assert ids.codes.tobytes() == again.codes.tobytes() and ids.codebook.tobytes() == again.codebook.tobytes()
    codes = [set(ids.codes[group::4, 0].tolist()) for group in range(4)]
    assert all(not one & other for i, one in enumerate(codes) for other in codes[:i])


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 64), st.sampled_from([(1, 64), (2, 8), (3, 4)]), st.integers(0, 3), st.booleans())
def test_codes_are_unique_whatever_the_vectors(n, shape, seed, constant):
    x = np.ones((n, 3)) if constant else np.random.default_rng(seed).normal(size=(n, 3))
    ids = rqvae.fit(x, *shape, seed, replace(QUICK, epochs=2))
    assert len(np.unique(ids.codes, axis=0)) == n
    assert ids.codes.min() >= 0 and ids.codes.max() < shape[1] and np.isfinite(ids.codebook).all()


def test_training_gives_back_more_and_uses_all_codes():
    x = tastes(256, 16)
    before, after = (rqvae.train_rqvae(x, 2, 16, 0, replace(QUICK, epochs=epochs)) for epochs in (0, 200))
    assert after.error < 0.25 < before.error
    used = np.unique(residual_kmeans.nearest_codes(after.latent, after.codebook)[:, 0])
    assert len(used) == 16


def test_a_new_item_lands_beside_its_like_and_nothing_else_moves():
    x = tastes()
    ids = rqvae.fit(x, 2, 16, 0, QUICK)
    more = ids.extend(x[:8] + 0.01)
    assert (more.codes[:64] == ids.codes).all()
    assert (more.codes[64:, 0] == ids.codes[:8, 0]).mean() > 0.8


def test_the_random_state_of_the_process_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    rqvae.fit(tastes(16), 2, 4, 0, replace(QUICK, epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_catalogue_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match="hold 16 items; the catalogue has 17"):
        rqvae.fit(np.zeros((17, 3)), 2, 4, 0, replace(QUICK, epochs=1))


def test_numbers_of_codes_counted_by_hand():
    codes = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]], np.int32)
    book = np.zeros((3, 2, 1), np.float32)
    book[0, :, 0] = (-2.0, 2.0)
    vectors = np.array([[-2.0], [-2.0], [2.0], [3.0]])
    nearest = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 0, 1]])
    found = diagnose(SemanticIds(codes, book), vectors, nearest)
    assert found.usage == (1.0, 0.5, 1.0)
    assert found.perplexity == pytest.approx((2.0, 1.0, 2.0)) and found.hourglass == pytest.approx(0.5)
    assert found.gini == pytest.approx((0.0, 0.5, 0.0))
    assert found.collisions == 0.5 and found.moved == 0.25  # two want one path, one of them has another
    assert found.left == pytest.approx((1 / 20.75,) * 3)  # only the last vector is not its centroid
    assert found.kept_together == pytest.approx(1 / 3)  # of the three others one has the same first code


def test_two_levels_have_no_waist_and_one_item_no_neighbours():
    ids = residual_kmeans.fit(np.ones((1, 3)), 2, 4, 0)
    found = diagnose(ids, np.ones((1, 3)), ids.codes)
    assert found.hourglass is None and found.kept_together == 1.0 and found.collisions == 0.0
