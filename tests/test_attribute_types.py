"""Typed attributes: kinds told by values, and numbers, dates and flags asked for in words through the real reader."""

import datetime

import numpy as np
import pytest

from llmrec.data.attribute_types import encode_date, flag_value, format_number, infer_type, is_date
from llmrec.data.catalog import Catalog, Item
from llmrec.data.constraints import constraints
from llmrec.data.filters import Filters
from llmrec.nlu.numeric_constraints import numeric_attributes, parse_numeric_ranges
from llmrec.nlu.parser import stated_filters

PRICES = (5.0, 19.99, 20.0, 25.5, 80.0, 1250.0)
DAYS = ("2009-12-31", "2012-02-29", "2012-03-01", "2012-03-31", "2013-05-04", "2014-01-01")


@pytest.fixture(scope="module")
def shop():
    items = []
    for row, (price, day) in enumerate(zip(PRICES, DAYS, strict=True)):
        when = datetime.date.fromisoformat(day)
        attributes = {
            "brand": ("LEGO" if row % 2 else "Hasbro",),
            "price": price,
            "number_of_players": row + 1,
            "released": encode_date(when),
            "released_year": when.year,
            "waterproof": flag_value("waterproof", row < 3),
        }
        items.append(Item(f"t{row}", f"Toy {row}", "", attributes))
    return Catalog(items, "toys")


def rows(shop, text):
    return np.flatnonzero(shop.where(stated_filters(text, shop))).tolist()


def test_kinds_are_told_by_values(shop):
    kinds = {name: shop.attribute_type(name) for name in shop.attribute_names}
    assert kinds == {
        "brand": "category", "price": "number", "number_of_players": "number", "released": "date",
        "released_year": "number", "waterproof": "flag",
    }  # fmt: skip
    assert infer_type("price", [20120301, 20120332]) == "number", "one value that is no day makes none of them dates"
    assert infer_type("in_stock", ["in stock", "sold out"]) == "category"
    assert not is_date(True) and not is_date(20130229) and not is_date(20120301.0)


def test_numbers_are_said_whole():
    assert [format_number(v) for v in (20120301, 1234567, 19.99, 1995)] == ["2012-03-01", "1234567", "19.99", "1995"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a toy under $20", [0, 1]),
        ("something under 20", [0, 1]),
        ("cheaper than 20 please", [0, 1]),
        ("at most 20 dollars", [0, 1, 2]),
        ("price up to 20", [0, 1, 2]),
        ("the price should be at least 25.50", [3, 4, 5]),
        ("more than $1,000", [5]),
        ("between $20 and $80", [2, 3, 4]),
        ("20 to 30 euros", [2, 3]),
        ("at least 4 players", [3, 4, 5]),
        ("fewer than 3 players", [0, 1]),
        ("between 2 and 3 players", [1, 2]),
        ("number of players exactly 5", [4]),
        ("released after March 2012", [4, 5]),
        ("since march 1, 2012", [2, 3, 4, 5]),
        ("before 2012-03-01", [0, 1]),
        ("released in March 2012", [2, 3]),
        ("until 2012-03", [0, 1, 2, 3]),
        ("from 2013", [4]),
        ("something waterproof", [0, 1, 2]),
        ("not waterproof", [3, 4, 5]),
        ("LEGO under $50, waterproof", [1]),
        ("waterproof, at least 2 players, under 20 dollars", [1]),
    ],
)
def test_a_sentence_filters_by_number_date_and_flag(shop, text, expected):
    assert rows(shop, text) == expected


@pytest.mark.parametrize(
    "text", ["give me 5", "more than one idea", "toys from 2", "february 31, 2012", "3 more", "top 20"]
)
def test_other_numbers_are_no_constraint(shop, text):
    found, spans = parse_numeric_ranges(text, numeric_attributes(shop))
    assert (found, spans) == ({}, [])


def test_odd_names_of_attributes_do_no_harm():
    items = [Item(f"a{n}", f"A {n}", "", {"_": n, "(x": n + 0.5, "price)": n}) for n in range(3)]
    assert stated_filters("under 2 (x and price) at least 1", Catalog(items)).describe()


def test_labels_read_well(shop):
    labels = [one.label for one in constraints(stated_filters("under $20, released after March 2012", shop))]
    assert labels == ["price up to 20", "released from 2012-04-01"]
    assert Filters(ranges={"released": (None, 20120331)}).describe() == "released at most 2012-03-31"
    assert "released 2012-02-29" in shop.describe(1) and "price 19.99" in shop.describe(1)


def test_the_text_of_the_shipped_catalogue_is_as_it_was(catalog):
    assert catalog.describe(0) == "Funny Tale 0 (1990). Comedy" and numeric_attributes(catalog).nouns == {}
