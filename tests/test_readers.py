"""Readers: the right catalogue from good files, one clear error from bad ones, whatever the bytes."""

import gzip
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmrec.data.dataset import dataset_statistics, load_data, read_source, save_data
from llmrec.data.interactions import Interactions
from llmrec.data.readers import common
from llmrec.data.readers.assembly import JoinRules
from llmrec.data.readers.movielens import convert_100k
from llmrec.errors import ArtifactError, DataError
from llmrec.storage.artifacts import read_manifest, write_artifact

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
GOOD_INTER = INTER + "7\t1\t5\t100\n7\t2\t3.5\t101.0\n7\t2\t4\t150\n7\t1\t5\t100\n8\t3\t1\t100\n8\t3\t1\t100\n"
GOOD_ITEM = (
    ITEM + "1\tToy Story\t1995\tAnimation Children's Comedy\n2\tUsual Suspects, The\t1995\tCrime Thriller\n"
    "3\tunkonwn\tunkonwn\tunknown\n4\tLand Before Time III (1995)\tV\tAnimation\n"
)


def pair(folder: Path, inter: str | bytes = GOOD_INTER, item: str | bytes = GOOD_ITEM) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in [("x.inter", inter), ("x.item", item)]:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_movielens_fields_are_mapped(tmp_path):
    catalog, x, report = read_source(
        "ml-100k", pair(tmp_path, GOOD_INTER + "8\t99\t1\t100\n"), JoinRules(accept_loss=True)
    )
    assert catalog.domain == "films"
    assert [catalog.label(row) for row in range(4)] == [
        "Toy Story (1995)",
        "The Usual Suspects (1995)",
        "Unknown film",
        "Land Before Time III (1995)",
    ]
    assert dict(catalog[0].attributes) == {"genre": ("Animation", "Children's", "Comedy"), "year": 1995}
    assert dict(catalog[2].attributes) == {}
    assert x.users == ("7", "8") and x.rows_of(0).tolist() == [0, 1, 1] and x.value.tolist() == [5, 3.5, 4, 1]
    assert report.counts == {"items": 4, "users": 2, "interactions": 4}
    assert report.dropped == {"unknown item": 1, "repeated user, item and time": 2}


def test_any_recbole_pair_is_read(tmp_path):
    item = (
        "item_id:token\ttitle:token_seq\tdescription:token_seq\tyear:float\tprice:float\tbrand:token\t"
        "categories:token_seq\timage_url:token\tvector:float_seq\n"
        "a\tSoft Soap\tCleans.\t2001.0\t9.5\tNivea\t'Skin Care', 'Soaps'\thttp://x\t0.1 0.2\n"
        "b\t\t\t\t\t\t\t\t\n"
    )
    inter = "\ufeffuser_id:token\titem_id:token\r\nu\ta\r\n\r\nu\tb\r\nu\ta\r\n"
    catalog, x, report = read_source("recbole", pair(tmp_path, inter, item))
    expected = {"brand": "Nivea", "categories": ("Skin Care", "Soaps"), "price": 9.5, "year": 2001}
    assert dict(catalog[0].attributes) == expected
    assert catalog.describe(0) == "Soft Soap (2001). Nivea. Skin Care, Soaps. price 9.5. Cleans."
    assert catalog[1].title == "b" and dict(catalog[1].attributes) == {}
    assert x.rows_of(0).tolist() == [0, 1, 0] and x.value.tolist() == [1, 1, 1]
    titles = ("titles from title", "1 items have no title: called by their id")
    assert report.notes == (*titles, "no time column: the order of the rows stands in")
    assert read_source("recbole", tmp_path / "x.inter")[0].fingerprint == catalog.fingerprint


