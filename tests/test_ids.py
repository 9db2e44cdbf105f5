"""One rule for ids: every reader and every door takes another form of a known id for it, or refuses and names it."""

import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_catalog
from hypothesis import given
from hypothesis import strategies as st
from own_data import KEEPS_UNKNOWN, TABLES, UNTIMED, WRITERS, prepared, read_back, said, table

from llmrec.app.api.endpoints import find_item
from llmrec.batch.ranker import IdLookup, resolve_ids
from llmrec.batch.request_files import read_requests as requests
from llmrec.checkpoint.parts import kept_rows
from llmrec.data.catalog import Catalog, Item
from llmrec.data.ids import IdVariants, canonical_form, first_collision, id_text, is_rounded
from llmrec.data.interactions import Interactions
from llmrec.data.readers.assembly import JoinRules
from llmrec.data.readers.table import append_table, read_table
from llmrec.data.readers.table_mapping import load_mapping
from llmrec.errors import DataError, RequestError
from llmrec.lifecycle.add_items import extended_catalog

FULL = str.maketrans("0123456789", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19")
OTHER_FORMS = {
    "float": lambda n: f"{n}.0",
    "floats": lambda n: f"{n}.000",
    "zeros": lambda n: f"00{n}",
    "full width": lambda n: str(n).translate(FULL),
    "all of it": lambda n: f"0{n}.0".translate(FULL).replace("\uff0e", "."),
}
EVERY_READER = pytest.mark.parametrize("reader", WRITERS)
EVERY_FORM = pytest.mark.parametrize("other", OTHER_FORMS)


def log_of(numbers, users, rng, length=6):
    """User, item, time as numbers; every item is there, and every user more than once."""
    picks = [(int(users[n % len(users)]), int(item)) for n, item in enumerate(numbers)]
    picks += [(int(user), int(item)) for user in users for item in rng.choice(numbers, length, replace=False)]
    return [(user, item, 1_500_000_000 + step) for step, (user, item) in enumerate(picks)]


def as_words(log, user=str, item=str):
    return [(user(one), item(other), time) for one, other, time in log]


@given(st.integers(-(10**20), 10**20), st.integers(-(10**20), 10**20))
def test_forms_of_one_number_are_one_and_those_of_two_are_two(one, other):
    texts = [str(one), f" {one}\t", f"{one}.0", f"{one}.00"]
    if one >= 0:
        texts += [f"00{one}", str(one).translate(FULL)]
    assert {canonical_form(text) for text in texts} == {str(one)}
    assert (canonical_form(str(other)) == canonical_form(str(one))) == (one == other)
    assert IdVariants([str(one)]).unique_variant(str(other)) is None


@given(st.text(st.sampled_from("ab0123.-x "), min_size=1, max_size=6))
def test_an_id_that_is_no_number_has_its_own_form(id):
    try:
        Decimal(id.strip())
    except ArithmeticError:
        assert canonical_form(id) == id.strip()


def test_what_a_value_reads_as():
    read = [id_text(one) for one in (" a ", 7, 7.0, Decimal("7.00"), True, 7.5, None, float("nan"), [1])]
    assert read == ["a", "7", "7", "7", "", "", "", "", ""]
    rounded = [2.0**53, 1e300, float("inf"), "9007199254740992.0", "1e+16", "1.23E12", "-1.5e+03"]
    assert all(map(is_rounded, rounded))
    exact = [
        2**60,
        2.0**53 - 1,
        "9007199254740993",
        "9007199254740991.0",
        "12e4",
        "1e9f",
        "1.5",
        "v1.0",
        Decimal(2**60),
    ]
    assert not any(map(is_rounded, exact))
    assert first_collision(["a", "1", "b", "01"]) == ("1", "01") and first_collision(["1", "a", "10", "1a"]) is None


@EVERY_READER
@EVERY_FORM
def test_another_form_of_a_known_item_is_that_item(tmp_path, reader, other):
    rng = np.random.default_rng(len(reader) + len(other))
    numbers = rng.choice(np.arange(1, 10_000), 12, replace=False)
    log = log_of(numbers, range(1, 6), rng)
    _, right, _ = prepared(reader, tmp_path / "right", list(map(str, numbers)), as_words(log))
    catalog, x, report = prepared(
        reader, tmp_path / "other", list(map(str, numbers)), as_words(log, item=OTHER_FORMS[other])
    )
    assert (x.row.tolist(), x.user.tolist()) == (right.row.tolist(), right.user.tolist())
    assert all(one.title.startswith("Title") for one in catalog.items), "every record was found"
    assert "another form" in said(report) and not report.dropped
    shop = reader == "amazon"  # the catalogue is made of the reviews
    assert [canonical_form(one.id) for one in catalog.items] == list(
        dict.fromkeys(str(i) for _, i, _ in log) if shop else map(str, numbers)
    )
    with_exact = JoinRules(accept_loss=True, exact_ids=True)
    try:
        exact = prepared(
            reader, tmp_path / "exact", list(map(str, numbers)), as_words(log, item=OTHER_FORMS[other]), with_exact
        )
    except DataError as error:
        assert str(numbers[0]) in str(error) or "none of its" in str(error)
    else:
        raise AssertionError(f"{len(exact[1])} interactions with unknown items")


@EVERY_READER
def test_blanks_around_ids_are_no_part_of_them(tmp_path, reader):
    if reader in UNTIMED:
        pytest.skip("blanks divide the words of a sequence")
    log = [("u", "x", 1), ("u", "y", 2), ("v", "x", 3)]
    catalog, x, report = prepared(
        reader, tmp_path / "d", [" x ", "y\u3000"], as_words(log, lambda u: f" {u}", lambda i: f"{i} ")
    )
    assert [one.id for one in catalog.items] == ["x", "y"] and x.users == ("u", "v") and not report.dropped


@EVERY_READER
@pytest.mark.parametrize("kind", ["item", "user"])
@EVERY_FORM
def test_two_forms_of_one_id_are_named_and_refused_unless_ids_are_exact(tmp_path, reader, kind, other):
    twin = OTHER_FORMS[other](7)
    items, users = (["7", twin, "8"], ["1", "2"]) if kind == "item" else (["7", "8", "9"], ["7", twin])
    log = [(user, item, step) for user in users for step, item in enumerate(items)]
    with pytest.raises(DataError) as caught:
        prepared(reader, tmp_path / "d", items, log)
    assert f"{kind} ids '7' and {twin!r} are two forms of one" in str(caught.value) and "--exact-ids" in str(
        caught.value
    )
    catalog, x, _ = prepared(reader, tmp_path / "e", items, log, JoinRules(exact_ids=True))
    assert (len(catalog), len(x.users), len(x)) == (3, 2, 6)


@EVERY_READER
@pytest.mark.parametrize("kind", ["item", "user", "item of the log"])
@pytest.mark.parametrize("cell", ["9007199254740992.0", "1e+16", "1.23457E+12"])
def test_a_number_that_a_float_or_a_spreadsheet_rounded_is_no_id(tmp_path, reader, kind, cell):
    items, log = ["7", "8"], [["u", "7", 1], ["u", "8", 2]]
    if kind == "item":
        items[1] = cell
    else:
        log[1][kind != "user"] = cell
    with pytest.raises(DataError, match=r"(line|row) 2|line 3|line 1") as caught:
        prepared(reader, tmp_path / "d", items, log)
    assert cell in str(caught.value) and "2**53" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("form_", ["parquet", "arrow", "jsonl"])
def test_ids_in_columns_of_floats(tmp_path, form_):
    """Five posts of 2**60 and more must not become one item."""
    posts = [float(2**60 + n) for n in range(5)]
    for name, items, log, column in (
        ("i", [1.0, *posts[1:]], [("u", "1", 1)], "item_id"),
        ("l", ["1"], [("u", 1.0, 1), *(("u", post, 2) for post in posts)], "item_id"),
        ("l", ["1"], [(1.0, "1", 1), *((post, "1", 2) for post in posts)], "user_id"),
    ):
        table(form_, tmp_path, items, log)
        with pytest.raises(
            DataError, match=rf"{name}\.{form_}, (row|line) 2: {column} 1\.15\d*e\+18 was stored as a float"
        ):
            read_back(form_, tmp_path)
    table(form_, tmp_path, [1.0, 2.0**53 - 1], [(3.0, 1.0, 1), (3.0, 2.0**53 - 1, 2)])
    catalog, x, _ = read_back(form_, tmp_path)
    assert [one.id for one in catalog.items] == ["1", "9007199254740991"] and x.users == ("3",) and len(x) == 2


@pytest.mark.parametrize(("type_", "exact"), [(pa.float16(), 2**11), (pa.float32(), 2**24)])
@pytest.mark.parametrize("listed", [False, True])
def test_ids_in_columns_of_narrow_floats(tmp_path, type_, exact, listed):
    def write(last):
        cells = [np.array([1.0, 2.0]), np.array([last])] if listed else [1.0, last]
        narrow = [np.asarray(one).astype(type_.to_pandas_dtype())[()] for one in cells]
        ids = pa.array(narrow, pa.list_(type_) if listed else type_)
        pq.write_table(pa.table({"user_id": ["u", "v"], "item_id": ids}), tmp_path / "interactions.parquet")

    pq.write_table(pa.table({"item_id": [1, 2, exact - 1], "title": list("abc")}), tmp_path / "items.parquet")
    flags = {name: {"file": str(tmp_path / f"{name}.parquet")} for name in ("items", "interactions")}
    write(float(exact - 1))
    assert read_table(load_mapping(None, flags))[1].row.max() == 2
    write(float(exact))
    with pytest.raises(
        DataError, match=rf"interactions\.parquet, row 2: item_id {exact} is of type \w+, .* only below {exact}"
    ):
        read_table(load_mapping(None, flags))


@EVERY_READER
@pytest.mark.parametrize("share", [0.04, 0.06])
def test_lost_interactions_are_said_with_examples_and_stop_above_a_twentieth(tmp_path, reader, share):
    if reader in KEEPS_UNKNOWN:
        pytest.skip("an item without a record is kept")
    log = [(f"u{n % 20}", "A" if n % 2 else "B", n) for n in range(1, 101)]
    lost = round(100 * share)
    log[:lost] = [(f"gone{n % 2}", f"x{n}", n) for n in range(1, lost + 1)]
    words = (
        f"{lost} of 100 interactions ({lost}.0%) are with items that the catalogue does not have, e.g. 'x1', 'x2', "
        "'x3'; the items' ids look like 'A'; 2 of 22 users (9.1%) lose all of theirs"
    )
    if share > 0.05:
        with pytest.raises(DataError) as caught:
            prepared(reader, tmp_path / "d", ["A", "B"], log)
        assert words in str(caught.value) and "--accept-loss" in str(caught.value)
    accepted = JoinRules(accept_loss=share > 0.05)
    _, x, report = prepared(reader, tmp_path / "e", ["A", "B"], log, accepted)
    assert words in said(report) and report.dropped == {"unknown item": lost} and len(x) == 100 - lost


SECONDS = 1_500_000_000
CLOCKS = {
    "milliseconds": (
        lambda t: t * 1000,
        r"as seconds and milliseconds would be; .*multiply those around 15\d+ by 1,000",
    ),
    "microseconds": (lambda t: t * 10**6, r"multiply those around 15\d+ by 1,000,000"),
    "steps": (lambda t: t - SECONDS + 1, "steps or days beside the seconds of a clock"),
    "days": (lambda t: 20140503, "steps or days beside the seconds of a clock"),
}


@EVERY_READER
@pytest.mark.parametrize("clock", CLOCKS)
def test_two_clocks_in_one_column_are_refused(tmp_path, reader, clock):
    if reader in UNTIMED:
        pytest.skip("no times")
    other, words = CLOCKS[clock]
    log = [(f"u{n % 3}", f"i{n % 5}", SECONDS + n * 86_400) for n in range(30)]
    items = [f"i{n}" for n in range(5)]
    assert len(prepared(reader, tmp_path / "one", items, log)[1]) == 30
    all_other = [(user, item, other(time)) for user, item, time in log]
    assert prepared(reader, tmp_path / "all", items, all_other)[1].users == ("u0", "u1", "u2")
    with pytest.raises(DataError, match=words) as caught:
        prepared(reader, tmp_path / "two", items, [*log[:29], *all_other[29:]])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form_", TABLES[:2])
def test_dates_beside_counts_are_refused_with_both_lines(tmp_path, form_):
    log = [("u", "a", "2014-05-03"), ("u", "b", 1_500_000_000), ("u", "a", 7)]
    with pytest.raises(DataError, match=r"line [34]: at 7 stands beside 2014-05-03 \(.*line [12]\): dates and numbers"):
        prepared(form_, tmp_path / "d", ["a", "b"], log)
    assert len(prepared(form_, tmp_path / "e", ["a", "b"], log[:2])[1]) == 2, "seconds are what a date is read as"


# the doors behind the readers


def world():
    log = Interactions.build(["1", "1", "007"], [0, 1, 2], [1, 2, 3], [1.0, 1.0, 1.0])
    return Catalog([Item("1", "One", "", {}), Item("007", "Bond", "", {}), Item("x", "Ex", "", {})]), log


@pytest.mark.parametrize(("asked", "row"), [(" 1", 0), ("1.0", 0), ("\uff11", 0), ("7", 1), ("7.0", 1), ("x ", 2)])
def test_lookups_take_another_form_of_the_one_known_id(asked, row):
    catalog, log = world()
    assert catalog.row(asked) == find_item(catalog, asked) == row
    assert kept_rows(catalog, [asked]).tolist() == [one for one in range(3) if one != row]
    if row < 2:
        assert log.users[log.number(asked)] == ("1", "007")[row]
    with pytest.raises(RequestError, match="in the catalogue already"):
        extended_catalog(catalog, [Item("new", "New", "", {}), Item(asked.strip(), "Twin", "", {})])
    if asked.strip() != catalog[row].id:
        grown = extended_catalog(catalog, [Item(asked.strip(), "Twin", "", {})], exact_ids=True)
        assert grown.row(asked.strip()) == 3 and grown.row(catalog[row].id) == row


def test_an_id_that_two_known_ones_could_be_is_neither():
    catalog = Catalog([Item("7", "A", "", {}), Item("07", "B", "", {})])
    assert (catalog.row("7"), catalog.row("07"), catalog.row_or_none("007")) == (0, 1, None)
    with pytest.raises(RequestError, match="no item '007'"):
        catalog.row("007")


def test_a_title_goes_before_another_form_of_an_id():
    catalog = Catalog([Item("7", "Seven", "", {}), Item("8", "007", "", {})])
    assert find_item(catalog, "007") == 1 and find_item(catalog, "7.0") == 0


def test_new_items_that_are_two_forms_of_one_are_refused():
    catalog = make_catalog()
    two = [Item("9", "A", "", {}), Item("9.0", "B", "", {})]
    with pytest.raises(DataError, match=r"item ids '9' and '9\.0' are two forms of one"):
        extended_catalog(catalog, two)
    assert len(extended_catalog(catalog, two, exact_ids=True)) == len(catalog) + 2


@pytest.mark.parametrize("other", OTHER_FORMS)
def test_append_makes_no_new_user_of_another_form(tmp_path, other):
    catalog = Catalog([Item(str(n), f"T{n}", "", {}) for n in range(1, 5)])
    known = Interactions.build(["5", "6"], [0, 1], [1, 2], [1.0, 1.0])
    write = OTHER_FORMS[other]
    (tmp_path / "n.csv").write_text(f"user_id,item_id,at\n{write(5)},{write(3)},3\nnew,4,4\n", encoding="utf-8")
    mapping = load_mapping(None, {"interactions": {"file": str(tmp_path / "n.csv"), "time": "at"}})
    _, x, report = append_table(catalog, known, mapping)
    assert x.users == ("5", "6", "new") and x.rows_of(0).tolist() == [0, 2]
    assert f"1 user ids are written in another form than the known ones: read {write(5)!r} as '5'" in said(report)
    _, apart, _ = append_table(catalog, known, mapping, rules=JoinRules(accept_loss=True, exact_ids=True))
    assert apart.users == ("5", "6", "new") and apart.rows_of(0).tolist() == [0], "the unknown item and its user went"
    (tmp_path / "n.csv").write_text(f"user_id,item_id,at\n9,3,3\n{write(9)},4,4\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"user ids '9' and .* are two forms of one"):
        append_table(catalog, known, mapping)
    assert len(append_table(catalog, known, mapping, rules=JoinRules(exact_ids=True))[1].users) == 4


def test_append_refuses_an_id_that_two_known_users_could_be(tmp_path):
    catalog = Catalog([Item("1", "T", "", {})])
    known = Interactions.build(["7", "07"], [0, 0], [1, 2], [1.0, 1.0])
    (tmp_path / "n.csv").write_text("user_id,item_id,at\n007,1,3\n")
    mapping = load_mapping(None, {"interactions": {"file": str(tmp_path / "n.csv"), "time": "at"}})
    with pytest.raises(DataError, match=r"user id '007' is another form of '(7|07)' and of '(7|07)'"):
        append_table(catalog, known, mapping)


@pytest.mark.parametrize("end", ["parquet", "jsonl"])
def test_requests_follow_the_same_rule(tmp_path, end):
    catalog, log = world()
    ids = IdLookup(catalog, log)
    asked = [
        {"request_id": 1, "user_id": 1.0, "items": [7.0, 1.0], "candidates": [7.0]},
        {"request_id": 2, "user_id": None, "items": [1.0], "candidates": None},
        {"request_id": 3, "user_id": 7.0, "items": None, "candidates": None},
    ]

    def write(found):
        path = tmp_path / f"r.{end}"
        if end == "parquet":
            pq.write_table(pa.Table.from_pylist(found), path)
        else:
            path.write_text("".join(json.dumps(one) + "\n" for one in found))
        return path

    tasks = [resolve_ids(row, ids, 5, strict=True)[0] for row in requests(write(asked))]
    assert [one.history for one in tasks] == [(0, 1), (0,), (2,)] and tasks[0].candidates == (1,)
    texts = [{"request_id": 1, "items": [" 1.0 ", "0007", "\uff11"]}]
    (row,) = requests(write(texts))
    assert resolve_ids(row, ids, 5)[0].history == (0, 1)
    (tmp_path / "r.csv").write_text("request_id,user_id,items\n1,01.0, 0007 |x\n2,1e+16,\n")
    row, *_ = requests(tmp_path / "r.csv", 0, 1)
    assert resolve_ids(row, ids, 5, strict=True)[0].history == (0, 1, 2)
    with pytest.raises(DataError, match=r"user_id is '1e\+16'.*2\*\*53"):
        list(requests(tmp_path / "r.csv"))
    for name, cell in (("user_id", 2.0**53), ("items", [1.0, 2.0**60]), ("candidates", [2.0**60])):
        with pytest.raises(DataError, match=rf"{name} is .*2\*\*53"):
            list(requests(write([{"request_id": 1, "message": "x", name: cell}])))


def test_requests_in_narrow_floats_are_refused_where_they_are_rounded(tmp_path):
    for exact, fine in ((2**24 - 1, True), (2**24, False)):
        items = pa.array([[float(exact)]], pa.list_(pa.float32()))
        pq.write_table(pa.table({"request_id": [1], "items": items}), tmp_path / "r.parquet")
        if fine:
            assert next(requests(tmp_path / "r.parquet")).items == (str(exact),)
        else:
            with pytest.raises(DataError, match="row 1: items 16777216 is of type float"):
                list(requests(tmp_path / "r.parquet"))
