"""Rules that all forms share, and files that do not belong together."""

import json
import time
from pathlib import Path

import pytest

from llmrec.data.dataset import dataset_statistics, read_source, save_data
from llmrec.data.readers.markup import plain_text
from llmrec.data.validation import validate_dataset
from llmrec.errors import ArtifactError, DataError

TABLE = "item_id:token\ttitle:token_seq\tbrand:token\tcategories:token_seq\n"


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def jsonl(*records: dict) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def review(item: str, when: int | float, user: str = "u") -> dict:
    return {"user_id": user, "parent_asin": item, "rating": 5.0, "timestamp": when}


def test_page_code_is_no_text():
    assert (
        plain_text("Soap<script type='x'>var a = 1;</script> &amp; <STYLE>.a{color:red}</style >brush")
        == "Soap & brush"
    )
    assert (
        plain_text("a <script>never ended") == "a never ended"
        and plain_text("x <scripture> y</p>") == "x <scripture> y"
    )
    assert plain_text("Basic <Uncut><br/>Director's<!-- 2 --> <I class='x'>Cut</I>") == "Basic <Uncut> Director's Cut"
    start = time.perf_counter()
    plain_text("<script>" * 100_000 + "</style" * 1000)
    assert time.perf_counter() - start < 5, "the time grows with the square of the text"


def test_a_table_of_items_follows_the_rules_of_the_shops(tmp_path):
    rows = "1\tOne &amp; <b>only</b>\tAcme\tRoot|Sub\n2\t\tAcme\tRoot|Leaf\n3\t\tUnknown\t\n"
    put(tmp_path / "a.item.tsv", TABLE + rows)
    catalog, _, report = read_source("s3rec", put(tmp_path / "a.sequences.txt", "1 1 2 3\n"))
    assert [item.title for item in catalog.items] == ["One & only", "Acme Leaf (2)", "Item 3"]
    assert dict(catalog[0].attributes) == {"brand": "Acme", "category": ("Sub",)} and not catalog[2].attributes
    assert any(note.startswith("2 items have no title") for note in report.notes)


def test_a_first_category_that_tells_items_apart_stays(tmp_path):
    rows = "1\tOne\tAcme\tBikes|Tyres\n2\tTwo\tAcme\tBoats|Oars\n3\tThree\tAcme\tBoats\n"
    put(tmp_path / "a.item.tsv", TABLE + rows)
    catalog, _, _ = read_source("s3rec", put(tmp_path / "a.sequences.txt", "1 1 2 3\n"))
    names = [item.attributes["category"] for item in catalog.items]
    assert names == [("Bikes", "Tyres"), ("Boats", "Oars"), ("Boats",)]


def test_a_name_with_tsv_inside_is_not_a_table(tmp_path):
    put(tmp_path / "a.tsv.items.jsonl", jsonl({"id": 1, "title": "One"}))
    assert read_source("s3rec", put(tmp_path / "a.tsv.sequences.txt", "1 1 1 1\n"))[0][0].title == "One"


@pytest.mark.parametrize("space", ["\r", "\f", "\x85", "\u2028"])
def test_only_spaces_and_tabs_divide_a_sequence(tmp_path, space):
    put(tmp_path / "a.items.jsonl", jsonl({"id": 1}, {"id": 2}))
    path = put(tmp_path / "a.sequences.txt", f"1 1 2{space}2 2 1{space}\n")
    with pytest.raises(DataError, match=r"a\.sequences\.txt, line 1: id '2.*2' is empty, too long or does not print"):
        read_source("s3rec", path)


def test_sequences_and_items_of_two_sets_are_told_apart(tmp_path):
    put(tmp_path / "a.items.jsonl", jsonl({"id": "B01", "title": "Soap"}))
    path = put(tmp_path / "a.sequences.txt", "1 7 8 9\n")
    with pytest.raises(DataError, match=r"none of its ids has a record .* e\.g\. item '7'; .* look like 'B01'"):
        read_source("s3rec", path)


def test_reviews_and_products_of_two_sets_are_told_apart(tmp_path):
    put(tmp_path / "meta_Toys.jsonl", jsonl({"parent_asin": "T", "title": "Car"}))
    put(tmp_path / "Beauty.jsonl", jsonl(review("B", 1)))
    with pytest.raises(
        DataError, match=r"meta_Toys\.jsonl: none of its products is in Beauty\.jsonl; e\.g\. product 'B'"
    ):
        read_source("amazon", tmp_path)


