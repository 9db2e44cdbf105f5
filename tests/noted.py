"""The well-known films of `fakes` with notes on a few of them, for tests of what notes are good for."""

from __future__ import annotations

from typing import Any

from fakes import films

from llmrec.data.catalog import Catalog
from llmrec.data.item_notes import ItemNotes, load_schema, with_notes

ADULTS, FAMILY, SMALL, TEENS = "adults", "family", "small children", "teenagers"
_NOTES: dict[str, dict[str, Any]] = {
    "Toy Story": {
        "premise": "A toy cowboy fears that a space ranger will take his place in a boy's heart.",
        "directors": ("John Lasseter",), "cast": ("Tom Hanks", "Tim Allen"), "countries": ("USA",), "minutes": 81,
        "moods": ("funny", "heart-warming"), "themes": ("toys", "friendship"), "audience": SMALL,
        "violence": 0, "fright": 1, "sex": 0,
    },
    "The Lion King": {
        "premise": "A lion cub flees his home after his father's death and must return to claim his throne.",
        "directors": ("Roger Allers", "Rob Minkoff"), "countries": ("USA",), "minutes": 88, "moods": ("moving",),
        "themes": ("talking animals", "fatherhood"), "audience": FAMILY, "violence": 1, "fright": 1, "sex": 0,
    },
    "Alien": {
        "premise": "The crew of a freighter is hunted by a creature that came aboard.",
        "directors": ("Ridley Scott",), "cast": ("Sigourney Weaver", "Tom Skerritt"), "countries": ("USA", "UK"),
        "minutes": 117, "moods": ("frightening", "tense"), "themes": ("aliens", "space travel"), "places": ("space",),
        "times": ("far future",), "audience": ADULTS, "violence": 3, "fright": 3, "sex": 0, "series": ("Alien",),
    },
    "Aliens": {
        "directors": ("James Cameron",), "cast": ("Sigourney Weaver", "Michael Biehn"), "countries": ("USA",),
        "minutes": 137, "themes": ("aliens", "soldiers"), "audience": ADULTS, "violence": 3, "fright": 3, "sex": 0,
        "source": ("sequel",), "series": ("Alien",),
    },
    "Blade Runner": {
        "directors": ("Ridley Scott",), "cast": ("Harrison Ford", "Rutger Hauer"), "countries": ("USA",),
        "minutes": 117, "themes": ("robots", "dystopia"), "places": ("Los Angeles", "USA"), "audience": ADULTS,
        "violence": 2, "fright": 1, "sex": 1, "source": ("novel",),
    },
    "Il Postino (The Postman)": {
        "directors": ("Michael Radford",), "cast": ("Massimo Troisi",), "countries": ("Italy", "France"),
        "languages": ("Italian",), "minutes": 108, "themes": ("poetry", "first love"), "audience": FAMILY,
        "violence": 0, "fright": 0, "sex": 1,
    },
    "Casablanca": {
        "directors": ("Michael Curtiz",), "cast": ("Humphrey Bogart", "Ingrid Bergman"), "countries": ("USA",),
        "minutes": 102, "themes": ("World War II", "exile"), "places": ("Casablanca", "Morocco"), "times": ("1940s",),
        "source": ("play",), "audience": FAMILY, "violence": 1, "fright": 0, "sex": 0,
    },
    "Groundhog Day": {
        "premise": "A weatherman lives the same day in a small town again and again.",
        "directors": ("Harold Ramis",), "cast": ("Bill Murray", "Andie MacDowell"), "countries": ("USA",),
        "minutes": 101, "moods": ("funny",), "themes": ("time travel", "small town"), "audience": FAMILY,
        "violence": 0, "fright": 0, "sex": 0,
    },
}  # fmt: skip


def noted_films() -> Catalog:
    """`films()` with notes on eight of them; the others have none."""
    catalog = films()
    ids = {item.title: item.id for item in catalog.items}
    return with_notes(catalog, ItemNotes(load_schema("film"), "a test", {ids[t]: note for t, note in _NOTES.items()}))
