"""Sequences, Amazon reviews and MovieLens files: the right data by the stated rules, one clear error from bad files."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmrec.data.dataset import dataset_statistics, load_data, read_source, save_data
from llmrec.data.interactions import leave_one_out
from llmrec.data.readers.assembly import JoinRules
from llmrec.errors import DataError

SEQUENCES = "1 10 20 30\n2 20 10\n\n3 30 30 40 50\n"
ITEMS = [
    {"id": 10, "title": "Soap &amp; <b>Brush</b>", "categories": [["Beauty", "Bath", "Soaps"], ["Beauty", "Sets"]],
     "brand": "Pond&#39;s"},
    {"id": "20", "title": None, "text_id": "short words", "categories": [["Beauty", "Hair"]], "brand": "Unknown"},
    {"id": 30, "title": "", "categories": [["Beauty", "Hair", "Irons"]], "brand": "Conair"},
    {"id": 40},
    {"id": 60, "title": "Never bought"},
]  # fmt: skip


def jsonl(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def sequences(folder: Path, text: str = SEQUENCES, items: str | None = None, end: str = "") -> Path:
    write(folder / f"x.items.jsonl{end}", jsonl(*ITEMS) if items is None else items)
    return write(folder / f"x.sequences.txt{end}", text)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_sequences_with_items_are_read(tmp_path, end):
    catalog, x, report = read_source("s3rec", sequences(tmp_path, end=end))
    titles = ["Soap & Brush", "short words", "Conair Irons (30)", "Item 40", "Never bought", "Item 50"]
    assert [item.title for item in catalog.items] == titles
    assert dict(catalog[0].attributes) == {"brand": "Pond's", "category": ("Bath", "Soaps", "Sets")}
    assert dict(catalog[1].attributes) == {"category": ("Hair",)}
    assert x.users == ("1", "2", "3") and [x.rows_of(u).tolist() for u in range(3)] == [[0, 1, 2], [1, 0], [2, 2, 3, 5]]
    split = leave_one_out(x)
    assert split.test.tolist() == [2, -1, 5] and split.valid.tolist() == [1, -1, 3]
    assert report.counts == {"items": 6, "users": 3, "interactions": 9} and report.dropped == {}
    notes = " | ".join(report.notes)
    for words in ("1 ids of the sequences have no text (such as 50)", "3 items have no title", "1 interactions repeat",
                  "1 users with fewer than 3 interactions", "no times"):  # fmt: skip
        assert words in notes
    assert read_source("s3rec", tmp_path)[1].fingerprint == x.fingerprint


def test_prepared_sequences_come_back_equal(tmp_path):
    catalog, x, report = read_source("s3rec", sequences(tmp_path / "raw"))
    save_data(tmp_path / "data", catalog, x, report)
    again, y, same = load_data(tmp_path / "data")
    assert (again.fingerprint, y.fingerprint, same) == (catalog.fingerprint, x.fingerprint, report)
    assert dataset_statistics(again, y)["cold_items"] == 1


def test_users_on_several_lines(tmp_path):
    _, x, report = read_source("s3rec", sequences(tmp_path, "1 10 20 30\n2 20 10\n1 10 20 30\n2 30\n"))
    assert x.rows_of(0).tolist() == [0, 1, 2] and x.rows_of(1).tolist() == [1, 0, 2]
    assert report.dropped == {"repeated line of a user": 3}
    assert any(note.startswith("1 lines belong to users of an earlier line") for note in report.notes)


def test_sequences_with_a_table_of_items_count_from_zero(tmp_path):
    write(tmp_path / "g.item.tsv.gz", "item_id:token\ttitle:token_seq\n0\tGame One\n1\tGame Two\n")
    catalog, x, _ = read_source("s3rec", write(tmp_path / "g.sequences.txt.gz", "0 0 1 0\n7 1\n"))
    assert [item.title for item in catalog.items] == ["Game One", "Game Two"]
    assert x.users == ("0", "7") and x.rows_of(0).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "items", "message"),
    [
        ("1\n", None, r"x\.sequences\.txt, line 1: user '1' has no items"),
        ("1 10\0\n", None, r"line 1: holds a NUL byte"),
        ("1 10\n2 1\u202e0\n", None, r"line 2: id .* does not print"),
        ("1 10\n", "{not json\n", r"x\.items\.jsonl, line 1: '\{not json' is not a JSON object"),
        ("1 10\n", "[" * 50_000 + "\n", r"line 1: '\[+' is not a JSON object"),
        (
            "1 10\n",
            jsonl({"id": 10, "title": "x"}) + '{"id": 11, "description": ' + "[" * 900 + "]" * 900 + "}{\n",
            r"line 2: .* is not a JSON object",
        ),
        ("1 10\n", "{'id': 1}\n", r"line 1: .* is not a JSON object"),
        ("1 10\n", "\n", r"x\.items\.jsonl: no items"),
        ("1 10\n", jsonl({"id": True}), r"line 1: id True should be a number or a word"),
        ("1 10\n", jsonl({"title": "x"}), r"line 1: id None"),
        ("1 10\n", jsonl({"id": 1}, {"id": "1"}), r"item id '1' occurs twice"),
        ("", None, r"no usable interactions"),
    ],
)
def test_bad_sequences_name_file_and_line(tmp_path, text, items, message):
    with pytest.raises(DataError, match=message) as error:
        read_source("s3rec", sequences(tmp_path, text, items))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_nested_lists_are_no_text(tmp_path):
    deep = '{"id": 10, "title": ' + "[" * 900 + '"x"' + "]" * 900 + ', "categories": ' + "[" * 900 + "]" * 900 + "}\n"
    catalog, _, _ = read_source("s3rec", sequences(tmp_path, "1 10\n", deep))
    assert catalog[0].title == "Item 10"


def test_sequences_in_the_wrong_place(tmp_path):
    with pytest.raises(DataError, match=r"one X\.sequences\.txt, or name the file itself; found: none"):
        read_source("s3rec", tmp_path)
    alone = write(tmp_path / "y.sequences.txt", SEQUENCES)
    with pytest.raises(DataError, match=r"no items beside it; y\.items\.jsonl or y\.item\.tsv"):
        read_source("s3rec", alone)
    sequences(tmp_path)
    with pytest.raises(DataError, match=r"found: x\.sequences\.txt, y\.sequences\.txt"):
        read_source("s3rec", tmp_path)
    with pytest.raises(DataError, match=r"is not a file X\.sequences\.txt"):
        read_source("s3rec", tmp_path / "x.items.jsonl")


def test_damaged_packing_is_named(tmp_path):
    path = sequences(tmp_path, SEQUENCES * 2000, end=".gz")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match="damaged gzip file"):
        read_source("s3rec", path)
    path.write_bytes(b"1 2 3\n")
    with pytest.raises(DataError, match="damaged gzip file"):
        read_source("s3rec", path)


META_2014 = (
    "{'asin': 'A', 'title': \"Kid's &quot;Drum&quot;\", 'price': 12.5, 'brand': 'Hape', "
    "'categories': [['Toys', 'Music']], 'description': 'Loud.'}\n{'asin': 'Z', 'title': 'Never reviewed'}\n"
    "{'asin': 'A', 'title': 'Again'}\n"
)
FORMS = {
    "2014": (
        [{"reviewerID": "u", "asin": "A", "overall": 5.0, "unixReviewTime": 200},
         {"reviewerID": "u", "asin": "B", "overall": 1.0, "unixReviewTime": 100}],
        META_2014, "reviews_Toys_5.json.gz", "meta_Toys.json.gz",
    ),
    "2018": (
        [{"reviewerID": "u", "asin": "A", "overall": 5.0, "unixReviewTime": 200, "verified": True},
         {"reviewerID": "u", "asin": "B", "overall": 1.0, "unixReviewTime": 100}],
        jsonl({"asin": "A", "title": "Kid's \"Drum\"", "price": "$12.50", "brand": "Hape",
               "category": ["Toys", "Music"], "description": ["<p>Loud.</p>"]},
              {"asin": "Z", "title": "Never reviewed"}, {"asin": "A", "title": "Again"}),
        "Toys_5.json", "meta_Toys.json",
    ),
    "2023": (
        [{"user_id": "u", "asin": "A1", "parent_asin": "A", "rating": 5.0, "timestamp": 200_000_000_000_000},
         {"user_id": "u", "asin": "B", "parent_asin": "B", "rating": 1.0, "timestamp": 100_000_000_000_000}],
        jsonl({"parent_asin": "A", "title": "Kid's \"Drum\"", "price": 12.5, "store": "Hape",
               "categories": ["Toys", "Music"], "description": [], "features": ["Loud."]},
              {"parent_asin": "Z", "title": "Never reviewed"}, {"parent_asin": "A", "title": "Again"}),
        "Toys.jsonl", "meta_Toys.jsonl",
    ),
}  # fmt: skip


@pytest.mark.parametrize("year", FORMS)
def test_amazon_reviews_of_three_years_are_the_same_data(tmp_path, year):
    reviews, meta, review_name, meta_name = FORMS[year]
    write(tmp_path / meta_name, meta)
    path = write(tmp_path / review_name, jsonl(*reviews, reviews[0]))
    catalog, x, report = read_source("amazon", tmp_path)
    assert [item.title for item in catalog.items] == ['Kid\'s "Drum"', "Item B"]
    assert dict(catalog[0].attributes) == {"brand": "Hape", "category": ("Music",), "price": 12.5}
    assert catalog[0].text == "Loud." and x.rows_of(0).tolist() == [1, 0] and x.value.tolist() == [1, 5]
    assert report.dropped == {"product without a review": 1, "repeated product": 1, "repeated user, item and time": 1}
    notes = " | ".join(report.notes)
    assert "1 reviewed products have no metadata" in notes and "1 users with fewer than 3" in notes
    assert "stood before an earlier one" in notes
    assert read_source("amazon", path)[1].fingerprint == x.fingerprint


@pytest.mark.parametrize(
    ("review", "meta", "message"),
    [
        ({"reviewerID": "u", "asin": "A", "overall": 5}, "", r"x\.json, line 1, unixReviewTime or timestamp: None"),
        ({"reviewerID": "u", "asin": "A", "overall": "5", "unixReviewTime": 1}, "", r"overall or rating: '5'"),
        ({"reviewerID": "u", "asin": "A", "overall": float("nan"), "unixReviewTime": 1}, "", r"rating: nan"),
        ({"reviewerID": 7, "asin": "A", "overall": 5, "unixReviewTime": 1}, "", r"reviewerID or user_id: 7"),
        ({"reviewerID": "u", "asin": "A", "overall": 5, "unixReviewTime": 10**30}, "", r"timestamp: 1000"),
        ({"reviewerID": "u", "asin": "A", "overall": 5, "unixReviewTime": 1}, "__import__('os').abort()\n",
         r"meta_x\.json, line 1: .* is not a JSON object"),
        ({"reviewerID": "u", "asin": "A", "overall": 5, "unixReviewTime": 1}, "(" * 9000 + "\n", r"is not a JSON"),
    ],
)  # fmt: skip
def test_bad_reviews_name_file_and_line(tmp_path, review, meta, message):
    write(tmp_path / "meta_x.json", meta)
    write(tmp_path / "x.json", jsonl(review))
    with pytest.raises(DataError, match=message) as error:
        read_source("amazon", tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_amazon_in_the_wrong_place(tmp_path):
    with pytest.raises(DataError, match=r"one file of reviews X\.json .*found: none"):
        read_source("amazon", tmp_path)
    write(tmp_path / "a.json", "")
    with pytest.raises(DataError, match=r"one file of products meta_X\.json"):
        read_source("amazon", tmp_path)
    write(tmp_path / "meta_a.json", "")
    with pytest.raises(DataError, match=r"a\.json: no reviews"):
        read_source("amazon", tmp_path)
    write(tmp_path / "b.json", "")
    with pytest.raises(DataError, match=r"found: a\.json, b\.json"):
        read_source("amazon", tmp_path)


CSV = ("userId,movieId,rating,timestamp\n1,10,4.0,5\n1,20,3.5,4\n1,30,1,6\n",
       'movieId,title,genres\n10,"Usual Suspects, The (1995)",Crime|Thriller\n20,Misérables (1998),Drama\n'
       "30,Untold,(no genres listed)\n")  # fmt: skip
DAT = ("1::10::4::5\n1::20::3.5::4\n1::30::1::6\n",
       "10::Usual Suspects, The (1995)::Crime|Thriller\n20::Misérables (1998)::Drama\n30::Untold::\n")  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "files", "encoding"), [(".csv.gz", CSV, "utf-8"), (".dat", DAT, "latin-1"), (".dat", DAT, "utf-8")]
)
def test_movielens_forms_are_the_same_films(tmp_path, kind, files, encoding):
    for stem, text in zip(("ratings", "movies"), files, strict=True):
        write(tmp_path / f"{stem}{kind}", text.encode(encoding))
    catalog, x, report = read_source("movielens", tmp_path)
    assert [catalog.label(row) for row in range(3)] == ["The Usual Suspects (1995)", "Misérables (1998)", "Untold"]
    assert dict(catalog[0].attributes) == {"genre": ("Crime", "Thriller"), "year": 1995} and catalog.domain == "films"
    assert dict(catalog[2].attributes) == {} and x.rows_of(0).tolist() == [1, 0, 2] and x.value.tolist() == [3.5, 4, 1]
    assert report.notes == ("1 interactions stood before an earlier one of the same user: sorted by time",)


@pytest.mark.parametrize(
    ("ratings", "movies", "message"),
    [
        ("user,movie\n", CSV[1], r"ratings\.csv, line 1: the header should be userId,movieId,rating,timestamp"),
        (CSV[0] + "1,10,4\n", CSV[1], r"ratings\.csv, line 5: 3 fields where"),
        (CSV[0] + "1,10,x,5\n", CSV[1], r"line 5, rating: 'x' is not a number"),
        (CSV[0] + "1,10,4,\n", CSV[1], r"line 5, timestamp: '' is not a number"),
        (CSV[0], CSV[1] + '40,"open,x\n', r"movies\.csv, line 5: unexpected end of data"),
        (CSV[0], CSV[1] + ",x,y\n", r"line 5: id '' is empty"),
        (CSV[0], CSV[1] + "10,Again,y\n", r"item id '10' occurs twice"),
    ],
)
def test_bad_movielens_files_name_file_and_line(tmp_path, ratings, movies, message):
    write(tmp_path / "ratings.csv", ratings)
    write(tmp_path / "movies.csv", movies)
    with pytest.raises(DataError, match=message) as error:
        read_source("movielens", tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="should hold ratings and movies"):
        read_source("movielens", tmp_path / "empty")


NAMES = {
    "s3rec": ("x.sequences.txt", "x.items.jsonl", SEQUENCES, jsonl(*ITEMS)),
    "amazon": ("x.json", "meta_x.json", jsonl(*FORMS["2014"][0]), META_2014),
    "movielens": ("ratings.dat", "movies.dat", *DAT),
}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(sorted(NAMES)))
def test_damaged_files_give_data_or_a_data_error(tmp_path, data, source):
    log, items, *contents = NAMES[source]
    files = [bytearray(content.encode()) for content in contents]
    for _ in range(data.draw(st.integers(1, 3))):
        content = files[data.draw(st.integers(0, 1))]
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 4))] = data.draw(
            st.binary(max_size=4) | st.sampled_from([b"{}", b"[]", b'"', b"::", b"-1", b"1e999", b"\\ud800", b"null"])
        )
    folder = tmp_path / source
    write(folder / log, bytes(files[0]))
    write(folder / items, bytes(files[1]))
    try:
        catalog, x, _ = read_source(source, folder)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(catalog) and len(x) and x.row.max() < len(catalog)


def test_a_long_log_is_joined_as_a_plain_program_would(tmp_path):
    rng = np.random.default_rng(0)
    users, films, times = rng.integers(0, 30, 3000), rng.integers(0, 12, 3000), rng.integers(0, 40, 3000)
    log = "".join(f"{u}::{f}::3::{t}\n" for u, f, t in zip(users, films, times, strict=True))
    write(tmp_path / "ratings.dat", log)
    write(tmp_path / "movies.dat", "".join(f"{f}::Film {f}::\n" for f in range(10)))  # two films are not there
    _, x, report = read_source("movielens", tmp_path, JoinRules(accept_loss=True))
    kept, seen = {}, set()
    for u, f, t in zip(users, films, times, strict=True):
        if f < 10 and (u, f, t) not in seen:
            seen.add((u, f, t))
            kept.setdefault(str(u), []).append((t, f))
    for number, user in enumerate(x.users):
        assert x.rows_of(number).tolist() == [f for _, f in sorted(kept[user], key=lambda pair: pair[0])]
    assert report.dropped["unknown item"] == int((films >= 10).sum())
    assert report.dropped["repeated user, item and time"] == int((films < 10).sum()) - len(seen)


REAL = os.environ.get("LLMREC_SHOP_DATA", "")


@pytest.mark.skipif(not REAL, reason="LLMREC_SHOP_DATA names no directory with published sequence files")
def test_published_sequence_files_have_their_published_sizes():
    found = {path.name: read_source("s3rec", path)[2].counts for path in sorted(Path(REAL).rglob("*.sequences.txt.gz"))}
    sizes = {"beauty": (12101, 22363, 198502), "toys": (11924, 19412, 167597), "games": (16859, 50546, 440264)}
    for name, (items, users, interactions) in sizes.items():
        counts = found.get(f"{name}.sequences.txt.gz")
        assert counts in (None, {"items": items, "users": users, "interactions": interactions})
    assert found
