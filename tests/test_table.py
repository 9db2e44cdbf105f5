"""Own tables: CSV, JSON lines, Parquet and Arrow give one catalogue; what is wrong with them is one clear line."""

import datetime
import decimal
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from llmrec.app.cli.main import app
from llmrec.data.catalog import Catalog, Item
from llmrec.data.dataset import load_data
from llmrec.data.interactions import Interactions
from llmrec.data.readers.assembly import JoinRules
from llmrec.data.readers.table import read_items, read_table
from llmrec.data.readers.table_files import read_rows
from llmrec.data.readers.table_mapping import ItemColumns, TableMapping, load_mapping
from llmrec.data.validation import refuse_invalid, validate_dataset
from llmrec.errors import DataError, UserError

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
    {"who": "2", "asin": "c", "at": "2013-01-05", "what": "view"},
    {"who": "2", "asin": "zz", "at": "2013-01-06", "what": "Buy"},
    {"who": "2", "asin": "b", "at": "2013-01-07", "what": "remove"},
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
    catalog, x, report = read_table(load_mapping(write(tmp_path, form), {}), rules=JoinRules(accept_loss=True))
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
        (
            "log",
            "who,asin,at,what\n1,a,soon,view\n",
            "log.csv, line 2: at 'soon' is not a time; write 2014-05-03T10:00:00",
        ),
        ("log", "who,asin,at,what\n1,a,5,wish\n", "what 'wish' has no weight; there are: view, buy, remove"),
        ("log", "who,asin,at,what\n,a,5,view\n", "who '' is empty"),
        ("log", "who,asin,at,what\n1,q,5,view\n", "log.csv: no usable interactions with the 3 toys"),
        ("log", "who,asin,at,what\n1,a,,view\n", "line 2: at '' is not a time"),
        ("log", "who,asin,at,what\n1,a,12:30,view\n", "line 2: at '12:30' is not a time; write 2014-05-03T10:00:00"),
        ("log", "who,asin,at,what\n1,a,0.5,view\n", "line 2: at: 0.5 is not a whole number"),
        (
            "log",
            "who,asin,at,what\n1,a,9223372036854775807,view\n",
            "at: 9223372036854775807 is out of range for a time",
        ),
        ("log", "who,asin,at,what\r1,a,5,view\r", "line 1: line ends are CR alone"),
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
        ("[items]\nid = 5\n", "items.id: 5 should be text in quotation marks"),
        ("[items]\ncategory = ['g', 3]\n", "items.category: 3 should be a column, or name=column"),
        ("[items]\ncategory = '=g'\n", "items.category: '=g' should be a column, or name=column"),
        ("[items]\ncategory = 'g='\n", "items.category: 'g=' should be a column, or name=column"),
        ("[items]\ncategory = 'a=g,a=title'\n", "items.category: attribute 'a' is named twice: g, title"),
        ("[items]\nnumber = 5\n", "items.number: 5 should be columns, or a table of name = column"),
        ("[items]\ntext = ['a', 7]\n", "items.text.1: 7 should be text in quotation marks"),
        ("[items]\ntext = 7\n", "items.text: 7 should be a list of columns"),
        ("items = 5\n", "items: 5 should be a table of keys"),
        ("[interactions]\nevent = 'e'\n[events]\nbuy = 'much'\n", "events.buy: 'much' should be a number"),
        ("[items]\nids = 'a'\n", "unknown key 'items.ids'; valid here: file, id, title"),
        ("[item]\nid = 'a'\n", "unknown key 'item'; valid here: domain, items, interactions, events"),
        ("[items\n", "is not TOML"),
        ("[items]\nnumber = ['price']\ndate = ['price']\n", "attribute 'price' is named twice"),
        ("[items]\ncategory = ['title']\n", "attribute 'title' is named twice or is a word of its own"),
        ("[events]\nbuy = 1\n", "no column says what an event is"),
        ("events = 5\n", "events: 5 should be a table, name = value"),
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
        app, [*words, "--accept-loss", "--domain", "ducks", "--category", "maker=brand", "--weight", "buy=2", "--json"]
    )
    assert result.exit_code == 0, result.exception
    catalog, x, _ = load_data(tmp_path / "out")
    assert catalog.domain == "ducks" and catalog.values("maker") == ("Haba", "Tub")
    assert "brand" not in catalog.attribute_names and 2.0 in x.value
    assert json.loads(result.output)["counts"] == {"items": 3, "users": 2, "interactions": 3}
    for wrong, words in (
        (["--source", "recbole", "--title", "t"], "column options belong to --source table and hub"),
        (["--source", "table", "--path", "x"], "--path is for other sources"),
        (["--source", "table"], "no items table"),
        (["--source", "excel", "--path", "x"], "choose from: amazon, hub, ml-100k, movielens, recbole, s3rec, table"),
        (["--source", "table", "--weight", "buy"], "--weight 'buy' should be"),
    ):
        result = CliRunner().invoke(app, ["data", "prepare", "--out", str(tmp_path / "new"), *wrong])
        assert words in str(result.exception) and not (tmp_path / "new").exists()


