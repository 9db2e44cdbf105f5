"""What somebody took and did not like still counts for the list, and no reason names it, whichever way one asks."""

import json
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_recommender import make_recommender
from typer.testing import CliRunner

from llmrec.app.api.endpoints import recommend_for
from llmrec.app.cli.main import app
from llmrec.app.web import batch, compare, saved_conversations
from llmrec.batch.ranker import IdLookup, resolve_ids
from llmrec.batch.request_files import BatchRequest
from llmrec.data.interactions import History, Interactions
from llmrec.dialogue.chat import Chat
from llmrec.nlu.state import Limits, Session
from llmrec.recommender import Recommender, Request

USER = "u3"
ROW = BatchRequest(1, "r", USER, None, None, None, "", 5)


@pytest.fixture(scope="module")
def rated() -> Recommender:
    """The toy world where everybody gave the first two of five items one and two stars, the others four and five."""
    made = make_recommender()
    log = made.interactions
    stars = np.tile(np.array([1, 2, 5, 4, 5], np.float32), len(log.users))
    made.interactions = Interactions(log.users, log.user, log.row, log.time, stars)
    return made


def named(reasons) -> set[str]:
    return {match[1] for one in reasons if (match := re.search(r"goes with (.+? \(\d{4}\))", one))}


def titles(recommender, rows) -> set[str]:
    return {recommender.catalog.label(row) for row in rows}


def doors(recommender: Recommender) -> dict[str, list[str]]:
    """The reasons of one user's list, by the way it was asked for."""
    found = {}
    history = recommender.history_of(USER)
    found["python"] = [one.reason for one in recommender.recommend(Request(history, k=5))]
    found["said"] = [one.reason for one in recommend_for(recommender, Request(history, "no horror", k=5))[0]]
    chat, session = Chat(recommender, Limits(reply_tokens=1)), Session("one")
    chat.switch_user(session, USER)
    found["chat"] = [one.reason for one in chat.current_list(session).items]
    kept = saved_conversations._profile_in(
        json.loads(json.dumps(saved_conversations._profile_out(session.profile))), chat
    )
    found["kept chat"] = [one.reason for one in recommender.recommend(chat.request(kept)[0])]
    asked = compare.parse_form(recommender, Limits(), "", USER, "", 5)[0]
    found["compare"] = [one.reason for one in compare.rank_hybrid(recommender, asked)]
    answer, _ = batch._answer(recommender, IdLookup(recommender.catalog, recommender.interactions), ROW)
    found["batch"] = [one.reason for one in answer.items]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recommender, "from_pretrained", staticmethod(lambda *_: recommender))
        shown = CliRunner().invoke(app, ["recommend", "--user", USER, "-k", "5", "--json"])
    found["command line"] = [one["reason"] for one in json.loads(shown.stdout)["items"]]
    return found


def test_no_reason_names_what_the_user_did_not_like(rated):
    rows = rated.history_of(USER)
    liked, not_liked = titles(rated, rows[2:]), titles(rated, rows[:2])
    for door, reasons in doors(rated).items():
        assert reasons and named(reasons), door
        assert named(reasons) <= liked and not named(reasons) & not_liked, door


def test_without_different_values_everything_taken_may_be_named(rated):
    plain = make_recommender()
    rows = plain.history_of(USER)
    lists = [[one.row for one in made.recommend(Request(made.history_of(USER), k=7))] for made in (plain, rated)]
    assert lists[0] == lists[1], "opinions must not change what is listed"
    assert plain.history_of(USER).disliked == frozenset()
    assert all(named(reasons) <= titles(plain, rows) for reasons in doors(plain).values())


def test_a_user_who_liked_nothing_gets_reasons_from_the_catalogue(rated):
    row = rated.history_of(USER)[0]
    (only,) = rated.recommend(Request(History([row], [row]), k=1))
    assert "goes with" not in only.reason and "film" in only.reason


def test_what_is_liked_now_may_be_named_whatever_the_log_says(rated):
    chat, session = Chat(rated), Session("one")
    chat.switch_user(session, USER)
    row = session.profile.history[0]
    assert row in session.profile.known.disliked
    chat.record_opinion(session, row, "like")
    assert row not in session.profile.known.disliked and row in session.profile.known
    history = rated.history_of(USER)
    assert row not in history.extended_with([row]).disliked and history.extended_with([row]) == history


@pytest.mark.parametrize(
    ("values", "not_liked"),
    [
        ([1, 2, 3, 4, 5], [1, 2, 3]),
        ([0.5, 2.5, 3, 3.5, 5], [0.5, 2.5, 3]),
        ([4, 5], []),
        ([1, 1, 1], []),
        ([0, 1], [0]),
        ([-1, 1], [-1]),
        ([2, 6, 7, 10], [2, 6]),
        (list(range(1, 200)), []),  # counts, not stars
    ],
)
def test_what_is_liked_is_told_by_the_scale_of_the_log(values, not_liked):
    log = Interactions.build(["u"] * len(values), range(len(values)), range(len(values)), values)
    assert log.disliked(0) == {values.index(one) for one in not_liked}


def test_the_latest_opinion_of_an_item_counts():
    log = Interactions.build(["u", "u", "v"], [3, 3, 1], [1, 2, 1], [1, 5, 5])
    assert log.disliked(0) == frozenset()
    log = Interactions.build(["u", "u", "v"], [3, 3, 1], [1, 2, 1], [5, 1, 5])
    assert log.disliked(0) == {3}


@given(st.lists(st.integers(0, 20)), st.sets(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_a_history_is_its_rows_with_opinions(rows, gone, later):
    history = History(rows, gone)
    assert history == tuple(rows) and history.disliked == gone & {*rows}
    again = pickle.loads(pickle.dumps(history))
    assert again == history and again.disliked == history.disliked == History(history).disliked
    more = history.extended_with(later)
    assert more == tuple(dict.fromkeys([*rows, *later])) and more.disliked == history.disliked - {*later}


def test_a_request_of_a_file_keeps_opinions(rated):
    ids = IdLookup(rated.catalog, rated.interactions)
    task, _ = resolve_ids(ROW, ids, 5)
    assert task.history.disliked == {*rated.history_of(USER)[:2]}