@pytest.mark.parametrize(
    ("inter", "item", "message"),
    [
        (GOOD_INTER, GOOD_ITEM + "5\tMis\xe9rables\t1995\tDrama\n", None),
        (
            GOOD_INTER,
            (GOOD_ITEM + "5\tMisérables\t1995\tDrama\n").encode("latin-1"),
            r"x\.item, line 6: not UTF-8 .*0xe9.*iconv",
        ),
        (GOOD_INTER + "7\t1\t5\n", GOOD_ITEM, r"x\.inter, line 8: 3 fields where the header has 4"),
        (GOOD_INTER + "7\t1\t5\t1\t2\n", GOOD_ITEM, r"line 8: 5 fields"),
        (GOOD_INTER + "7\t1\tnan\t1\n", GOOD_ITEM, r"line 8, rating: 'nan' is not a number"),
        (GOOD_INTER + "7\t1\t1_0\t1\n", GOOD_ITEM, r"line 8, rating: '1_0'"),
        (GOOD_INTER + "7\t1\t1\tinf\n", GOOD_ITEM, r"line 8, timestamp: 'inf'"),
        (GOOD_INTER + "7\t1\t1\t1e30\n", GOOD_ITEM, r"line 8, timestamp: 1e30 is out of range"),
        (GOOD_INTER + "7\t1\t1e60\t1\n", GOOD_ITEM, r"line 8, rating: 1e60 is out of range"),
        (GOOD_INTER + "7\t1\t1\t" + "9" * 5000 + "\n", GOOD_ITEM, r"line 8, timestamp: '9+' is not a number"),
        (GOOD_INTER + "\t1\t1\t1\n", GOOD_ITEM, r"line 8: user_id '' is empty"),
        (GOOD_INTER + "7\t1\0\t1\t1\n", GOOD_ITEM, r"line 8: holds a NUL byte"),
        (GOOD_INTER, GOOD_ITEM + "1\tAgain\t1995\tDrama\n", r"line 6: item_id '1' was there before .*line 2"),
        (GOOD_INTER, ITEM, r"x\.item, line 2: no items"),
        (INTER, GOOD_ITEM, r"no usable interactions"),
        ("", GOOD_ITEM, r"x\.inter, line 1: column ''"),
        ("user_id:token\titem_id:words\n", GOOD_ITEM, r"line 1: column 'item_id:words' should be name:type"),
        ("user_id:token\tuser_id:token\n", GOOD_ITEM, r"named once"),
        ("user_id:token\trating:float\n", GOOD_ITEM, r"line 1: no column 'item_id'; found: user_id, rating"),
        (GOOD_INTER, "item_id:token\n1\n", r"line 1: no column 'movie_title'"),
    ],
)
def test_bad_files_name_file_and_line(tmp_path, inter, item, message):
    folder = pair(tmp_path / "d", inter, item)
    if message is None:
        read_source("ml-100k", folder)
        return
    with pytest.raises(DataError, match=message) as error:
        read_source("ml-100k", folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_lines_are_bounded(tmp_path):
    folder = pair(tmp_path, INTER + "7\t1\t5\t1" + " " * common.LINE_LIMIT + "\n")
    with pytest.raises(DataError, match="line 2: longer than"):
        read_source("ml-100k", folder)


def test_wrong_places_and_names(tmp_path):
    with pytest.raises(DataError, match="'netflix' is unknown; choose from: amazon, ml-100k, movielens, "):
        read_source("netflix", tmp_path)
    with pytest.raises(DataError, match=r"one \.inter file; found: none"):
        read_source("recbole", tmp_path)
    pair(tmp_path)
    (tmp_path / "y.inter").write_text(GOOD_INTER)
    with pytest.raises(DataError, match=r"found: x\.inter, y\.inter"):
        read_source("recbole", tmp_path)
    with pytest.raises(DataError, match=r"y\.item does not exist"):
        read_source("recbole", tmp_path / "y.inter")


def test_a_packed_pair_is_read(tmp_path):
    plain = read_source("recbole", pair(tmp_path / "plain"))
    for packed in (("x.inter", "x.item"), ("x.inter",)):
        folder = pair(tmp_path / str(len(packed)))
        for name in packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            (folder / name).unlink()
        named = [folder, folder / "x.inter.gz", next(folder.glob("x.item*"))]
        for found in (read_source("recbole", path) for path in named):
            assert found[0].fingerprint == plain[0].fingerprint and found[1].fingerprint == plain[1].fingerprint
    (folder / "x.item").unlink()
    with pytest.raises(DataError, match=r"x\.item does not exist; .*\.gz"):
        read_source("recbole", folder)


CELL = st.text(st.characters(exclude_characters="\t\n\r"), max_size=8) | st.sampled_from(
    ["1", "2", "nan", "1e999", "-0"]
)
TABLE = st.lists(st.lists(CELL, min_size=2, max_size=5).map("\t".join), max_size=6).map("\n".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=80) | TABLE.map(lambda t: (INTER + t).encode("utf-8", "surrogatepass")),
    st.binary(max_size=80)
    | TABLE.map(lambda t: (ITEM + t).encode("utf-8", "surrogatepass"))
    | st.just(GOOD_ITEM.encode()),
    st.sampled_from(["ml-100k", "recbole"]),
)
@example(b"\xff\xfe" + GOOD_INTER.encode("utf-16-le"), GOOD_ITEM.encode(), "recbole")
@example(b"user_id:token\titem_id:token\nu\t1\n", b"item_id:token\n1\n", "recbole")
@example(GOOD_INTER.encode(), b"item_id:token\ttitle:float_seq\tyear:token_seq\n1\t\xe2\x80\xae\t\n", "recbole")
def test_hostile_bytes_give_data_or_a_data_error(tmp_path, inter, item, source):
    try:
        catalog, x, _ = read_source(source, pair(tmp_path / "d", inter, item))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(catalog) and len(x) and x.row.max() < len(catalog)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_give_data_or_a_data_error(tmp_path, data):
    files = {"x.inter": bytearray(GOOD_INTER.encode()), "x.item": bytearray(GOOD_ITEM.encode())}
    for _ in range(data.draw(st.integers(1, 3))):
        content = files[data.draw(st.sampled_from(sorted(files)))]
        start = data.draw(st.integers(0, len(content)))
        stop = min(len(content), start + data.draw(st.integers(0, 4)))
        content[start:stop] = data.draw(st.binary(max_size=4))
    try:
        read_source("ml-100k", pair(tmp_path / "d", bytes(files["x.inter"]), bytes(files["x.item"])))
    except DataError as error:
        assert "\n" not in str(error)