def own(folder, items, log, *, form="jsonl", events=None, **columns):
    """Read small tables with common names; columns are `category="tags"` or `time="at"`."""
    for name, table in (("i", items), ("l", log)):
        path = folder / f"{name}.{form}"
        if form == "parquet":
            pq.write_table(table if isinstance(table, pa.Table) else pa.Table.from_pylist(table), path)
        elif isinstance(table, str):
            path.write_text(table)
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in table))
    of_log = {name: columns.pop(name) for name in ("time", "value", "event") if name in columns}
    flags = {
        "items": {"file": str(folder / f"i.{form}"), **columns},
        "interactions": {"file": str(folder / f"l.{form}"), **of_log},
        "events": events or {},
    }
    return read_table(load_mapping(None, flags))


THING = [{"item_id": "1", "title": "A"}]
TAKEN = [{"user_id": "u", "item_id": "1"}]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ([{"id": 1, "name": "Action"}], "row 1: tags {'id': 1, 'name': 'Action'} is neither text nor a number"),
        ({"id": 1}, "tags {'id': 1} is neither"),
        (b"Action", "tags b'Action' is neither"),
    ],
)  # fmt: skip
def test_a_cell_that_is_no_text_is_refused_where_text_should_be(tmp_path, cell, words):
    for column in ("category", "text"):
        with pytest.raises(DataError, match="give words or a list of words") as caught:
            own(tmp_path, [{**THING[0], "tags": cell}], TAKEN, form="parquet", **{column: "tags"})
        assert words in str(caught.value)


def test_typed_cells_of_parquet_are_read_as_what_they_say(tmp_path):
    items = [
        {
            "item_id": decimal.Decimal(1), "title": "A", "price": decimal.Decimal("12.50"), "year": 2014.0, "ok": 1.0,
            "tags": [decimal.Decimal("1.5")], "day": datetime.date(2012, 3, 1),
        }
    ]  # fmt: skip
    columns = {"number": "price", "date": "year", "flag": "ok", "category": "tags,day", "text": "day"}
    catalog, _, _ = own(tmp_path, items, TAKEN, form="parquet", **columns)
    assert dict(catalog[0].attributes) == {
        "price": 12.5, "year": 20140101, "year_year": 2014, "ok": "ok", "tags": ("1.5",), "day": ("2012-03-01",),
    }  # fmt: skip
    assert catalog[0].text == "2012-03-01"
    text = own(tmp_path, [{**THING[0], "year": "2014.0", "ok": "0.0"}], TAKEN, date="year", flag="ok")[0]
    assert text[0].attributes["year"] == 20140101 and text[0].attributes["ok"] == "not ok"
    with pytest.raises(DataError, match=r"year 2014\.5 is not a date"):
        own(tmp_path, [{**THING[0], "year": 2014.5}], TAKEN, date="year")


