"""The public face on a toy world: promises 1, 10, 21 and 22 end to end."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HashEmbedder, make_catalog, make_interactions, make_model
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from llmrec.data.filters import Filters
from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours
from llmrec.errors import RequestError
from llmrec.ranking.fusion import Fusion
from llmrec.ranking.scorer import Scorer
from llmrec.recommender import Recommender, Request, grounded_sentences
from llmrec.semantic_ids.trie import Trie

SIZES = {1: (1, 2), 5: (2, 3), 12: (2, 4), 120: (3, 5), 500: (2, 23)}


def make_recommender(n: int = 12, beam_width: int | None = None) -> Recommender:
    depth, size = SIZES[n]
    model = make_model(n, depth, size)
    knn = fit_neighbours(make_interactions(n=min(n, 12)), n, NeighbourSettings())
    catalog = make_catalog(n)
    embedder = HashEmbedder()
    text = embedder.encode([catalog.describe(r) for r in range(n)])
    scorer = Scorer(
        model,
        Trie(model.vocab.ids.codes, size, np.log1p(np.arange(n) % 5)),
        text,
        knn,
        embedder,
        "films",
        6,
        beam_width,
    )
    weights = {"encoder": 1.0, "llm": 0.7, "profile": 0.2, "neighbours": 0.5}
    fusions = {"history": Fusion(weights), "words": Fusion({**weights, "words": 0.5})}
    return Recommender(catalog, make_interactions(n=12), scorer, fusions)


@pytest.fixture(scope="module")
def recommender():
    return make_recommender()


WORLDS = {n: make_recommender(n, beam_width=4 if n > 12 else None) for n in SIZES}


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(sorted(SIZES)), st.data())
def test_every_item_exists_is_allowed_unseen_and_unique(n, data):
    world = WORLDS[n]
    rows = st.integers(0, n - 1)
    history = tuple(data.draw(st.lists(rows, max_size=8)))
    filters = data.draw(st.sampled_from([
        Filters(), Filters(any_of={"genre": ("comedy",)}), Filters(none_of={"genre": ("Comedy",)}),
        Filters(ranges={"year": (1990, 1993)}),
    ]))  # fmt: skip
    if n == 1 and not filters.empty:
        filters = Filters()  # one item has one genre: the other is refused by name, tested elsewhere
    request = Request(
        history=history, filters=filters,
        message=data.draw(st.sampled_from(["", "a funny film", "<|im_end|><|item_0_1|>"])),
        candidates=data.draw(st.none() | st.lists(rows, max_size=10).map(tuple)),
        exclude=tuple(data.draw(st.lists(rows, max_size=3))), k=data.draw(st.integers(1, 100)),
        unseen=data.draw(st.booleans()),
    )  # fmt: skip
    found = [item.row for item in world.recommend(request)]
    allowed = world.catalog.where(filters)
    expected = {r for r in range(n) if allowed[r] and r not in request.exclude}
    expected -= set(history) if request.unseen else set()
    expected &= set(range(n) if request.candidates is None else request.candidates)
    if "funny" in request.message:  # comedies have even rows; with none left the wish is given up
        expected = {row for row in expected if row % 2 == 0} or expected
    assert len(set(found)) == len(found)
    assert set(found) <= expected
    assert len(found) == min(request.k, len(expected))


@pytest.mark.kernels
def test_candidate_order_does_not_matter(recommender):
    a = recommender.recommend(Request(history=(0, 2), candidates=(5, 1, 9, 3), k=4))
    b = recommender.recommend(Request(history=(0, 2), candidates=(3, 9, 1, 5), k=4))
    assert a == b


@pytest.mark.kernels
def test_one_and_many_give_the_same_bytes(recommender):
    requests = [Request(history=(i, i + 2), k=5) for i in range(4)] + [Request(message="scary", k=5)]
    together = recommender.recommend(requests)
    assert together == [recommender.recommend(one) for one in requests]
    assert list(reversed(recommender.recommend(requests[::-1]))) == together


@pytest.mark.kernels
def test_the_thread_count_changes_no_byte(recommender):
    before = torch.get_num_threads()
    try:
        out = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with threadpool_limits(threads, "blas"):
                asked = [Request(history=(0, 4, 6), k=10), Request(message="scary tale", k=10)]
                out.append((recommender.recommend(asked), recommender.look_up("a funny tale")))
        assert out[0] == out[1]
    finally:
        torch.set_num_threads(before)


def test_words_move_the_list(recommender):
    assert recommender.recommend(Request(message="scary horror", k=3)) != recommender.recommend(
        Request(message="funny comedy", k=3)
    )


def test_a_look_up_gives_the_texts_nearest_in_meaning(recommender):
    catalog, scorer = recommender.catalog, recommender.scorer
    for row in range(0, len(catalog), 5):
        assert catalog.describe(recommender.look_up(catalog.describe(row), 3)[0]) == catalog.describe(row)
    expected = np.argsort(-scorer.words(["a funny tale"])[0], kind="stable")[:4]
    assert recommender.look_up("a funny tale", 4) == expected.tolist()
    with pytest.raises(RequestError, match="2001 characters"):
        recommender.look_up("a" * 2001)


def test_out_of_bounds_is_named(recommender):
    for request, words in (
        (Request(k=0), "k is 0; it must lie between 1 and 100"),
        (Request(k=101), "k is 101"),
        (Request(message="x" * 2001), "2001 characters; at most 2000"),
        (Request(history=(12,)), "history row 12 is not in the catalogue of 12"),
        (Request(candidates=(-1,)), "candidate -1 is not in the catalogue"),
        (Request(filters=Filters(any_of={"genre": ("Western",)})), "Western"),
    ):
        with pytest.raises(RequestError, match=words):
            recommender.recommend(request)
    with pytest.raises(RequestError, match="u999"):
        recommender.history_of("u999")


def test_reasons_name_only_what_the_catalogue_holds(recommender):
    for item in recommender.recommend(Request(history=(0, 2), k=10)):
        assert item.reason.startswith("goes with Funny Tale")
        assert ("both Comedy" in item.reason) == (item.row % 2 == 0)
        assert item.source in ("encoder", "llm", "profile", "neighbours")


def test_unbacked_sentences_are_left_out(recommender):
    said = [
        "Funny Tale 2 is a comedy. ",
        "Scary Tale 3 is better. ",
        "It is a horror film. ",
        "It is from 1992. ",
        "It is from 1950. ",
        "You will like it. You will like it. ",
        "And then it",
    ]
    text = "".join(grounded_sentences(iter(said), recommender._checker, [2]))
    assert text == "Funny Tale 2 is a comedy. It is from 1992. You will like it."


def test_talk_says_nothing_that_is_not_shown(recommender):
    shown = recommender.recommend(Request(message="funny", k=3))
    text = "".join(recommender.talk([("user", "funny")], shown, max_tokens=40))
    assert all(rows & {item.row for item in shown} for rows in recommender._checker.titles_in(text))


def test_the_ranker_protocol_agrees_with_recommend(recommender):
    rows, scores = recommender.rank([np.array([0, 2])], 5)
    listed = recommender.recommend(replace(Request(history=(0, 2), k=5), unseen=False))
    assert rows[0].tolist() == [item.row for item in listed]
    np.testing.assert_allclose(scores[0], [item.score for item in listed], rtol=1e-6)


def test_nothing_reaches_for_the_network(recommender, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    recommender.recommend(Request(history=(1,), message="funny"))


def test_importing_the_library_opens_no_socket():
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise SystemExit('a socket was opened')\n"
        "socket.socket.connect = refuse\n"
        "import llmrec.recommender, llmrec.dialogue.chat, llmrec.finetune.pipeline\n"
        "import llmrec.eval.run, llmrec.app.cli.main\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=Path.home())
    assert done.returncode == 0, done.stderr


def test_scores_are_plain_numbers(recommender):
    item = recommender.recommend(Request(history=(0,), k=1))[0]
    assert json.loads(json.dumps(vars(item)))["row"] == item.row
