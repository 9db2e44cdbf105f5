"""What is said of somebody's own data: lists that were not cut, order that is no time, cells that are no values."""

import json
import shlex

import numpy as np
import pytest
from conftest import HashEmbedder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_data import prepared
from toy_files import saved
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.data.catalog import Catalog, Item
from llmrec.data.dataset import load_data
from llmrec.data.interactions import Interactions
from llmrec.data.readers.table_files import read_rows
from llmrec.data.validation import validate_dataset
from llmrec.errors import DataError


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def shop(folder, mark, items=300, tags=40, seed=0, many=8):
    """A table of items whose tags stand with a mark between them, and a log."""
    rng = np.random.default_rng(seed)
    names = [f"tag{n}" for n in range(tags)]
    lists = [mark.join(rng.choice(names, rng.integers(1, many), replace=False)) for _ in range(items)]
    cells = "".join(f'{n},Game {n},"{one}"\n' for n, one in enumerate(lists))
    (folder / "items.csv").write_text("item_id,title,tags\n" + cells)
    log = "".join(
        f"u{user},{item},{time}\n" for time, (user, item) in enumerate(rng.integers(0, (60, items), (600, 2)))
    )
    (folder / "log.csv").write_text("user_id,item_id,at\n" + log)
    return ["data", "prepare", "--source", "table", "--items", folder / "items.csv", "--interactions",
            folder / "log.csv", "--time", "at", "--category", "tags"]  # fmt: skip


def found_in(result):
    assert result.exit_code == 0, result.exception
    return {one["name"]: one["text"] for one in json.loads(result.output)["findings"]}


@pytest.mark.parametrize("mark", [";", ",", ", ", "/", "_"])
@pytest.mark.parametrize("seed", [0, 1])
def test_lists_that_were_not_cut_are_told_with_the_option_that_cuts_them(tmp_path, mark, seed):
    words = shop(tmp_path, mark, seed=seed)
    said = found_in(run(*words, "--out", tmp_path / "d", "--json"))["uncut-values"]
    assert said == found_in(run("data", "check", tmp_path / "d", "--json"))["uncut-values"]
    assert "attribute 'tags' has" in said and "on 300 items" in said and "they would be 40;" in said
    option = shlex.split(said[said.index("--separator") :].partition(" (")[0])
    assert option == ["--separator", mark.strip()]
    after = found_in(run(*words, *option, "--out", tmp_path / "e", "--json"))
    assert not {"uncut-values", "unique-values"} & set(after)
    assert len(load_data(tmp_path / "e")[0].values("tags")) == 40


def test_lists_that_were_cut_and_names_are_not_told(tmp_path):
    assert not {"uncut-values", "unique-values"} & set(
        found_in(run(*shop(tmp_path, "|"), "--out", tmp_path / "d", "--json"))
    )
    rng = np.random.default_rng(0)
    names = [f"Last{a}, First{b}" for a, b in rng.integers(0, 30, (300, 2))]
    items = [Item(str(n), f"T{n}", "", {"by": (name,)}) for n, name in enumerate(names)]
    log = Interactions.build(["u"] * 5, range(5), range(5), [1.0] * 5)
    assert "uncut-values" not in {one.name for one in validate_dataset(Catalog(items), log).findings}
    alone = [Item(str(n), f"T{n}", "", {"by": (f"Studio {n}",)}) for n in range(300)]
    assert "unique-values" in {one.name for one in validate_dataset(Catalog(alone), log).findings}


def test_written_lists_say_that_their_brackets_go(tmp_path):
    words = shop(tmp_path, "', '")
    path = tmp_path / "items.csv"
    lines = path.read_text().replace(',"', ",\"['").replace('"\n', "']\"\n")
    path.write_text(lines)
    said = found_in(run(*words, "--out", tmp_path / "d", "--json"))["uncut-values"]
    assert "they would be 40;" in said and "without brackets and quotation marks in the cells" in said


def ordered(seed, key=None):
    """A log of 40 users, its rows in a random order or sorted by a key of (user, item, stars)."""
    rng = np.random.default_rng(seed)
    log = [
        (int(user), int(item), int(rng.integers(1, 6)))
        for user in range(40)
        for item in rng.choice(90, 8, replace=False)
    ]
    rng.shuffle(log)
    return sorted(log, key=key) if key else log


SORTED = {
    "value": lambda row: row[2], "value down": lambda row: -row[2], "item": lambda row: row[1],
    "item text": lambda row: str(row[1]), "user and item": lambda row: row[:2],
    "user and value": lambda row: (row[0], row[2]),
}  # fmt: skip


