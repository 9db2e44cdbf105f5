import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.errors import DataError
from llmrec.numerics import whitening
from llmrec.semantic_ids.residual_kmeans import fit, joint_vectors


def two_tastes(n=40, seed=0):
    rng = np.random.default_rng(seed)
    centre = np.where(np.arange(n)[:, None] % 2 == 0, 3.0, -3.0)
    return centre + rng.normal(size=(n, 5)) * 0.3


@pytest.mark.kernels
def test_same_seed_same_bytes_other_seed_still_unique():
    x = two_tastes()
    a, b = fit(x, 2, 8, 0), fit(x, 2, 8, 0)
    assert a.codes.tobytes() == b.codes.tobytes() and a.codebook.tobytes() == b.codebook.tobytes()
    assert a.fingerprint == b.fingerprint
    assert a.statistics()["duplicates"] == 0


def test_alike_items_share_the_first_code():
    ids = fit(two_tastes(), 2, 8, 0)
    even, odd = set(ids.codes[::2, 0]), set(ids.codes[1::2, 0])
    assert not even & odd


@pytest.mark.kernels
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 64), st.sampled_from([(1, 64), (2, 8), (3, 4)]), st.integers(0, 5), st.booleans())
def test_codes_are_unique_whatever_the_vectors(n, shape, seed, constant):
    depth, size = shape
    x = np.ones((n, 3)) if constant else np.random.default_rng(seed).normal(size=(n, 3))
    ids = fit(x, depth, size, seed)
    assert len(np.unique(ids.codes, axis=0)) == n
    assert ids.codes.min() >= 0 and ids.codes.max() < size


def test_a_full_tree_holds_every_item_and_refuses_one_more():
    ids = fit(np.random.default_rng(0).normal(size=(16, 3)), 2, 4, 0)
    assert len(np.unique(ids.codes, axis=0)) == 16
    with pytest.raises(DataError, match="16 semantic IDs are taken"):
        ids.extend(np.zeros((1, 3)))
    with pytest.raises(DataError, match="hold 16 items; the catalogue has 17"):
        fit(np.zeros((17, 3)), 2, 4, 0)


@pytest.mark.kernels
def test_adding_items_changes_no_existing_code_and_stays_unique():
    x = two_tastes(30)
    ids = fit(x, 2, 8, 0)
    more = ids.extend(x[:20] + 0.01)
    assert (more.codes[:30] == ids.codes).all()
    assert len(np.unique(more.codes, axis=0)) == 50
    assert (more.codes[30:, 0] == ids.codes[:20, 0]).mean() > 0.8  # near-copies land beside their originals


def test_fused_sides_weigh_what_was_asked():
    rng = np.random.default_rng(0)
    text, collab = rng.normal(size=(50, 20)) * 100, rng.normal(size=(50, 4)) * 0.01
    fused = joint_vectors(text, collab, 8, 0.25)
    assert fused.shape == (50, 12)
    assert (fused[:, :8] ** 2).sum(1).mean() == pytest.approx(0.25, abs=1e-5)
    assert (fused[:, 8:] ** 2).sum(1).mean() == pytest.approx(0.75, abs=1e-5)
    np.testing.assert_allclose(
        fused[:, 8:], np.sqrt(0.75) * (collab - collab.mean(0)) @ whitening(collab, 4), atol=1e-5
    )


def test_statistics_tell_a_collapsed_code_book():
    ids = fit(two_tastes(64), 2, 8, 0)
    collapsed = type(ids)(np.stack([np.zeros(64, np.int32), np.arange(64, dtype=np.int32) % 8], 1), ids.codebook)
    assert collapsed.statistics()["perplexity"][0] == pytest.approx(1.0)
    assert collapsed.statistics()["duplicates"] == 56
    assert ids.statistics()["perplexity"][0] > 5
