"""Reads INSPIRED (Hayati et al., 2020): conversations in which one person persuades another to watch a film.

The directory holds the official `dev.tsv` and `test.tsv` and, of the training part, either `train.tsv` or
`instructlf_train_contexts.csv`: the training dialogues up to each recommendation, with the titles recommended next.
Titles named earlier in such contexts are found in the text.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmrec.data.catalog import Catalog, Item, clean_text
from llmrec.data.titles import split_year, title_key
from llmrec.errors import DataError
from llmrec.eval.crs.data import RECOMMENDER, SEEKER, Corpus, Dialogue, Turn, merge_turns
from llmrec.eval.crs.redial import FILMS, find, opened, read_films
from llmrec.nlu.opinions import opinion_on
from llmrec.nlu.parser import parser_context

DEV, TEST = ("dev.tsv",), ("test.tsv",)
TRAINING, CONTEXTS = ("train.tsv",), ("instructlf_train_contexts.csv",)
PUBLISHED_TRAINING = 801  # dialogues of the official training part
_SPEAKERS = {"System": RECOMMENDER, "User": SEEKER, "RECOMMENDER": RECOMMENDER, "SEEKER": SEEKER}
_LINE_OF = re.compile(r"(?m)^(System|User): ?")
_TEXT = 4000


@dataclass(frozen=True)
class _Said:
    """One utterance as read: speaker, text, and the titles it names where known."""

    speaker: str
    text: str
    titles: tuple[str, ...] | None


_Raw = tuple[str, list[_Said]]  # id and utterances


def read_inspired(directory: Path) -> Corpus:
    """Read the benchmark; the development dialogues come last in the train pool, where settings are chosen.

    The catalogue holds every title that the annotations name. If ReDial's `movie_info.json` is in the directory too, it
    provides descriptions of the films that it contains; it adds no films.

    Raises:
        DataError: a file is missing or malformed; names file and line.
    """
    dev, test = (list(_official(find(directory, names))) for names in (DEV, TEST))
    whole = _there(directory, TRAINING)
    train = list(_official(find(directory, TRAINING)) if whole else _contexts(find(directory, CONTEXTS)))
    catalog = _catalog([*train, *dev, *test], directory)
    rows = _Rows(catalog)
    pool = [_dialogue(one, number, rows) for number, one in enumerate((*train, *dev))]
    tested = tuple(_dialogue(one, len(pool) + number, rows) for number, one in enumerate(test))
    described = sum(bool(item.text) for item in catalog.items)
    part = "whole" if whole else "contexts up to each recommendation only, earlier titles found in the text"
    available = (
        f"{len(train)} of the {PUBLISHED_TRAINING} official training dialogues ({part}), {len(dev)} development "
        f"dialogues, {len(test)} test dialogues; {described} of {len(catalog)} films have a description"
    )
    return Corpus("inspired", catalog, tuple(pool), tested, available)


def _there(directory: Path, names: Sequence[str]) -> bool:
    return any((directory / f"{name}{end}").is_file() for name in names for end in ("", ".gz"))


def _official(path: Path) -> Iterator[_Raw]:
    """Read dialogues from a .tsv file of the publishers, where quotation marks are literal."""
    found: dict[str, list[_Said]] = {}
    for number, record in _table(path, csv.DictReader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)):
        try:
            titles = tuple(name for one in (record["movies"] or "").split(";") if (name := clean_text(one, 300)))
            said = _Said(_SPEAKERS[str(record["speaker"])], str(record["text"] or ""), titles)
            found.setdefault(str(record["dialog_id"]), []).append(said)
        except KeyError as error:
            raise DataError(f"{path}, row {number}: not an utterance of INSPIRED: {error} is missing") from None
    yield from found.items()


def _contexts(path: Path) -> Iterator[_Raw]:
    """Convert growing contexts to dialogues: a context that extends the previous one belongs to the same dialogue."""
    held: list[_Said] = []
    dialogue = 0
    for number, record in _table(path, csv.DictReader(_lines(path))):
        try:
            said = _spoken(record["full_situation"])
            titles = tuple(clean_text(str(one), 300) for one in ast.literal_eval(record["movies"]))
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise DataError(f"{path}, row {number}: not a context of INSPIRED: {error!r}") from None
        before = [one.text for one in held]
        if held and [one.text for one in said[: len(held) - 1]] == before[:-1]:
            # the recommendation of the previous row has now been said: it keeps its titles and gets its text
            said = [*held[:-1], *said[len(held) - 1 :]]
            if len(said) >= len(held):
                said[len(held) - 1] = _Said(RECOMMENDER, said[len(held) - 1].text, held[-1].titles)
        elif held:
            yield f"train-{dialogue}", held
            dialogue += 1
        held = [*said, _Said(RECOMMENDER, "", titles)]
    if held:
        yield f"train-{dialogue}", held


def _spoken(text: str) -> list[_Said]:
    """Parse lines `System: ...` and `User: ...`; the last, empty one is where the recommendation belongs."""
    pieces = _LINE_OF.split(text)
    said = [_Said(_SPEAKERS[who], words.strip(), None) for who, words in zip(pieces[1::2], pieces[2::2], strict=True)]
    return said[:-1] if said and not said[-1].text else said


def _lines(path: Path) -> Iterator[str]:
    for _, line in opened(path):
        yield line + "\n"


def _table(path: Path, records: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        yield from enumerate(records, start=1)
    except csv.Error as error:
        raise DataError(f"{path} is not a table: {error}") from None


def _catalog(raw: Sequence[_Raw], directory: Path) -> Catalog:
    """Create a film for every title and year; an undated title counts only if it never has a year."""
    names = sorted({title for _, said in raw for one in said for title in one.titles or ()})
    dated = {title_key(title) for title, year in map(split_year, names) if year is not None}
    known = {}
    if _there(directory, FILMS):
        known = {(title_key(item.title), item.attributes.get("year")): item
                 for item in read_films(find(directory, FILMS)).values()}  # fmt: skip
    items: dict[tuple[str, int | None], Item] = {}
    for name in names:
        title, year = split_year(name)
        key = (title_key(title), year)
        if key in items or (year is None and key[0] in dated) or not any(char.isalnum() for char in title):
            continue
        film = known.get(key)
        attributes = {} if year is None else {"year": year}
        number = str(len(items))
        items[key] = Item(number, title, film.text if film else "", film.attributes if film else attributes)
    return Catalog(list(items.values()), domain="films")


class _Rows:
    """Maps annotated titles to rows, and finds titles in a text."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self._linker = catalog, parser_context(catalog).linker
        self._rows: dict[tuple[str, int | None], int] = {}
        years = [(item.attributes.get("year") or 0, row) for row, item in enumerate(catalog.items)]
        for year, row in sorted(years, key=lambda pair: (float(pair[0]) if isinstance(pair[0], int) else 0.0, pair[1])):
            key = title_key(catalog[row].title)
            self._rows[key, year if isinstance(year, int) and year else None] = row
            self._rows[key, None] = row  # without a year the latest film is meant

    def of(self, title: str) -> list[int]:
        """The row of an annotated title, if it is in the catalogue."""
        bare, year = split_year(title)
        row = self._rows.get((title_key(bare), year))
        return [] if row is None else [row]

    def spot(self, text: str) -> list[tuple[int, int, int]]:
        """Return (row, start, end) of the titles in a text; lower-case "watch" and "walk" are words, not films."""
        found = (one for one in self._linker.link(text).found if one.row >= 0 and text[one.start].isupper())
        return [(one.row, one.start, one.end) for one in found]


def _dialogue(raw: _Raw, when: int, rows: _Rows) -> Dialogue:
    return Dialogue(raw[0], when, merge_turns([_turn(one, rows) for one in raw[1]]))


def _turn(said: _Said, rows: _Rows) -> Turn:
    """Build a turn from the annotated titles, or from titles found in the text if there are no annotations.

    Found titles are removed from the words and judged for dislike.
    """
    text = clean_text(said.text, _TEXT)
    spotted = rows.spot(text)
    named = [row for row, _, _ in spotted] if said.titles is None else [r for t in said.titles for r in rows.of(t)]
    lower = text.casefold() if len(text.casefold()) == len(text) else text
    against = [row for row, start, end in spotted if row in named and opinion_on(lower, start, end) == "dislike"]
    words = text
    for _, start, end in sorted(spotted, key=lambda one: -one[1]):
        words = words[:start] + words[end:]
    return Turn(
        said.speaker, clean_text(words, _TEXT), text, tuple(dict.fromkeys(named)), tuple(dict.fromkeys(against))
    )
