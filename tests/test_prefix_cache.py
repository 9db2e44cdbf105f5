"""What was read before is not read again, changes no bit of any answer, and never reaches anybody else."""

import threading

import numpy as np
import pytest
import torch
from conftest import make_model

from llmrec.decoding import trie_scoring
from llmrec.decoding.beam_search import beam_search
from llmrec.errors import RequestError
from llmrec.lm.rendering import ItemRef, Message, Text, UserRef
from llmrec.lm.runtime.prefix_cache import PrefixCache, Segment, segment_ends, segment_key
from llmrec.semantic_ids.trie import Trie

MODEL = make_model(30, 2, 8)
TRIE = Trie(MODEL.vocab.ids.codes, 8)
SYSTEM = Message("system", (Text("You recommend films and say in a few words why they fit."),))


def turn(text, user=None):
    parts = (Text(text), ItemRef(3)) if user is None else (Text(text), UserRef(np.full(8, user, np.float32)))
    return Message("user", parts)


def conversation(*texts, user=None):
    messages = [SYSTEM]
    for i, text in enumerate(texts):
        messages.append(turn(text, user) if i % 2 == 0 else Message("assistant", (Text(text),)))
    return MODEL.renderer.render([*messages, Message("assistant", (), open=True)])


class Counting:
    """Counts the rows that pass through the first layer."""

    def __init__(self, monkeypatch):
        self.rows = 0
        original = trie_scoring.build_transformer

        def counted(*given):
            transformer = original(*given)
            forward = type(transformer).forward

            def counting(this, x, *args, **kwargs):
                self.rows += len(x)
                return forward(this, x, *args, **kwargs)

            monkeypatch.setattr(type(transformer), "forward", counting, raising=True)
            return transformer

        monkeypatch.setattr(trie_scoring, "build_transformer", counted)
        beam_search(MODEL, TRIE, [conversation("warm")], 1)  # the counter is in place from here on
        monkeypatch.setattr(trie_scoring, "build_transformer", original)
        self.rows = 0


def test_segments_end_where_turns_end_and_are_never_short():
    closing = (9, 8)
    ids = np.array([1] * 40 + [9, 8] + [2] * 5 + [9, 8] + [3] * 40 + [9, 8] + [4] * 40)
    assert segment_ends(ids, closing, 32) == [42, 91, 131]
    assert segment_ends(ids[:60], closing, 32) == [60]
    assert segment_ends(ids[:74], closing, 32) == [42, 74]
    assert segment_ends(np.array([1]), closing, 32) == [1]


@pytest.mark.kernels
def test_a_conversation_goes_on_without_being_read_again(monkeypatch):
    prefixes = PrefixCache()
    counting = Counting(monkeypatch)
    first = "I liked quiet films about families, what else is there?"
    answer = "There is one about a house by the sea and three sisters."
    one = conversation(first, answer, "Shorter ones please, and nothing sad at all")
    beam_search(MODEL, TRIE, [one], 5, prefixes=prefixes)
    two = conversation(first, answer, "Shorter ones please, and nothing sad at all", answer, "and now the oldest ones")
    counting.rows = 0
    cold = beam_search(MODEL, TRIE, [two], 5)
    without, counting.rows = counting.rows, 0
    warm = beam_search(MODEL, TRIE, [two], 5, prefixes=prefixes)
    shared = segment_ends(two.ids, MODEL.renderer.chat.closing)[2]
    assert counting.rows == without - shared
    assert (warm[0].scores == cold[0].scores).all() and (warm[0].rows == cold[0].rows).all()
    counting.rows = 0
    beam_search(MODEL, TRIE, [two], 5, prefixes=prefixes)
    assert counting.rows == without - len(two.ids)  # the very same prompt: beams alone


@pytest.mark.kernels
@pytest.mark.parametrize("limit", [1, 40_000, 10**9])
def test_no_bit_depends_on_what_was_asked_before(limit):
    prefixes = PrefixCache(limit)
    rng = np.random.default_rng(0)
    prompts = [conversation(*("x" * int(n) for n in rng.integers(1, 60, 3)), user=u) for u in (0.5, -1.0) for _ in "ab"]
    cold = [beam_search(MODEL, TRIE, [p], 8)[0] for p in prompts]
    for i in rng.integers(0, len(prompts), 30):
        warm = beam_search(MODEL, TRIE, [prompts[i]], 8, prefixes=prefixes)[0]
        assert warm.rows.tolist() == cold[i].rows.tolist() and warm.scores.tolist() == cold[i].scores.tolist()
        assert prefixes.bytes <= limit
        beam_search(MODEL, TRIE, [prompts[j] for j in rng.integers(0, len(prompts), 3)], 8, prefixes=prefixes)


@pytest.mark.kernels
def test_equal_words_with_another_user_vector_share_nothing():
    prefixes = PrefixCache()
    one = conversation("the same words in every way, all of them", user=0.5)
    other = conversation("the same words in every way, all of them", user=0.75)
    assert (one.ids == other.ids).all()
    assert segment_key(one, len(one.ids), 1) != segment_key(other, len(other.ids), 1)
    beam_search(MODEL, TRIE, [one], 8, prefixes=prefixes)
    warm = beam_search(MODEL, TRIE, [other], 8, prefixes=prefixes)[0]
    cold = beam_search(MODEL, TRIE, [other], 8)[0]
    assert warm.scores.tolist() == cold.scores.tolist()


def test_the_oldest_go_first_and_a_beginning_outlives_what_follows_it():
    def segment():
        return Segment(torch.zeros(1, 2, 1, 4, 2), torch.zeros(4))

    keys = [(bytes([i]), b"", 1) for i in range(4)]
    cache = PrefixCache(limit=2 * segment().bytes)
    cache.keep(keys[0], segment())
    cache.keep(keys[1], segment())
    assert len(cache.find(keys[:2])) == 2
    cache.keep(keys[2], segment())  # key 1 follows key 0, so it is the one to go
    assert len(cache.find(keys[:1])) == 1 and len(cache.find(keys[1:2])) == 0 and len(cache.find(keys[2:3])) == 1
    cache.clear()
    assert len(cache) == cache.bytes == 0


def test_one_cache_a_model():
    prefixes = PrefixCache()
    beam_search(MODEL, TRIE, [conversation("hello")], 3, prefixes=prefixes)
    other = make_model(30, 2, 8, seed=1)
    with pytest.raises(RequestError, match="belongs to another model"):
        beam_search(other, TRIE, [conversation("hello")], 3, prefixes=prefixes)


@pytest.mark.kernels
def test_many_threads_get_their_own_answers():
    prefixes = PrefixCache(200_000)
    prompts = [conversation("x" * i, "y" * 40, "z" * 20, user=float(i)) for i in range(1, 9)]
    expected = [beam_search(MODEL, TRIE, [p], 8)[0].scores.tolist() for p in prompts]
    wrong = []

    def work(seed):
        for i in np.random.default_rng(seed).integers(0, len(prompts), 12):
            found = beam_search(MODEL, TRIE, [prompts[i]], 8, prefixes=prefixes)[0].scores.tolist()
            if found != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