@pytest.mark.parametrize("time", [[], ["--time", "at"]])
@pytest.mark.parametrize("key", [None, *SORTED])
def test_no_time_a_constant_one_and_sorted_rows_are_found(tmp_path, key, time):
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"{n},T{n}\n" for n in reversed(range(90))))
    rows_ = "".join(f"{user},{item},{stars},1500000000\n" for user, item, stars in ordered(5, SORTED.get(key)))
    (tmp_path / "log.csv").write_text("user_id,item_id,stars,at\n" + rows_)
    result = run("data", "prepare", "--source", "table", "--items", tmp_path / "items.csv", "--interactions",
                 tmp_path / "log.csv", "--value", "stars", *time, "--out", tmp_path / "d", "--json")  # fmt: skip
    found = found_in(result)
    for finding in ("no-order" if time else "no-time", *(["sorted-rows"] if key else [])):
        assert "sequence models and leave-one-out measures mean little" in found[finding]
    assert ("sorted-rows" in found) == (key is not None)
    if key:
        assert f"sorted by {'value' if 'value' in key else 'item'}" in found["sorted-rows"]
    assert found == found_in(run("data", "check", tmp_path / "d", "--json"))


def test_times_and_lists_in_order_are_no_findings_and_recbole_without_times_is(tmp_path):
    log = [(f"u{user}", f"i{item}", time) for time, (user, item, _) in enumerate(ordered(1))]
    items = [f"i{n}" for n in range(90)]
    for form in ("csv", "recbole", "movielens csv", "amazon", "s3rec jsonl"):
        data = prepared(form, tmp_path / form, items, log)
        names = {one.name for one in validate_dataset(*data[:2], data[2].notes).findings}
        assert not {"no-time", "no-order", "sorted-rows", "two-clocks"} & names, form
    path = tmp_path / "recbole" / "x.inter"
    path.write_text("\n".join(line.rpartition("\t")[0] for line in path.read_text().splitlines()) + "\n")
    from llmrec.data.dataset import read_source

    data = read_source("recbole", tmp_path / "recbole")
    assert "no-time" in {one.name for one in validate_dataset(*data[:2], data[2].notes).findings}
    mixed = Interactions.build(["u"] * 4, range(4), [1_500_000_000, 1_500_000_001, 1_500_000_002_000, 5], [1.0] * 4)
    assert "two-clocks" in {one.name for one in validate_dataset(data[0], mixed).findings}


def test_what_is_known_of_the_order_stays_with_the_data(tmp_path):
    (tmp_path / "items.csv").write_text("item_id,title\na,A\nb,B\n")
    (tmp_path / "log.csv").write_text("user_id,item_id\n" + "u,a\nu,b\n" * 3)
    tables = ["--items", tmp_path / "items.csv", "--interactions", tmp_path / "log.csv"]
    assert "no-time" in found_in(
        run("data", "prepare", "--source", "table", *tables, "--out", tmp_path / "d", "--json")
    )
    (tmp_path / "new.csv").write_text("user_id,item_id,step\nu,a,77\n")
    new = ["--interactions", tmp_path / "new.csv", "--time", "step", "--out", tmp_path / "e", "--json"]
    assert "no-time" in found_in(run("data", "append", tmp_path / "d", *new))


# cells


def test_words_that_mean_no_value_are_read_as_empty_and_counted(tmp_path):
    (tmp_path / "items.csv").write_text(
        "item_id,title,price,out,old\na,A,Free,Coming soon,?\nb,B, FREE ,2014-05-03,yes\nc,C,3,TBA,no\n"
    )
    (tmp_path / "log.csv").write_text("user_id,item_id,stars,at\nu,a,none,1\nu,b,4,2\nu,c,Free,3\n")
    words = ["data", "prepare", "--source", "table", "--items", tmp_path / "items.csv", "--interactions",
             tmp_path / "log.csv"]  # fmt: skip
    words += ["--number", "price", "--date", "out", "--flag", "old", "--value", "stars", "--time", "at"]
    for option, said in (("Free", "price: 'Free' is not a number"),
                         ("'Coming soon'", "out 'Coming soon' is not a date"), ("'?'", "old '?' is not a flag"),
                         ("TBA", "out 'TBA' is not a date"),
                         ("none", "stars: 'none' is not a number")):  # fmt: skip
        result = run(*words, "--out", tmp_path / "d")
        assert said in str(result.exception) and not (tmp_path / "d").exists()
        assert f"--empty {option} reads such cells as empty" in str(result.exception)
        words += ["--empty", shlex.split(option)[0]]
    result = run(*words, "--out", tmp_path / "d", "--json")
    assert result.exit_code == 0, result.exception
    catalog, x, _ = load_data(tmp_path / "d")
    assert [dict(one.attributes) for one in catalog.items] == [
        {}, {"old": "old", "out": 20140503, "out_year": 2014}, {"old": "not old", "price": 3}
    ]  # fmt: skip
    assert x.value.tolist() == [1, 4, 1]
    notes = " | ".join(json.loads(result.output)["notes"])
    assert "7 cells were read as empty: " in notes
    for one in ("1 of 'Free' in price", "1 of 'FREE' in price", "1 of 'none' in stars", "1 of '?' in old"):
        assert one in notes


