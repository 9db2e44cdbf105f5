"""Limits that protect people: for whom, how intense, how long; empty fields never pass."""

from __future__ import annotations

import pytest
from fakes import films
from noted import noted_films

from llmrec.nlu.suitability import parse_suitability

CATALOG = noted_films()


@pytest.mark.parametrize(
    ("said", "audience"),
    [
        ("something for my 6 year old", "small children"),
        ("for my 4 and 9 year olds", "small children"),
        ("a film for my toddler", "small children"),
        ("for the whole family", "family"),
        ("my 12 year old nephew loves space", "family"),
        ("kid friendly please", "family"),
        ("a film to watch with my kids", "family"),
        ("for my teenage daughter", "teenagers"),
        ("films with kids in them", None),
        ("i am 45 years old", None),
        ("a 20 year old film", None),
        ("comedies from the 90s", None),
    ],
)
def test_an_audience_is_read(said: str, audience: str | None) -> None:
    wanted = parse_suitability(said, CATALOG).filters.all_of
    assert wanted == ({} if audience is None else {"audience": (audience,)})


@pytest.mark.parametrize(
    ("said", "limits"),
    [
        ("nothing violent", {"violence": 0}),
        ("not too scary", {"fright": 1}),
        ("no sex or violence please", {"sex": 0, "violence": 0}),
        ("i don't like violence, i do like dogs", {"violence": 0}),
        ("isn't too gory", {"violence": 1}),
        ("less violent", {"violence": 1}),
        ("without nudity", {"sex": 0}),
        ("i want something scary", {}),
        ("not a war film", {}),
    ],
)
def test_an_intensity_is_limited(said: str, limits: dict[str, int]) -> None:
    found = parse_suitability(said, CATALOG).filters.ranges
    assert {name: high for name, (_, high) in found.items()} == limits


@pytest.mark.parametrize(
    ("said", "bounds"),
    [
        ("under two hours", (None, 119)),
        ("at most an hour and a half", (None, 90)),
        ("less than 90 minutes", (None, 89)),
        ("longer than 2 hours and 30 minutes", (151, None)),
        ("something short", (None, 95)),
        ("not too long", (None, 149)),
    ],
)
def test_a_length_is_read(said: str, bounds: tuple[float | None, float | None]) -> None:
    assert parse_suitability(said, CATALOG).filters.ranges == {"minutes": bounds}


def test_an_item_of_which_nothing_is_known_is_kept_from_children() -> None:
    allowed = CATALOG.where(parse_suitability("for my 6 year old, nothing violent", CATALOG).filters)
    assert [CATALOG[int(row)].title for row in allowed.nonzero()[0]] == ["Toy Story"]


def test_a_catalogue_without_the_fields_is_not_limited() -> None:
    found = parse_suitability("for my 6 year old, nothing violent, under two hours", films())
    assert found.filters.empty and not found.places
