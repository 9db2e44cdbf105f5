"""Item notes: read against their schema, refused where they do not fit, merged into a catalogue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes import films
from hypothesis import given
from hypothesis import strategies as st

from llmrec.data.filters import Filters
from llmrec.data.item_notes import ItemNotes, NoteSchema, check_note, load_schema, read_notes, with_notes
from llmrec.errors import DataError

FILM = load_schema("film")
HEAD = {"schema": "film", "by": "a test"}
NOTE = {
    "id": "f1",
    "premise": "A toy cowboy fears that a new toy will take his place.",
    "directors": ["John Lasseter"],
    "cast": ["Tom Hanks", "Tim Allen"],
    "minutes": 81,
    "audience": "family",
    "violence": 1,
    "fright": 0,
    "moods": ["funny"],
}


def written(path: Path, *lines: object) -> Path:
    """A notes file of these lines; what is no text is written as JSON."""
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines) + "\n")
    return path


def test_notes_become_attributes_and_text(tmp_path: Path) -> None:
    notes = read_notes(written(tmp_path / "notes.jsonl", HEAD, NOTE, {"id": "f2"}))
    catalog = films()
    noted = with_notes(catalog, notes)
    item = noted[0]
    assert item.text == NOTE["premise"]
    assert item.attributes["director"] == ("John Lasseter",)
    assert item.attributes["actor"] == ("Tom Hanks", "Tim Allen")
    assert item.attributes["audience"] == ("family", "teenagers", "adults")
    assert (item.attributes["minutes"], item.attributes["violence"], item.attributes["fright"]) == (81, 1, 0)
    assert item.attributes["genre"] == catalog[0].attributes["genre"]
    assert noted[1] == catalog[1] and notes.by == "a test"
    # an item without the field fails a limit on it
    assert noted.where(Filters(ranges={"violence": (None, 1)})).nonzero()[0].tolist() == [0]


def test_own_attributes_go_before_notes(tmp_path: Path) -> None:
    schema = NoteSchema.model_validate({"domain": "films", "fields": {"year": {"type": "number", "about": "when"}}})
    noted = with_notes(films(), ItemNotes(schema, "a test", {"f1": {"year": 1}}))
    assert noted[0].attributes["year"] == 1995


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("colour", "red", "no field 'colour'"),
        ("moods", ["merry"], "'merry' is not in its list; the closest are:"),
        ("moods", ["funny", "sad", "dark", "epic", "cold"], "5 values; at most 4"),
        ("premise", "word " * 31, "31 words; at most 30"),
        ("premise", 3, "use a sentence"),
        ("minutes", 0, "a whole number from 5 to 600"),
        ("minutes", True, "a whole number from 5 to 600"),
        ("violence", 4, "a whole number from 0 to 3"),
        ("audience", "babies", "use one of: small children"),
        ("directors", [1], "use a list of names"),
        ("directors", ["x" * 101], "a name of 101 characters"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_line(tmp_path: Path, field: str, value: object, said: str) -> None:
    path = written(tmp_path / "notes.jsonl", HEAD, {"id": "f2"}, {"id": "f1", field: value})
    with pytest.raises(DataError, match="line 3, item 'f1'") as error:
        read_notes(path)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "line 1: not a JSON object"),
        ((NOTE,), "what notes say and who wrote them"),
        (({"schema": "no such", "by": "x"},), "no schema of notes 'no such'"),
        ((HEAD, "[1]"), "line 2: not a JSON object"),
        ((HEAD, "{" * 100_000), "longer than"),
        ((HEAD, {"premise": "No id."}), "needs the id of its item"),
        ((HEAD, NOTE, NOTE), "line 3: item 'f1' has a note already"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, lines: tuple[object, ...], said: str) -> None:
    with pytest.raises(DataError) as error:
        read_notes(written(tmp_path / "notes.jsonl", *lines))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_notes_of_another_catalogue_are_refused(tmp_path: Path) -> None:
    notes = read_notes(written(tmp_path / "notes.jsonl", HEAD, {"id": "x9", "minutes": 90}))
    with pytest.raises(DataError, match="1 of 1 notes are on items that this catalogue does not have, 'x9' first"):
        with_notes(films(), notes)


def test_the_json_schema_names_every_field() -> None:
    schema = FILM.json_schema()
    assert list(schema["properties"]) == list(FILM.fields)
    assert schema["properties"]["violence"]["maximum"] == 3
    assert schema["properties"]["moods"]["items"]["enum"] == list(FILM.fields["moods"].values)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(list(FILM.fields)) | st.text(max_size=8), JUNK, max_size=5))
def test_whatever_a_server_answers_is_checked_or_refused(note: dict[str, object]) -> None:
    try:
        checked = check_note(note, FILM, "a server")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        noted = with_notes(films(), ItemNotes(FILM, "a test", {"f1": checked}))
        assert noted.fingerprint
