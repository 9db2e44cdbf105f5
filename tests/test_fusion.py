import numpy as np
import pytest

from llmrec.numerics import log_softmax
from llmrec.ranking.fusion import (
    FAMILIAR_COUNT,
    FAMILIARITY_PARTS,
    FLOOR,
    NON_NEGATIVE,
    FusedList,
    Fusion,
    familiarity,
    familiarity_parts,
    fill_catalog,
    fit,
    fit_or_keep,
)


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
    out = fill_catalog(np.array([2, 0]), np.array([-1.0, -2.0], np.float32), 4)
    np.testing.assert_allclose(out, [-2.0, -2.0 - FLOOR, -1.0, -2.0 - FLOOR])


def test_the_source_is_the_part_that_lifts_an_item_most_above_an_even_share():
    fusion = Fusion({"a": 1.0, "b": 0.5})
    shares = {"a": np.log([0.5, 0.1]).astype(np.float32), "b": np.log([0.2, 0.9]).astype(np.float32)}
    found = FusedList(np.array([4, 2]), np.zeros(2, np.float32), shares, fusion)
    assert found.sources(10) == ["a", "b"]
    assert FusedList(np.zeros(0, np.int64), np.zeros(0, np.float32), {}, fusion).sources(10) == []


def test_a_part_lifts_by_familiarity_too_and_one_that_takes_away_lifts_nothing():
    fusion = Fusion({"encoder": 1.0, "profile": 0.5, "popularity": -2.0, "profile*novelty": 0.6})
    shares = {
        "encoder": np.log([0.2, 0.2]).astype(np.float32),
        "profile": np.log([0.2, 0.2]).astype(np.float32),
        "popularity": np.log([0.01, 0.01]).astype(np.float32),
        "profile*novelty": np.array([1.0, 0.0], np.float32),
    }
    found = FusedList(np.array([4, 2]), np.zeros(2, np.float32), shares, fusion)
    assert found.sources(10) == ["profile", "encoder"]


def leaning_world(slope, seed=0, b=600, n=40):
    """Targets drawn from softmax of the encoder, whose weight grows by `slope` with familiarity; the text is noise."""
    rng = np.random.default_rng(seed)
    known = familiarity(rng.integers(0, 2 * FAMILIAR_COUNT, n))
    parts = {name: log_softmax(2 * rng.normal(size=(b, n)).astype(np.float32)) for name in ("encoder", "profile")}
    parts |= familiarity_parts(parts, known)
    p = np.exp(log_softmax(0.5 * parts["encoder"] + slope * parts["encoder*familiarity"])).astype(np.float64)
    targets = np.array([rng.choice(n, p=line / line.sum()) for line in p])
    return parts, targets, np.ones((b, n), bool)


def test_a_weight_depends_on_familiarity_where_the_data_do():
    prior = {"encoder": 1.0, "profile": 0.0}
    fusion, gain = fit_or_keep(*leaning_world(1.0, b=1500), prior, NON_NEGATIVE, FAMILIARITY_PARTS)
    assert fusion.weights["encoder"] == pytest.approx(0.5, abs=0.15) and gain > 0.01
    assert fusion.weights["encoder*familiarity"] == pytest.approx(1.0, abs=0.2)
    assert abs(fusion.weights["profile*novelty"]) < 0.1
    fusion, _ = fit_or_keep(*leaning_world(0.0), prior, NON_NEGATIVE, FAMILIARITY_PARTS)
    assert set(fusion.weights) == {"encoder", "profile"}, "noise must not buy weights"


def test_no_item_is_given_less_than_nothing_of_a_part():
    rng, prior = np.random.default_rng(5), {"encoder": 1.0, "profile": 0.0}
    parts, targets, allowed = leaning_world(1.0, seed=3)
    for told in (targets, rng.permutation(targets)):
        fitted = fit(parts, told, allowed, {**prior, **FAMILIARITY_PARTS}, positive=NON_NEGATIVE).weights
        assert min(fitted.values()) >= 0


def test_familiarity_goes_from_never_to_often_and_leaves_an_even_part_alone():
    np.testing.assert_allclose(
        familiarity(np.array([0, 9, FAMILIAR_COUNT, 10 * FAMILIAR_COUNT])), [0, 0.498927, 1, 1], atol=1e-5
    )
    even = {name: np.full((2, 5), -np.log(5.0), np.float32) for name in ("encoder", "profile")}
    for part in familiarity_parts(even, familiarity(np.arange(5))).values():
        np.testing.assert_allclose(part, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("plain", "further", "taken"), [(-2.0, -0.5, False), (-2.0, 0.5, True), (0.2, 0.5, True), (0.6, 0.5, False)]
)
def test_weights_by_familiarity_are_weighed_against_what_would_be_served_without_them(
    monkeypatch, plain, further, taken
):
    """Where a fit of the plain parts does not help, that is the prior itself, and not the worse fit."""
    parts, targets, allowed = leaning_world(0.0, b=30)
    noise = np.random.default_rng(0).normal(scale=0.1, size=30)
    gains = lambda *given: noise + (further if "profile*novelty" in given[4] else plain)  # noqa: E731
    monkeypatch.setattr("llmrec.ranking.fusion._gains", gains)
    prior = {"encoder": 0.5, "profile": 0.0}
    fusion, gain = fit_or_keep(parts, targets, allowed, prior, NON_NEGATIVE, FAMILIARITY_PARTS)
    assert ("profile*novelty" in fusion.weights) == taken
    assert gain == pytest.approx((further if taken else plain) + noise.mean())
    if gain <= 0:
        assert fusion.weights == prior


def test_a_list_has_sources_whatever_the_weights():
    shares = {"encoder": np.log([0.2, 0.1]).astype(np.float32), "popularity": np.log([0.1, 0.3]).astype(np.float32)}
    for weights in ({"encoder": 0.0, "popularity": 0.0}, {"encoder": -1.0, "popularity": 0.0}):
        found = FusedList(np.array([4, 2]), np.zeros(2, np.float32), shares, Fusion(weights)).sources(10)
        assert len(found) == 2 and set(found) <= shares.keys()


def test_parts_that_are_absent_count_nothing():
    parts = {"encoder": np.array([[1.0, 2.0]], np.float32)}
    assert Fusion({"encoder": 1.0, "profile*novelty": 9.0}).combine(parts).tolist() == [[1.0, 2.0]]
