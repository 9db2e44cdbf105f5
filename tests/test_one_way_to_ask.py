"""One way to ask: a question has the same rows in the same order through chat, HTTP, command line, batch and Python."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from doors import Ask, ranked, through_chat, through_cli, through_python
from gradio_client import Client
from toy_ranking import load, make_world
from toy_recommender import free_port, serving

from llmrec.app.api.endpoints import Api
from llmrec.app.server.serve import create_app
from llmrec.app.server.settings import load_settings
from llmrec.dialogue.chat import Chat, Limits
from llmrec.dialogue.request_parsing import parse_request
from llmrec.recommender import Recommender, Request

Lists = dict[str, tuple[int, ...]]
# Every door can be asked these. Even rows are comedies of the 1990s, odd ones horror films of the 1980s.
EVERYWHERE = {
    "a wish in words": Ask("a funny tale", k=10),
    "the longest list": Ask("something scary"),
    "a constraint": Ask("only comedies", k=12),
    "an exclusion": Ask("no horror, please", k=12),
    "a span of years": Ask("horror from 1983 to 1986", k=12),
    "one bound": Ask("a tale from before 1985", k=12),
    "an exclusion and a wish": Ask("a scary tale but nothing from the nineties", k=10),
    "constraints that nothing satisfies": Ask("comedies from before 1985", k=10),
    "an amount that no attribute holds": Ask("a funny tale under 10 dollars", k=10),
    "a word that no value is called": Ask("a funny tale without clowns", k=10),
    "how many in words": Ask("give me 3 comedies", k=10),
    "more in words than k": Ask("top 15 horror films", k=10),
    "a liked title": Ask("I loved Funny Tale 4", k=10),
    "two liked titles and an exclusion": Ask("I liked Funny Tale 2 and Scary Tale 5, but no comedies", k=10),
    "a disliked title": Ask("I hated Scary Tale 3", k=10),
    "a title that was liked is not any more": Ask("I hated Funny Tale 4, something funny", ("i2", "i4"), k=10),
    "a seen title": Ask("I have already seen Scary Tale 9, another horror film", k=10),
    "items": Ask(items=("i0", "i2", "i8"), k=10),
    "items and a wish": Ask("something scary", ("i0", "i2"), k=10),
    "items and a constraint": Ask("no comedies", ("i4", "i5"), k=20),
    "a user": Ask(user="u3", k=10),
    "a user and a wish": Ask("a funny tale", user="u1", k=10),
    "a user, items that the log has and others, and a constraint": Ask("from 1990 on", ("i0", "i9"), "u2", k=10),
}
# Filters of a program are no part of a batch's row: four doors.
FILTERED = {
    "filters": Ask(filters={"any_of": {"genre": ["Comedy"]}, "ranges": {"year": [1992, 1997]}}, k=20),
    "filters and words": Ask(
        "a funny tale", filters={"none_of": {"genre": ["Horror"]}, "ranges": {"year": [1994, None]}}, k=20
    ),
    "filters, a user and words": Ask("no horror", ("i6",), "u5", {"ranges": {"year": [None, 1996]}}, k=20),
}
# Candidates are for programs that rank: batch and Python.
OF_CANDIDATES = {
    "candidates": Ask(user="u3", candidates=("i9", "i1", "i0", "i3"), k=10),
    "candidates and words": Ask("no horror", ("i0",), candidates=("i9", "i0", "i2", "i4"), k=10),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def recommender(model: Path) -> Recommender:
    return load(str(model), None)


@pytest.fixture(scope="module")
def client(recommender: Recommender) -> Iterator[Client]:
    port = free_port()
    for url in serving(create_app(recommender, load_settings(port=port)), port):
        yield Client(url, verbose=False)


@pytest.fixture(scope="module")
def batched(recommender: Recommender, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Lists:
    """The lists of one file with all questions that a batch can be asked."""
    asks = EVERYWHERE | OF_CANDIDATES
    found = ranked(recommender, model, tmp_path_factory.mktemp("batch"), list(asks.values()))
    return dict(zip(asks, found, strict=True))


def through_http(client: Client, recommender: Recommender, ask: Ask) -> tuple[int, ...]:
    given = {"items": [*ask.items], "user": ask.user, "message": ask.message, "k": ask.k, "filters": dict(ask.filters)}
    answer = client.predict(**given, api_name="/recommend")
    return tuple(recommender.catalog.row(one["item_id"]) for one in answer["items"])


@pytest.mark.parametrize("name", EVERYWHERE)
def test_every_door_gives_the_same_list(name: str, recommender: Recommender, client: Client, batched: Lists) -> None:
    ask = EVERYWHERE[name]
    expected = through_python(recommender, ask)
    assert expected and len(expected) == len(set(expected))
    assert through_chat(recommender, ask) == expected, "chat"
    assert through_http(client, recommender, ask) == expected, "HTTP"
    assert through_cli(recommender, ask) == expected, "command line"
    assert batched[name] == expected, "batch"


@pytest.mark.parametrize("name", FILTERED)
def test_filters_mean_the_same_wherever_they_can_be_given(name: str, recommender: Recommender, client: Client) -> None:
    ask = FILTERED[name]
    expected = through_python(recommender, ask)
    assert expected and expected != through_python(recommender, replace(ask, filters={}))
    assert through_chat(recommender, ask) == expected, "chat"
    assert through_http(client, recommender, ask) == expected, "HTTP"
    assert through_cli(recommender, ask) == expected, "command line"


@pytest.mark.parametrize("name", OF_CANDIDATES)
def test_candidates_are_ranked_alike_in_a_batch_and_in_python(
    name: str, recommender: Recommender, batched: Lists
) -> None:
    ask = OF_CANDIDATES[name]
    assert batched[name] == through_python(recommender, ask) != ()
    assert {recommender.catalog[row].id for row in batched[name]} <= set(ask.candidates or ())


def test_titles_and_ids_name_the_same_items(recommender: Recommender, client: Client) -> None:
    by_id, by_title = Ask(items=("i0", "i7"), k=10), Ask(items=("Funny Tale 0", "Scary Tale 7"), k=10)
    expected = through_python(recommender, by_id)
    assert through_http(client, recommender, by_title) == expected
    assert through_cli(recommender, by_title) == expected


def test_a_number_in_words_is_bounded_as_k_is(recommender: Recommender) -> None:
    few = Api(SimpleNamespace(chat=Chat(recommender, Limits(k=4))))  # type: ignore[arg-type]
    assert len(few.recommend([], "", "give me 20 comedies", 3)["items"]) == 4
    assert len(recommender.recommend(Request(message="the best 200 tales", k=3))) == 60
    read = parse_request(Request(message="top 500 comedies", k=3), recommender.catalog).request
    assert read.k <= 100


def test_the_questions_have_different_answers(recommender: Recommender) -> None:
    found = {name: through_python(recommender, ask) for name, ask in EVERYWHERE.items()}
    assert len(found) >= 20 and len(set(found.values())) >= len(found) - 4, (
        "a test of doors that ignore the question would pass"
    )
