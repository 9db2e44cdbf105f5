"""Own tables: CSV, JSON lines, Parquet and Arrow give one catalogue; what is wrong with them is one clear line."""

import datetime
import gzip
import json
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from llmrec import table_files
from llmrec.app.cli import app
from llmrec.catalog import Catalog, Item
from llmrec.datacheck import examine, refuse_errors
from llmrec.errors import DataError, RequestError, UserError
from llmrec.interactions import Interactions
from llmrec.sources import load_data
from llmrec.table import read_items, read_table
from llmrec.table_files import rows
from llmrec.table_mapping import ItemColumns, TableMapping, load_mapping

ITEMS = [
    {"asin": "a", "name": "Duck, yellow", "about": "Squeaks.\nFloats.", "brand": "Tub", "tags": "bath|toy",
     "cost": "$4.99", "launched": "2012-03-01", "wet": "yes"},
    {"asin": "b", "name": "Blocks", "about": "", "brand": "Haba", "tags": "toy",
     "cost": "1,299.00", "launched": "May 3, 2014", "wet": "no"},
    {"asin": "c", "name": "", "about": "", "brand": "", "tags": "", "cost": "", "launched": "", "wet": ""},
]  # fmt: skip
LOG = [
    {"who": "1", "asin": "a", "at": "2013-01-01", "what": "view"},
    {"who": "1", "asin": "b", "at": "2013-01-02T10:00:00", "what": "buy"},
    {"who": "2", "asin": "c", "at": "5", "what": "view"},
    {"who": "2", "asin": "zz", "at": "6", "what": "Buy"},
    {"who": "2", "asin": "b", "at": "7", "what": "remove"},
]
MAPPING = """
domain = "toys"
[items]
file = "items.{form}"
id = "asin"
title = "name"
text = "about"
category = "brand, tags"
number = ["price=cost"]
date = ["launched"]
flag = {{ waterproof = "wet" }}
[interactions]
file = "log.{form}"
user = "who"
item = "asin"
time = "at"
event = "what"
[events]
view = 1
buy = 3
remove = 0
"""


def write(folder, form, items=ITEMS, log=LOG):
    """Both tables and a mapping in one form."""
    for name, table in (("items", items), ("log", log)):
        path = folder / f"{name}.{form}"
        if form == "csv":
            names = list(table[0])
            quoted = ['"' + str(v).replace('"', '""') + '"' for row in table for v in row.values()]
            lines = [",".join(quoted[i : i + len(names)]) for i in range(0, len(quoted), len(names))]
            path.write_text("\n".join([",".join(names), *lines]) + "\n", encoding="utf-8")
        elif form in ("jsonl", "jsonl.gz"):
            data = "".join(json.dumps(row) + "\n" for row in table).encode()
            path.write_bytes(gzip.compress(data) if form.endswith("gz") else data)
        elif form == "parquet":
            pq.write_table(pa.Table.from_pylist(table), path)
        else:
            content = pa.Table.from_pylist(table)
            with pa.ipc.new_stream(str(path), content.schema) as stream:
                stream.write_table(content)
    mapping = folder / "mapping.toml"
    mapping.write_text(MAPPING.format(form=form), encoding="utf-8")
    return mapping


@pytest.mark.parametrize("form", ["csv", "jsonl", "jsonl.gz", "parquet", "arrow"])
def test_every_form_gives_the_same_catalogue(tmp_path, form):
    catalog, x, report = read_table(load_mapping(write(tmp_path, form), {}))
    assert catalog.domain == "toys" and [item.title for item in catalog.items] == ["Duck, yellow", "Blocks", "c"]
    assert dict(catalog[0].attributes) == {
        "brand": ("Tub",), "tags": ("bath", "toy"), "price": 4.99, "launched": 20120301, "launched_year": 2012,
        "waterproof": "waterproof",
    }  # fmt: skip
    assert catalog[0].text == "Squeaks. Floats." and dict(catalog[2].attributes) == {}
    assert catalog[1].attributes["price"] == 1299 and catalog[1].attributes["waterproof"] == "not waterproof"
    assert x.users == ("1", "2") and x.row.tolist() == [0, 1, 2] and x.value.tolist() == [1, 3, 1]
    assert x.time[0] == datetime.datetime(2013, 1, 1, tzinfo=datetime.UTC).timestamp()
    assert report.dropped == {"unknown item": 1, "event of weight 0": 1}
    assert "events: view 2, buy 2, remove 1" in report.notes


