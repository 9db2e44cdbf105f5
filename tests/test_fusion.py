import numpy as np
import pytest

from llmrec.fusion import FAMILIARITY, FLOOR, LEANING, Fusion, fit, fit_or_keep, log_softmax, spread
from llmrec.scoring import Listed


def world(seed=0, b=400, n=30):
    """Targets drawn from a known mixture: softmax(1.5 a + 0.5 b), the third part is noise."""
    rng = np.random.default_rng(seed)
    parts = {name: log_softmax(rng.normal(size=(b, n)).astype(np.float32)) for name in ("encoder", "llm", "profile")}
    p = np.exp(log_softmax(1.5 * parts["encoder"] + 0.5 * parts["llm"]))
    targets = np.array([rng.choice(n, p=line / line.sum()) for line in p.astype(np.float64)])
    return parts, targets, np.ones((b, n), bool)


PRIOR = {"encoder": 1.0, "llm": 0.0, "profile": 0.0}


def test_finds_the_weights_that_made_the_data():
    parts, targets, allowed = world(b=3000)
    weights = fit(parts, targets, allowed, PRIOR, ridge=0.1).weights
    assert weights["encoder"] == pytest.approx(1.5, abs=0.12)
    assert weights["llm"] == pytest.approx(0.5, abs=0.12)
    assert abs(weights["profile"]) < 0.1


def test_little_data_stays_with_the_encoder():
    parts, targets, allowed = world(b=3)
    weights = fit(parts, targets, allowed, PRIOR, ridge=1000.0, positive=tuple(PRIOR)).weights
    assert weights["encoder"] == pytest.approx(1.0, abs=0.05)
    assert weights["llm"] < 0.05


def test_gradient_is_right():
    import scipy.optimize as module
    from scipy.optimize import check_grad

    parts, targets, allowed = world(b=50)
    allowed = allowed.copy()
    allowed[:, 3] = False
    captured = {}

    def spy(objective, start, **kwargs):
        captured["f"] = objective
        return original(objective, start, **kwargs)

    original = module.minimize
    module.minimize = spy
    try:
        fit(parts, targets, allowed, PRIOR)
    finally:
        module.minimize = original
    f = captured["f"]
    assert check_grad(lambda w: f(w)[0], lambda w: f(w)[1], np.array([0.7, 0.2, 0.1])) < 1e-2


def test_targets_that_were_not_allowed_teach_nothing():
    parts, targets, allowed = world(b=100)
    masked = allowed.copy()
    masked[np.arange(50), targets[:50]] = False
    a = fit(parts, targets, masked, PRIOR).weights
    b = fit({n: p[50:] for n, p in parts.items()}, targets[50:], masked[50:], PRIOR).weights
    assert a == pytest.approx(b, abs=1e-4)


def test_log_softmax_and_spread():
    x = np.array([[0.0, np.log(3.0)]], np.float32)
    np.testing.assert_allclose(np.exp(log_softmax(x)), [[0.25, 0.75]], atol=1e-6)
    out = spread(np.array([2, 0]), np.array([-1.0, -2.0], np.float32), 4)
    np.testing.assert_allclose(out, [-2.0, -2.0 - FLOOR, -1.0, -2.0 - FLOOR])


def test_the_source_is_the_part_that_lifts_an_item_most_above_an_even_share():
    fusion = Fusion({"a": 1.0, "b": 0.5})
    shares = {"a": np.log([0.5, 0.1]).astype(np.float32), "b": np.log([0.2, 0.9]).astype(np.float32)}
    found = Listed(np.array([4, 2]), np.zeros(2, np.float32), shares, fusion)
    assert found.sources(10) == ["a", "b"]
    assert Listed(np.zeros(0, np.int64), np.zeros(0, np.float32), {}, fusion).sources(10) == []


def leaning_world(slope, seed=0, b=600, n=40):
    """Targets drawn from softmax((1 + slope * familiarity) encoder); the profile says nothing."""
    rng = np.random.default_rng(seed)
    familiarity = np.tile(rng.normal(size=n).astype(np.float32), (b, 1))
    parts = {name: log_softmax(2 * rng.normal(size=(b, n)).astype(np.float32)) for name in ("encoder", "profile")}
    p = np.exp(log_softmax((1 + slope * familiarity) * parts["encoder"])).astype(np.float64)
    targets = np.array([rng.choice(n, p=line / line.sum()) for line in p])
    return {**parts, FAMILIARITY: familiarity}, targets, np.ones((b, n), bool)


def test_a_weight_leans_on_familiarity_where_the_data_do():
    prior = {"encoder": 1.0, "profile": 0.0}
    fusion, gain = fit_or_keep(*leaning_world(0.4), prior, leaning=LEANING)
    assert fusion.weights["encoder*familiarity"] == pytest.approx(0.4, abs=0.08) and gain > 0.05
    assert abs(fusion.weights["profile*familiarity"]) < 0.08
    fusion, _ = fit_or_keep(*leaning_world(0.0), prior, leaning=LEANING)
    assert set(fusion.weights) == {"encoder", "profile"}, "noise must not buy weights"


def test_a_product_of_parts_counts_where_both_are_there():
    parts = {"encoder": np.array([[1.0, 2.0]], np.float32), FAMILIARITY: np.array([[-1.0, 1.0]], np.float32)}
    fusion = Fusion({"encoder": 1.0, "encoder*familiarity": 0.5, "profile*familiarity": 9.0})
    assert fusion.combine(parts).tolist() == [[0.5, 3.0]]
    assert Fusion({"encoder": 1.0}).combine(parts).tolist() == [[1.0, 2.0]]
    assert fusion.combine({"encoder": parts["encoder"]}).tolist() == [[1.0, 2.0]]