@pytest.mark.parametrize(
    ("kind", "cell"), [(pa.timestamp("us"), 9 * 10**18), (pa.timestamp("s", tz="Mars/Olympus"), 5)]
)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_moment_that_python_cannot_hold_names_row_and_column(tmp_path, kind, cell, form):
    table = pa.table({"user_id": ["u", "u"], "item_id": ["1", "1"], "at": pa.array([None, cell], kind)})
    if form == "parquet":
        pq.write_table(table, tmp_path / "l.parquet")
    else:
        with pa.ipc.new_stream(str(tmp_path / "l.arrow"), table.schema) as stream:
            stream.write_table(table)
    with pytest.raises(
        DataError, match=rf"l\.{form}, row 2: at of type timestamp.* cannot be read.*whole number"
    ) as caught:
        list(read_rows(tmp_path / f"l.{form}", ["at"]))
    assert "\n" not in str(caught.value)


def test_an_event_name_that_cannot_be_written_does_no_harm(tmp_path):
    from llmrec.data.dataset import save_data

    data = own(tmp_path, THING, '{"user_id": "u", "item_id": "1", "what": "buy\\ud83d"}\n', event="what")
    assert "events: buy 1" in data[2].notes
    save_data(tmp_path / "out", *data)
    with pytest.raises(DataError, match=r"i\.jsonl, line 1: title .* holds nothing that can be shown"):
        own(tmp_path, '{"item_id": "1", "title": "\\ud83d"}\n', TAKEN)


def test_what_makes_interactions_unusable_is_said(tmp_path):
    log = [{"user_id": "u", "item_id": "x1", "what": "view"}, {"user_id": "u", "item_id": "1", "what": "remove"}]
    with pytest.raises(DataError) as caught:
        own(tmp_path, THING, log, event="what", events={"view": 1, "remove": 0})
    assert str(caught.value).endswith(
        "l.jsonl: no usable interactions with the 1 items; left out: 1 of unknown item, 1 of event of weight 0; "
        "e.g. item 'x1'; the items' ids look like '1'"
    )


def test_times_as_people_write_them(tmp_path):
    written = ["2014/05/03", "2014-05", "May 3, 2014", "2014-05-03T00:00:01.5Z", "1588888888.75"]
    log = [{"user_id": f"u{n}", "item_id": "1", "at": one} for n, one in enumerate(written)]
    _, x, report = own(tmp_path, THING, log, time="at")
    day = int(datetime.datetime(2014, 5, 3, tzinfo=datetime.UTC).timestamp())
    assert x.time.tolist() == [day, day - 2 * 86400, day, day + 1, 1588888888]
    assert "2 times have a fraction, which is cut off" in report.notes
    log = [{"user_id": "u", "item_id": "1", "at": one} for one in (7, "20140503")]
    assert own(tmp_path, THING, log, time="at")[1].time.tolist() == [7, 20140503]


def test_an_empty_value_is_1_in_every_form(tmp_path):
    csv = "user_id,item_id,stars\nu,1,\nv,1,4\n"
    typed = pa.table({"user_id": ["u", "v"], "item_id": ["1", "1"], "stars": [float("nan"), 4.0]})
    lines = [{"user_id": "u", "item_id": "1", "stars": None}, {"user_id": "v", "item_id": "1", "stars": 4}]
    tables = (("csv", "item_id,title\n1,A\n", csv), ("jsonl", THING, lines), ("parquet", THING, typed))
    for form, items, log in tables:
        _, x, report = own(tmp_path, items, log, form=form, value="stars")
        assert x.value.tolist() == [1, 4], form
        assert any("only weight 0 changes" in note for note in report.notes)
    listed = [{"user_id": "u", "item_id": ["1", "1"], "stars": None}, {"user_id": "v", "item_id": ["1"], "stars": [4]}]
    assert own(tmp_path, THING, listed, value="stars")[1].value.tolist() == [1, 1, 4]


def test_a_weight_as_a_flag_wins_whatever_its_capitals(tmp_path):
    mapping = write(tmp_path, "csv")
    assert load_mapping(mapping, {"events": {"Buy": 0.0}}).events == {"view": 1, "buy": 0, "remove": 0}