def test_typed_columns_lists_and_histories_of_parquet(tmp_path):
    day = datetime.date(2012, 3, 1)
    items = [
        {"id": 7, "title": "A", "tags": [["Toys", "Bath"], ["Toys"]], "day": day, "ok": True, "n": 2.5},
        {"id": 8, "title": "B", "tags": None, "day": None, "ok": None, "n": None},
    ]
    log = [{"user": 1, "items": [8, 7, 8], "stars": [1.0, 2.0, 3.0]}]
    pq.write_table(pa.Table.from_pylist(items), tmp_path / "i.parquet")
    pq.write_table(pa.Table.from_pylist(log), tmp_path / "l.parquet")
    flags = {
        "items": {"file": str(tmp_path / "i.parquet"), "id": "id", "category": "tags", "date": "day",
                  "flag": "ok", "number": "n"},
        "interactions": {"file": str(tmp_path / "l.parquet"), "user": "user", "item": "items", "value": "stars"},
    }  # fmt: skip
    catalog, x, _ = read_table(load_mapping(None, flags))
    assert dict(catalog[0].attributes) == {
        "tags": ("Toys", "Bath"),
        "day": 20120301,
        "day_year": 2012,
        "ok": "ok",
        "n": 2.5,
    }
    assert dict(catalog[1].attributes) == {}
    assert x.row.tolist() == [1, 0, 1] and x.value.tolist() == [1, 2, 3]


def test_a_directory_of_parts_is_one_table(tmp_path):
    for number in (1, 0):
        (tmp_path / f"part-{number}.csv").write_text(f"id,title\n{number},T{number}\n")
    (tmp_path / "state.json").write_text("{}")
    items = read_items(ItemColumns(file=str(tmp_path), id="id"))
    assert [item.id for item in items] == ["0", "1"]


ITEM_HEAD = "asin,name,about,brand,tags,cost,launched,wet\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("items", "asin,name\na,Duck\n", "items.csv, line 1: no column 'about'; found: asin, name"),
        ("items", "", "items.csv, line 1: no column 'asin'"),
        ("items", ITEM_HEAD, "holds no rows"),
        ("items", ITEM_HEAD + "a,A,,,,cheap,,\n", "items.csv, line 2: cost: 'cheap' is not a number"),
        ("items", ITEM_HEAD + "a,A,,,,1,03/05/2014,\n", "launched '03/05/2014' is not a date; write it as 2014-05-03"),
        ("items", ITEM_HEAD + "a,A,,,,1,,maybe\n", "wet 'maybe' is not a flag"),
        ("items", ITEM_HEAD + ",A,,,,,,\n", "asin '' is empty"),
        ("items", ITEM_HEAD + "a,A,,,,,,\na,B,,,,,,\n", "line 3: asin 'a' was there before with other contents"),
        ("items", ITEM_HEAD + "a,A,,,\n", "line 2: 5 cells where the header has 8"),
        ("items", ITEM_HEAD + 'a,"A,,,,,,\n' * 3, "is a quotation mark left open?"),
        ("items", ITEM_HEAD.replace("wet", "cost"), "column 'cost' is named twice"),
        ("items", "asin\0name\n", "holds a NUL byte"),
        ("log", "who,asin,at,what\n1,a,soon,view\n", "log.csv, line 2: at: 'soon' is not a number"),
        ("log", "who,asin,at,what\n1,a,5,wish\n", "what 'wish' has no weight; there are: view, buy, remove"),
        ("log", "who,asin,at,what\n,a,5,view\n", "who '' is empty"),
        ("log", "who,asin,at,what\n1,q,5,view\n", "no usable interactions"),
    ],
)
def test_a_mistake_in_a_table_is_one_line_with_its_place(tmp_path, name, content, words):
    mapping = write(tmp_path, "csv")
    (tmp_path / f"{name}.csv").write_bytes(content.encode())
    (tmp_path / "out").mkdir()
    result = CliRunner().invoke(
        app, ["data", "prepare", "--source", "table", "--mapping", str(mapping), "--out", str(tmp_path / "out")]
    )
    assert isinstance(result.exception, UserError) and words in str(result.exception), str(result.exception)
    assert "\n" not in str(result.exception) and list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[items]\nid = 5\n", "items.id: Input should be a valid string"),
        ("[items]\nids = 'a'\n", "unknown key 'items.ids'; valid here: file, id, title"),
        ("[item]\nid = 'a'\n", "unknown key 'item'; valid here: domain, items, interactions, events"),
        ("[items\n", "is not TOML"),
        ("[items]\nnumber = ['price']\ndate = ['price']\n", "attribute 'price' is named twice"),
        ("[items]\ncategory = ['title']\n", "attribute 'title' is named twice or is a word of its own"),
        ("[events]\nbuy = 1\n", "no column says what an event is"),
        ("[interactions]\nevent = 'e'\n[events]\nbuy = -1\n", "event 'buy' weighs -1.0"),
    ],
)
def test_a_mistake_in_the_mapping_is_one_line(tmp_path, text, words):
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"m\.toml") as caught:
        load_mapping(path, {})
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl.gz"])
def test_a_truncated_file_is_refused(tmp_path, form):
    mapping = write(tmp_path, form, ITEMS * 50)
    path = tmp_path / f"items.{form}"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=f"items.{form}"):
        read_table(load_mapping(mapping, {}))