def test_reviews_within_a_second_keep_their_order(tmp_path):
    put(tmp_path / "meta_a.jsonl", jsonl(*({"parent_asin": name, "title": name * 3} for name in "PQRS")))
    base = 1_592_345_728_000
    put(tmp_path / "a.jsonl", jsonl(review("S", base + 1400), review("R", base + 900), review("P", base + 100),
                                    review("Q", base + 500), review("Q", base + 501)))  # fmt: skip
    catalog, x, report = read_source("amazon", tmp_path)
    assert "".join(catalog[row].id for row in x.rows_of(0)) == "PQQRS" and report.dropped == {}
    put(tmp_path / "a.jsonl", jsonl(review("S", 1.5)))
    with pytest.raises(DataError, match=r"line 1, unixReviewTime or timestamp: 1\.5 is not a whole number"):
        read_source("amazon", tmp_path)


def test_a_scraped_program_is_no_title_and_odd_fields_are_counted(tmp_path):
    program = "var aPageStart = (new Date()).getTime();\nvar ue_t0=1;"
    put(tmp_path / "meta_a.json", jsonl({"asin": "P", "title": program, "brand": "Acme"}, {"asin": "Q", "title": 1984,
                                        "brand": ["X"], "category": "Books|Novels"}))  # fmt: skip
    old = {"reviewerID": "u", "overall": 5, "unixReviewTime": 7}
    put(tmp_path / "a.json", jsonl({**old, "asin": "P"}, {**old, "asin": "Q"}))
    catalog, _, report = read_source("amazon", tmp_path)
    assert [item.title for item in catalog.items] == ["Acme (P)", "Item Q"]
    notes = " | ".join(report.notes)
    assert "2 products have no title" in notes and "3 fields of products hold neither text nor a list" in notes


def test_movielens_reads_the_form_that_was_named(tmp_path):
    put(tmp_path / "movies.csv", "movieId,title,genres\n1,Csv (1995),Drama\n")
    put(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp\n1,1,5,1\n")
    put(tmp_path / "movies.dat", "1::Dat (1995)::Drama\n2::::Drama\n")
    named = put(tmp_path / "ratings.dat", "1::1::5::1\n")
    assert read_source("movielens", tmp_path)[0][0].title == "Csv"
    catalog, _, report = read_source("movielens", named)
    assert [film.title for film in catalog.items] == ["Dat", "Film 2"]
    assert report.notes[0] == "1 films have no title: named by their id"
    with pytest.raises(DataError, match=r"README is not a file ratings or movies"):
        read_source("movielens", put(tmp_path / "README", "no"))
    put(tmp_path / "movies.dat", "1::Dat::\n1::Again::\n")
    with pytest.raises(DataError, match=r"movies\.dat, line 2: item id '1' occurs twice, first in line 1"):
        read_source("movielens", named)


def test_an_empty_log_is_named(tmp_path):
    put(tmp_path / "a.items.jsonl", jsonl({"id": 1}))
    with pytest.raises(DataError, match=r"a\.sequences\.txt: no usable interactions"):
        read_source("s3rec", put(tmp_path / "a.sequences.txt", "\n\n"))


def test_namesakes_and_names_that_are_ids_are_counted_whole(tmp_path):
    put(tmp_path / "a.items.jsonl", jsonl(*({"id": n, "title": "Soap"} for n in range(3)), {"id": 3}))
    catalog, x, _ = read_source("s3rec", put(tmp_path / "a.sequences.txt", "1 0 1 2 3\n2 3 2 1 0\n"))
    assert dataset_statistics(catalog, x)["duplicate_labels"] == 3
    found = [one.text for one in validate_dataset(catalog, x).findings]
    assert "3 of 4 items share title and year with another: naming one in words is ambiguous" in found
    assert "1 of 4 items are called by their id" in found


def test_a_place_below_a_file_is_refused(tmp_path):
    put(tmp_path / "a.items.jsonl", jsonl({"id": 1}))
    data = read_source("s3rec", put(tmp_path / "a.sequences.txt", "1 1 1 1\n"))
    with pytest.raises(ArtifactError, match=r"a\.sequences\.txt is a file; give a directory"):
        save_data(tmp_path / "a.sequences.txt" / "out", *data)
