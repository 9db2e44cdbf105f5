"""Interactions are sorted and numbered without a trace of file order; splits leak nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.interactions import Interactions, leave_one_out, split_by_time
from llmrec.errors import DataError, RequestError

EVENTS = st.lists(
    st.tuples(st.sampled_from(["u1", "u2", "u10", "x"]), st.integers(0, 9), st.integers(0, 20)),
    min_size=1,
    max_size=40,
)


def build(events) -> Interactions:
    users, rows, times = zip(*events, strict=True)
    return Interactions.build(users, rows, times, [1.0] * len(events))


def test_build_sorts_by_user_time_and_order_given():
    x = Interactions.build(["b", "10", "9", "b", "b"], [1, 2, 3, 4, 5], [7, 1, 1, 3, 7], [5, 4, 3, 2, 1])
    assert x.users == ("9", "10", "b"), "ids of digits are sorted as numbers"
    assert x.user.tolist() == [0, 1, 2, 2, 2] and x.row.tolist() == [3, 2, 4, 1, 5]
    assert x.time.tolist() == [1, 1, 3, 7, 7] and x.value.tolist() == [3, 4, 2, 5, 1]
    assert x.offsets.tolist() == [0, 1, 2, 5] and x.rows_of(2).tolist() == [4, 1, 5]
    assert (x.user.dtype, x.row.dtype, x.time.dtype, x.value.dtype) == (
        np.int64,
        np.int64,
        np.int64,
        np.float32,
    )
    assert len(x) == 5 and x.number("b") == 2


def test_wrong_asks_say_what_is_right():
    x = build([("anna", 0, 0), ("bob", 1, 0), ("hanna", 1, 0), ("carl", 1, 0)])
    with pytest.raises(RequestError, match=r"no user 'anne'.* 'anna', 'hanna'"):
        x.number("anne")
    with pytest.raises(RequestError, match="user number 4"):
        x.rows_of(4)
    with pytest.raises(RequestError, match="user number -1"):
        x.rows_of(-1)
    with pytest.raises(DataError, match="differ in length"):
        Interactions.build(["a"], [1, 2], [1], [1.0])
    with pytest.raises(DataError, match="row -3"):
        Interactions.build(["a"], [-3], [1], [1.0])
    with pytest.raises(RequestError, match="'valid' or 'test'"):
        leave_one_out(x).history(0, "train")


@settings(max_examples=100, deadline=None)
@given(EVENTS, st.randoms())
def test_file_order_leaves_no_trace_except_between_ties(events, random):
    events = list({(user, time): (user, row, time) for user, row, time in events}.values())
    shuffled = events[:]
    random.shuffle(shuffled)
    assert build(shuffled).fingerprint == build(events).fingerprint


def test_fingerprint_is_the_same_everywhere_and_sees_every_field():
    base = (["a", "b"], [0, 1], [5, 6], [1.0, 2.5])
    prints = {Interactions.build(*base).fingerprint}
    for place, value in [(0, ["a", "c"]), (1, [0, 2]), (2, [5, 7]), (3, [1.0, 2.0])]:
        changed = [*base]
        changed[place] = value
        prints.add(Interactions.build(*changed).fingerprint)
    assert len(prints) == 5
    assert Interactions.build(*base).fingerprint == "058bdf4d17a4ac6be2426cd812974b28368a40fe3380bf92d994579e385a75c8"


@settings(max_examples=150, deadline=None)
@given(EVENTS)
def test_leave_one_out_against_the_definition(events):
    x = build(events)
    split = leave_one_out(x)
    assert split.train.users == x.users and split.valid.shape == split.test.shape == (len(x.users),)
    for user in range(len(x.users)):
        whole = x.rows_of(user).tolist()
        long = len(whole) >= 3
        assert split.train.rows_of(user).tolist() == (whole[:-2] if long else whole)
        assert (split.valid[user], split.test[user]) == ((whole[-2], whole[-1]) if long else (-1, -1))
        assert split.history(user, "valid").tolist() == split.train.rows_of(user).tolist()
        assert split.history(user, "test").tolist() == (whole[:-1] if long else whole)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.integers(0, 10), st.integers(11, 20))
def test_by_time_against_the_definition(events, valid_from, test_from):
    x = build(events)
    split = split_by_time(x, valid_from, test_from)
    assert (split.train.time < valid_from).all()
    for user in range(len(x.users)):
        mine = [(int(t), int(r)) for u, t, r in zip(x.user, x.time, x.row, strict=True) if u == user]
        valid = [row for time, row in mine if valid_from <= time < test_from]
        test = [row for time, row in mine if time >= test_from]
        assert split.valid[user] == (valid[0] if valid else -1)
        assert split.test[user] == (test[0] if test else -1)
        assert split.history(user, "valid").tolist() == [row for time, row in mine if time < valid_from]
        assert split.history(user, "test").tolist() == [row for time, row in mine if time < test_from]
    with pytest.raises(DataError, match="before test_from"):
        split_by_time(x, 5, 5)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.data())
def test_changing_anything_held_out_changes_nothing_in_train(events, data):
    """Promise 6 at its root: the train part has the same bytes whatever was held out."""
    x = build(events)
    row = x.row.copy()
    held = np.ones(len(x), bool)
    held[:] = False
    for user in range(len(x.users)):
        start, stop = x.offsets[user], x.offsets[user + 1]
        if stop - start >= 3:
            held[stop - 2 : stop] = True
    row[held] = data.draw(st.lists(st.integers(0, 99), min_size=int(held.sum()), max_size=int(held.sum())))
    changed = Interactions(x.users, x.user, row, x.time, np.where(held, 9.0, x.value).astype(np.float32))
    assert leave_one_out(changed).train.fingerprint == leave_one_out(x).train.fingerprint

    late = x.time >= 10
    row = np.where(late, data.draw(st.integers(0, 99)), x.row)
    changed = Interactions(x.users, x.user, row, x.time, x.value)
    assert split_by_time(changed, 10, 15).train.fingerprint == split_by_time(x, 10, 15).train.fingerprint


def test_nothing_at_all_is_fine():
    split = leave_one_out(Interactions.build([], [], [], []))
    assert len(split.train) == 0 and split.valid.shape == (0,)
    nobody_early = split_by_time(build([("a", 1, 5)]), 1, 2)
    assert nobody_early.history(0, "test").tolist() == [] and nobody_early.test.tolist() == [1]