def test_strict_refuses_what_would_be_left_out(tmp_path):
    mapping = write(tmp_path, "jsonl")
    with pytest.raises(DataError, match="--strict: 1 of unknown item, 1 of event of weight 0"):
        read_table(load_mapping(mapping, {}), strict=True)
    write(tmp_path, "jsonl", log=LOG[:3])
    assert read_table(load_mapping(mapping, {}), strict=True)[2].dropped == {}


def test_flags_win_over_the_file_and_the_command_writes_prepared_data(tmp_path):
    mapping = write(tmp_path, "csv")
    words = ["data", "prepare", "--source", "table", "--mapping", str(mapping), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(
        app, [*words, "--domain", "ducks", "--category", "maker=brand", "--weight", "buy=2", "--json"]
    )
    assert result.exit_code == 0, result.exception
    catalog, x, _ = load_data(tmp_path / "out")
    assert catalog.domain == "ducks" and catalog.values("maker") == ("Haba", "Tub")
    assert "brand" not in catalog.attribute_names and 2.0 in x.value
    assert json.loads(result.output)["counts"] == {"items": 3, "users": 2, "interactions": 3}
    for wrong, words in (
        (["--source", "recbole", "--title", "t"], "column options belong to --source table"),
        (["--source", "table", "--path", "x"], "--path is for other sources"),
        (["--source", "table"], "no items table"),
        (["--source", "excel", "--path", "x"], "choose from: amazon, ml-100k, movielens, recbole, s3rec, table"),
        (["--source", "table", "--weight", "buy"], "--weight 'buy' should be"),
    ):
        result = CliRunner().invoke(app, ["data", "prepare", "--out", str(tmp_path / "new"), *wrong])
        assert words in str(result.exception) and not (tmp_path / "new").exists()


def test_hugging_face_datasets_are_streamed_by_name(monkeypatch):
    asked = []

    def load_dataset(*names, **how):
        asked.append((names, how))
        return iter([{"item_id": 1, "title": "A", "extra": 2}, {"item_id": 2, "title": "B", "extra": 3}])

    monkeypatch.setitem(__import__("sys").modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(table_files, "offline", lambda: False)
    monkeypatch.setattr(table_files.importlib.util, "find_spec", lambda name: object())
    assert [item.title for item in read_items(ItemColumns(file="hf:org/toys:small@test"))] == ["A", "B"]
    assert asked == [(("org/toys", "small"), {"split": "test", "streaming": True})]
    with pytest.raises(DataError, match="no column 'price'"):
        list(rows("hf:org/toys", ["price"]))
    monkeypatch.setattr(table_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"llmrec\[datasets\]"):
        list(rows("hf:org/toys", ["title"]))
    monkeypatch.setattr(table_files, "offline", lambda: True)
    with pytest.raises(RequestError, match="offline"):
        list(rows("hf:org/toys", ["title"]))
    with pytest.raises(RequestError, match="should be hf:org/name"):
        list(rows("hf:../../etc/passwd", ["title"]))


CELLS = st.one_of(
    st.text(max_size=30), st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.text(max_size=5))
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=200),
        st.lists(st.dictionaries(st.sampled_from([*ITEMS[0], "odd"]), CELLS), max_size=4).map(
            lambda found: "\n".join(json.dumps(row) for row in found).encode()
        ),
    ),
    form=st.sampled_from(["csv", "jsonl", "jsonl.gz", "parquet", "arrow", "tsv"]),
)
@example(content=b'{"asin":' + b"[" * 100_000, form="jsonl")
@example(content=b'{"asin": 1e999, "cost": ' + b"9" * 5000 + b"}", form="jsonl")
@example(content=b'"' + b"x" * 300_000, form="csv")
def test_hostile_bytes_end_in_a_clear_error_or_a_catalogue(tmp_path, content, form):
    path = tmp_path / f"x.{form}"
    path.write_bytes(content)
    columns = load_mapping(None, {"items": {"file": str(path), "id": "asin", "title": "name", "text": "about",
        "category": "tags", "number": "cost", "date": "launched", "flag": "wet"}}).items  # fmt: skip
    try:
        Catalog(read_items(columns))
    except DataError as error:
        assert "\n" not in str(error)


