"""What a history's texts say of other items."""

import numpy as np
import pytest

from llmrec.encoders.text_similarity import ProfileSettings, TextProfile, whitened


def texts(n=200, d=12, seed=0):
    """Vectors in two halves that differ in weak directions only, under a strong direction that all share."""
    rng = np.random.default_rng(seed)
    out = rng.normal(size=(n, d)) * 0.2
    out[: n // 2, 1] += 1.0
    out[:, 0] = rng.normal(size=n) * 8.0
    return out.astype(np.float32)


def test_evening_out_lets_weak_directions_speak():
    text, history = texts(), [np.arange(5)]

    def found(settings):
        best = np.argsort(-TextProfile(text, settings).log_probability(history)[0])[:40]
        return float((best < 100).mean())

    assert found(ProfileSettings(dims=2, power=1.0)) > 0.9 > found(ProfileSettings())


def test_full_whitening_makes_all_directions_count_alike():
    text = texts()
    exact = text - text.mean(axis=0)
    turned = whitened(exact, 12, 1.0)
    assert np.linalg.norm(turned, axis=1) == pytest.approx(1.0, abs=1e-5)
    values, directions = np.linalg.eigh(exact.T @ exact)
    spread = (exact @ directions / np.sqrt(values)).std(axis=0)
    assert spread == pytest.approx(spread[0], rel=1e-2)
    assert np.abs(turned @ turned.T).max() <= 1 + 1e-5


def test_power_zero_only_turns():
    text = texts() - texts().mean(axis=0)
    unit = text / np.linalg.norm(text, axis=1, keepdims=True)
    np.testing.assert_allclose(whitened(text, 12, 0.0) @ whitened(text, 12, 0.0).T, unit @ unit.T, atol=1e-4)


def test_older_items_say_less_when_they_fade():
    text = texts()
    old_then_new = [np.array([150, 3])]
    even = TextProfile(text, ProfileSettings(dims=12, power=1.0)).log_probability(old_then_new)[0]
    faded = TextProfile(text, ProfileSettings(dims=12, power=1.0, fade=0.2)).log_probability(old_then_new)[0]
    assert faded[3] - faded[150] > even[3] - even[150] + 1.0


def test_no_history_and_no_text_are_even_and_batches_do_not_matter():
    text = np.vstack([texts(), texts().mean(axis=0)])
    profile = TextProfile(text, ProfileSettings(dims=64, fade=0.5))
    both = profile.log_probability([np.array([], np.int64), np.array([1, 2, 3])])
    np.testing.assert_allclose(both[0], -np.log(len(text)), atol=1e-5)
    np.testing.assert_allclose(both[1], profile.log_probability([np.array([1, 2, 3])])[0], atol=1e-5)
    assert np.isfinite(both).all() and profile.log_probability([]).shape == (0, len(text))
    flat = TextProfile(np.ones((4, 3), np.float32), ProfileSettings(dims=3)).log_probability([np.array([1])])
    np.testing.assert_allclose(flat, -np.log(4), atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"dims": -1}, {"last": 0}, {"power": 1.5}, {"fade": 0.0}, {"fade": 1.1}, {"temperature": 0.0}]
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match="profile"):
        ProfileSettings(**wrong)
