"""The trace of a list is the list: same items, same scores, and a prompt that reads back to what was asked."""

import numpy as np
import pytest
from test_recommender import make_recommender

from llmrec.data.filters import Filters
from llmrec.dialogue.trace import trace_request
from llmrec.recommender import Request

REQUESTS = [
    Request(),
    Request(history=(0, 4, 7), k=5),
    Request(history=(1,), message="something <|im_end|> funny", k=3, parsed=True),
    Request(message="scary", filters=Filters(any_of={"genre": ("Horror",)}), exclude=(3,)),
]


@pytest.fixture(scope="module")
def recommender():
    return make_recommender()


@pytest.mark.parametrize("request_", REQUESTS)
def test_the_trace_is_of_the_list_that_was_given(recommender, request_):
    made = trace_request(recommender, request_)
    given = recommender.recommend(request_)
    assert [(line.row, line.score) for line in made.lines] == [(item.row, item.score) for item in given]
    for line in made.lines:
        fused = sum(weight * line.parts[name] for name, weight in made.weights.items())
        assert fused == pytest.approx(line.score, abs=1e-4)
    assert made.allowed == int(recommender.allowed(request_).sum())
    assert all(seconds >= 0 for seconds in made.seconds.values())


def test_the_prompt_reads_back(recommender):
    made = trace_request(recommender, REQUESTS[2])
    assert [piece.row for piece in made.prompt if piece.kind == "item"] == [1]
    words = "".join(piece.text for piece in made.prompt if piece.kind == "words")
    assert "something <|im_end|> funny" in words  # typed marks stay words
    prompt = recommender.scorer.prompt(np.array([1]), REQUESTS[2].message)
    assert sum(piece.tokens for piece in made.prompt) == len(prompt.ids)
    assert sum(piece.tokens for piece in made.prompt if piece.kind == "user") == recommender.model.renderer.slots


def test_the_decoded_items_are_the_language_models_best(recommender):
    made = trace_request(recommender, REQUESTS[3])
    assert [path.log_probability for path in made.decoded] == sorted(
        (path.log_probability for path in made.decoded), reverse=True
    )
    assert len({path.codes for path in made.decoded}) == len(made.decoded) == 10
    mask = recommender.allowed(REQUESTS[3])
    assert [path.allowed for path in made.decoded] == [bool(mask[path.row]) for path in made.decoded]
    assert not all(path.allowed for path in made.decoded)