def test_weights_say_what_they_are_for(tmp_path):
    log = [{"user_id": "u", "item_id": "1", "what": "buy", "stars": 3e38}]
    assert not any("weight" in one for one in own(tmp_path, THING, log, event="what", events={"buy": 1})[2].notes)
    assert any(
        "only weight 0 changes" in one for one in own(tmp_path, THING, log, event="what", events={"buy": 3})[2].notes
    )
    with pytest.raises(DataError, match=r"l\.jsonl, line 1: stars 3e\+38 times the weight 100 is out of range"):
        own(tmp_path, THING, log, event="what", value="stars", events={"buy": 100})


def test_what_is_cut_is_counted(tmp_path):
    items = [{"item_id": "1", "title": "t" * 301, "about": "w " * 2001, "tags": ["x" * 101, "y" * 100]},
             {"item_id": "2", "title": "t" * 300, "about": "w" * 4000, "tags": []}]  # fmt: skip
    catalog, _, report = own(tmp_path, items, TAKEN, text="about", category="tags")
    assert "cut, in characters: 1 titles to 300, 1 texts to 4,000, 1 words of a category to 100" in report.notes
    assert len(catalog[0].title) == 300


def test_json_that_is_one_array_says_what_would_be_right(tmp_path):
    for text in ('[{"item_id": "1", "title": "A"}]', '[\n{"item_id": "1"}\n]', "[" + "1, " * 400_000 + "1]"):
        with pytest.raises(DataError, match=r"i\.jsonl, line 1: .*write one object a line") as caught:
            own(tmp_path, text, TAKEN)
        assert "JSON array" in str(caught.value)


def test_names_in_capitals_and_packed_tables(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "IT.CSV").write_text("id,title\n1,A\n")
    (tmp_path / "d" / "JT.CSV.GZ").write_bytes(gzip.compress(b"id,title\n2,B\n"))
    assert [item.id for item in read_items(ItemColumns(file=str(tmp_path / "d"), id="id"))] == ["1", "2"]
    (tmp_path / "x.parquet.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.parquet\.gz: Parquet and Arrow files may not be packed as \.gz"):
        list(read_rows(tmp_path / "x.parquet.gz", ["id"]))


def test_signs_in_a_title_are_not_tags(tmp_path):
    items = [
        {"item_id": "1", "title": "Love <3 you > me"},
        {"item_id": "2", "title": "<b>Bold</b> &lt;br/&gt;words<!-- x -->"},
    ]
    assert [item.title for item in own(tmp_path, items, TAKEN)[0].items] == ["Love <3 you > me", "Bold words"]


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
    return {one.name for one in validate_dataset(*data).findings}


def test_clean_data_has_the_findings_that_it_deserves():
    catalog, log = world()
    assert names(catalog, log) == {"counts-in-attributes"}, "an attribute that counts interactions gives targets away"
    assert names(*world(same_time=True, shape="round")) >= {"no-order", "tied-targets", "constant-attribute"}
    assert names(*world(users=20)) >= {"few-targets"}
    assert "cold-items" in names(Catalog([*catalog.items, *(Item(f"n{i}", "New", "", {}) for i in range(20))]), log)


def test_what_cannot_be_trained_on_is_refused_and_exits_with_1(tmp_path):
    from llmrec.data.dataset import save_data
    from llmrec.data.readers.common import Report

    short = world(length=2)
    assert {one.name for one in validate_dataset(*short).errors} == {"no-targets"}
    with pytest.raises(DataError, match="cannot be trained on: no user has 3 interactions"):
        refuse_invalid(*short)
    refuse_invalid(*world())
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


@pytest.mark.parametrize("entity", ["&#" + "9" * 5000 + ";", "&#x" + "f" * 6000, "&#99999999;"])
def test_an_entity_that_is_no_character_is_none(entity: str) -> None:
    from llmrec.data.readers.markup import plain_text

    assert plain_text(f"Soap {entity} bar &amp; &#233;") == "Soap \ufffd bar & é"