def world(users=120, length=5, same_time=False, items=30, **attributes):
    rng = np.random.default_rng(0)
    picks = [rng.choice(items, length, replace=False) for _ in range(users)]
    log = Interactions.build(
        [f"u{u}" for u in range(users) for _ in range(length)], np.concatenate(picks),
        [0 if same_time else t for _ in range(users) for t in range(length)], np.ones(users * length),
    )  # fmt: skip
    taken = np.bincount(log.row, minlength=items)
    made = [
        Item(f"i{r}", f"Title {r}", "words", {"sold": int(taken[r]), "size": r, **attributes}) for r in range(items)
    ]
    return Catalog(made), log


def names(*data):
    return {one.name for one in examine(*data).findings}


def test_clean_data_has_the_findings_that_it_deserves():
    catalog, log = world()
    assert names(catalog, log) == {"counts-in-attributes"}, "an attribute that counts interactions gives targets away"
    assert names(*world(same_time=True, shape="round")) >= {"no-order", "tied-targets", "constant-attribute"}
    assert names(*world(users=20)) >= {"few-targets"}
    assert "cold-items" in names(Catalog([*catalog.items, *(Item(f"n{i}", "New", "", {}) for i in range(20))]), log)


def test_what_cannot_be_trained_on_is_refused_and_exits_with_1(tmp_path):
    from llmrec.reading import Report
    from llmrec.sources import save_data

    short = world(length=2)
    assert {one.name for one in examine(*short).errors} == {"no-targets"}
    with pytest.raises(DataError, match="cannot be trained on: no user has 3 interactions"):
        refuse_errors(*short)
    refuse_errors(*world())
    for name, data, code in (("bad", short, 1), ("good", world(), 0)):
        save_data(tmp_path / name, *data, Report({}, {}, ()))
        result = CliRunner().invoke(app, ["data", "check", str(tmp_path / name), "--json"])
        assert result.exit_code == code and json.loads(result.output)["findings"]
    assert CliRunner().invoke(app, ["data", "check", str(tmp_path / "good"), "--strict"]).exit_code == 1
    result = CliRunner().invoke(
        app, ["train", str(tmp_path / "bad"), "--recipe", "smoke", "--out", str(tmp_path / "m")]
    )
    assert isinstance(result.exception, DataError) and "cannot be trained on" in str(result.exception)
    assert not (tmp_path / "m").exists() and not (tmp_path / "m.work").exists()


def test_the_same_item_taken_again_is_a_hint():
    catalog, log = world()
    row = log.row.copy()
    row[log.offsets[1:] - 1] = row[log.offsets[:-1]]
    again = Interactions(log.users, log.user, row, log.time, log.value)
    assert "repeated-targets" in names(catalog, again)


def test_mapping_defaults_are_the_common_names():
    assert TableMapping().items.columns == ("item_id", "title")
    assert TableMapping().interactions.columns == ("user_id", "item_id")