@pytest.mark.parametrize(
    ("option", "column", "part"),
    [
        ("--item-id", "code", "items"), ("--title", "name", "items"), ("--text", "about", "items"),
        ("--category", "tags", "items"), ("--number", "price", "items"), ("--date", "day", "items"),
        ("--flag", "on", "items"), ("--user", "who", "log"), ("--item", "what", "log"), ("--time", "when", "log"),
        ("--value", "stars", "log"), ("--event", "did", "log"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_missing_column_names_the_option_that_says_which_it_is(tmp_path, option, column, part, form):
    def write(path, *records):
        if form == "csv":
            lines = [",".join(records[0]), *(",".join(map(str, one.values())) for one in records)]
        else:
            lines = [json.dumps(one) for one in records]
        path.write_text("\n".join(lines) + "\n")

    write(tmp_path / f"items.{form}", {"item_id": 1, "title": "A"})
    write(tmp_path / f"log.{form}", {"user_id": 1, "item_id": 1})
    words = ["data", "prepare", "--source", "table", "--items", tmp_path / f"items.{form}", "--interactions",
             tmp_path / f"log.{form}", "--out", tmp_path / "d"]  # fmt: skip
    result = run(*words, option, column)
    assert isinstance(result.exception, DataError), result.output
    said = str(result.exception)
    assert f"{part}.{form}" in said and f"{column!r}" in said and f"say with {option} which column it is" in said


def test_columns_that_nothing_reads_are_named(tmp_path):
    for form in ("csv", "jsonl", "parquet", "arrow"):
        *_, report = prepared(form, tmp_path / form, ["a"], [("u", "a", 1)])
        assert not any("not read" in note for note in report.notes)
        from llmrec.data.readers.table import read_table
        from llmrec.data.readers.table_mapping import load_mapping

        flags = {"items": {"file": str(tmp_path / form / f"i.{form}"), "title": "item_id"},
                 "interactions": {"file": str(tmp_path / form / f"l.{form}")}}  # fmt: skip
        notes = read_table(load_mapping(None, flags))[2].notes
        assert "columns of items that are not read: title" in notes
        assert "columns of interactions that are not read: at" in notes


CELL = st.text("ab 1", max_size=4)
ROWS = st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=ROWS, after=ROWS, column=st.integers(0, 2), quoted=st.booleans(), mark=st.sampled_from(",;\t|"), text=CELL
)
def test_an_open_quotation_mark_is_blamed_on_the_line_where_it_opens(
    tmp_path, before, after, column, quoted, mark, text
):
    """Whatever follows: plain cells up to the end, or a quoted one whose first mark seems to close it."""

    def line(cells, marks):
        return mark.join(f'"{one}\n""{one}"' if marks else one for one in cells)

    bad = ["x", "x", "x"]
    bad[column] = f'"{text}'
    lines = [mark.join("abc"), *(line(cells, True) for cells in before), mark.join(bad)]
    rest = [line(cells, False) for cells in after] + ([mark.join(('y"y', "y", "y"))] if quoted else [])
    path = tmp_path / "t.csv"
    path.write_text("\n".join([*lines, *rest]) + "\n")
    opened = "\n".join(lines).count("\n") + 1
    with pytest.raises(DataError, match=rf"t\.csv, line {opened}: .*is a quotation mark left open\?"):
        list(read_rows(path, ["a"]))


# new items


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("own"))[0]


def test_added_items_say_what_was_left_out(model, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("llmrec.lifecycle.add_items.MiniLM.load", staticmethod(HashEmbedder))
    path = tmp_path / "new.csv"
    path.write_text(
        f"item_id,title,genre,year,maker\nn0,A,Comedy;Drama,TBA,x\nn0,A,Comedy;Drama,TBA,x\nn1,,{'w' * 101},1993,y\n"
    )
    words = ["items", "add", "--model", model, "--items", path, "--category", "genre", "--separator", ";", "--number",
             "year", "--empty", "tba", "--out", tmp_path / "grown", "--json"]  # fmt: skip
    result = run(*words)
    assert result.exit_code == 0, result.exception
    done = json.loads(result.stdout)
    assert done["added_items"] == 2 and done["dropped"] == {"repeated item": 1}
    assert done["notes"] == [
        "1 items without a title are called by their id", "cut, in characters: 1 words of a category to 100",
        "2 cells were read as empty: 2 of 'TBA' in year", "columns of items that are not read: maker",
    ]  # fmt: skip
    grown = load_data(tmp_path / "grown-data")[0]
    assert grown[grown.row("n0")].attributes == {"genre": ("Comedy", "Drama")}
    path.write_text("item_id,title\nn5,A\n n5 ,A\n\uff4e5,B\n", encoding="utf-8")
    twins = run("items", "add", "--model", model, "--items", path, "--out", tmp_path / "more")
    assert "item ids 'n5' and '\uff4e5' are two forms of one" in str(twins.exception)
    exact = run("items", "add", "--model", model, "--items", path, "--exact-ids", "--out", tmp_path / "more", "--json")
    assert exact.exit_code == 0 and json.loads(exact.stdout)["added_items"] == 2
