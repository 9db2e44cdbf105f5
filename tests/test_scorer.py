"""What a part of a score may say, and in which number format the language model's is computed."""

from dataclasses import replace

import numpy as np
import pytest
from test_recommender import WORLDS
from toy_recommender import make_recommender

from llmrec.lm.runtime.onednn import can_prepack, fastest_matmul_dtype
from llmrec.ranking.fusion import Fusion

needs_bfloat16 = pytest.mark.skipif(
    not can_prepack() or fastest_matmul_dtype() != "bfloat16",
    reason="this processor does not multiply bfloat16 matrices",
)


def test_the_half_that_is_least_like_a_message_is_equally_unlike_it():
    scorer = WORLDS[500].scorer
    likeness = (scorer.embedder.encode(["a funny tale"]) @ scorer.text.T)[0]
    found = scorer.words(["a funny tale"])[0]
    below = likeness < np.median(likeness)
    assert below.sum() > 100
    assert np.unique(found[below]).size == 1 and found[below][0] == found.min()
    above = np.flatnonzero(likeness > np.median(likeness))
    assert np.array_equal(np.argsort(-found[above], kind="stable"), np.argsort(-likeness[above], kind="stable"))


@pytest.mark.kernels
def test_of_an_item_far_from_a_message_the_text_can_change_without_a_trace():
    scorer = WORLDS[500].scorer
    likeness = (scorer.embedder.encode(["a funny tale"]) @ scorer.text.T)[0]
    low, higher = likeness.argmin(), np.where(likeness < np.median(likeness), likeness, -np.inf).argmax()
    assert likeness[low] < likeness[higher]
    text = scorer.text.copy()
    text[low] = text[higher]
    found = replace(scorer, text=text).words(["a funny tale"])
    assert np.array_equal(found, scorer.words(["a funny tale"]))


def test_no_message_is_even():
    assert np.unique(make_recommender().scorer.words([""])).size == 1


@pytest.mark.kernels
def test_without_the_user_vector_only_the_language_model_reads_another_prompt():
    scorer, history = make_recommender().scorer, np.array([2, 4], np.int64)
    without = replace(scorer, user_vector=False)
    assert len(without.prompt(history).users) == 0 and len(scorer.prompt(history).users) == 1
    one, other = scorer.parts([history]), without.parts([history])
    assert {name for name in one if not np.array_equal(one[name], other[name])} == {"llm"}


@pytest.mark.kernels
@needs_bfloat16
def test_products_in_bfloat16_give_nearly_the_same_scores():
    exact, rounded = make_recommender(), make_recommender()
    rounded.model.matmul_dtype = "bfloat16"
    for one in (exact, rounded):
        one.model.merge()
    everything, fusion = np.ones(12, bool), Fusion({"llm": 1.0})
    for history in ((), (2, 4), (1, 3, 5, 7)):
        given = np.array(history, np.int64)
        theirs = exact.scorer.query(given).top_k(fusion, 12, everything)
        mine = rounded.scorer.query(given).top_k(fusion, 12, everything)
        one, other = (x.scores[np.argsort(x.rows)] for x in (mine, theirs))
        np.testing.assert_allclose(one, other, atol=0.1)
        assert not np.array_equal(one, other)