def test_prepared_data_comes_back_equal(tmp_path):
    catalog, x, report = read_source("ml-100k", pair(tmp_path / "raw"))
    save_data(tmp_path / "data", catalog, x, report)
    again, y, same = load_data(tmp_path / "data")
    assert again.items == catalog.items and again.fingerprint == catalog.fingerprint
    assert y.fingerprint == x.fingerprint and same == report
    assert isinstance(again[0].attributes["year"], int)
    assert {*read_manifest(tmp_path / "data", "data").files} == {"catalog.parquet", "interactions.parquet"}


def test_prepared_data_of_another_catalogue_is_refused(tmp_path):
    catalog, x, report = read_source("ml-100k", pair(tmp_path / "raw"))
    save_data(tmp_path / "one", catalog, x, report)
    other = read_source("ml-100k", pair(tmp_path / "raw", item=GOOD_ITEM.replace("Toy", "Boy")))[0]
    save_data(tmp_path / "two", other, x, report)
    manifest = read_manifest(tmp_path / "one", "data")
    with write_artifact(tmp_path / "mixed", "data", manifest.fingerprints, manifest.meta) as directory:
        (directory / "catalog.parquet").write_bytes((tmp_path / "two" / "catalog.parquet").read_bytes())
        (directory / "interactions.parquet").write_bytes((tmp_path / "one" / "interactions.parquet").read_bytes())
    with pytest.raises(ArtifactError) as error:
        load_data(tmp_path / "mixed")
    assert catalog.fingerprint[:12] in str(error.value) and other.fingerprint[:12] in str(error.value)
    with write_artifact(tmp_path / "junk", "data", manifest.fingerprints, manifest.meta) as directory:
        (directory / "catalog.parquet").write_bytes(b"PAR1 no")
        (directory / "interactions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ArtifactError, match="not a readable data artifact"):
        load_data(tmp_path / "junk")


def test_check_counts_what_matters(tmp_path):
    catalog, x, _ = read_source("ml-100k", pair(tmp_path))
    found = dataset_statistics(catalog, x)
    assert (found["items"], found["users"], found["interactions"]) == (4, 2, 4)
    assert found["density"] == 3 / 8 and found["repeated_pairs"] == 1 and found["cold_items"] == 1
    assert found["history_length"]["max"] == 3 and found["users_under_3"] == 1
    assert found["ties_in_time"] == 0 and found["time_range"] == [100, 150] and found["items_without_text"] == 4
    assert found["attributes"] == {"genre": 5, "year": 1}
    ties = Interactions.build(["a", "a", "b"], [0, 1, 0], [5, 5, 5], [1, 1, 1])
    assert dataset_statistics(catalog, ties)["ties_in_time"] == 1
    empty = Interactions.build([], [], [], [])
    assert dataset_statistics(catalog, empty)["time_range"] == []


def archive(data: str, films: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr("ml-100k/u.data", data)
        bundle.writestr("ml-100k/u.item", films.encode("latin-1"))
    return buffer.getvalue()


def test_the_published_archive_amounts_to_the_same_data(tmp_path):
    flags = {
        "Animation": 3,
        "Children's": 4,
        "Comedy": 5,
        "Crime": 6,
        "Thriller": 16,
        "Drama": 8,
        "unknown": 0,
    }

    def film(id: int, title: str, *genres: str) -> str:
        marks = ["0"] * 19
        for genre in genres:
            marks[flags[genre]] = "1"
        return "|".join([str(id), title, "01-Jan-1995", "", "http://x", *marks])

    films = [
        film(1, "Toy Story (1995)", "Animation", "Children's", "Comedy"),
        film(2, "Usual Suspects, The (1995)", "Crime", "Thriller"),
        film(3, "unknown", "unknown"),
        film(4, "Land Before Time III (1995) (V)", "Animation"),
        film(5, "Misérables, Les (1995)", "Drama"),
    ]
    site = tmp_path / "site"
    site.mkdir()
    convert_100k(archive(GOOD_INTER.removeprefix(INTER), "\n".join(films) + "\n"), site)
    wheel = pair(tmp_path / "wheel", item=GOOD_ITEM + "5\tMisérables, Les\t1995\tDrama\n")
    for mine, theirs in zip(read_source("ml-100k", site)[:2], read_source("ml-100k", wheel)[:2], strict=True):
        assert mine.fingerprint == theirs.fingerprint
    for junk in [b"", b"PK", archive("", "1|x\n")]:
        with pytest.raises(DataError):
            convert_100k(junk, site)


def test_numbers_are_strict():
    for good, value in [("1", 1.0), (" -2.5e1 ", -25.0), (".5", 0.5), ("3.", 3.0)]:
        assert common.parse_float(good, "here") == value
    for bad in ["", "nan", "inf", "1_0", "0x1", "١", "1e999", "1" * 70, "--1"]:
        with pytest.raises(DataError, match="here"):
            common.parse_float(bad, "here")
    assert (
        common.parse_timestamp(str(2**62), "here") == 2**62
        and common.parse_timestamp("1588888888.75", "here") == 1588888888
    )
    for bad in [str(2**62 + 1), str(-(2**62) - 1), "1e30"]:
        with pytest.raises(DataError, match="out of range for a time"):
            common.parse_timestamp(bad, "here")
    for bad in ["0.5", "-3.25", "999999.5"]:
        with pytest.raises(DataError, match=r"here: .* is not a whole number.*order"):
            common.parse_timestamp(bad, "here")
