"""Reads MovieLens as GroupLens publishes it: ratings and movies in the `.dat` form (1M, 10M) or the later `.csv` form.

Harper and Konstan, The MovieLens Datasets: History and Context, 2015, https://doi.org/10.1145/2827872.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmrec.catalog import TITLE_LIMIT, Catalog, Item, Value, clean_text
from llmrec.errors import DataError
from llmrec.interactions import Interactions
from llmrec.reading import Event, Report, assemble, identifier, lines, number, whole
from llmrec.titles import display_title, split_year

_FORMS = ((".csv", ""), (".csv", ".gz"), (".dat", ""), (".dat", ".gz"))
_RATINGS = ("userId", "movieId", "rating", "timestamp")
_MOVIES = ("movieId", "title", "genres")
_NO_GENRE = "(no genres listed)"


def read_movielens(path: Path) -> tuple[Catalog, Interactions, Report]:
    """Read a directory with `ratings` and `movies`: films with `year` and `genre`.

    Lines of the `.dat` form that are not UTF-8 are Latin-1, as in MovieLens-1M.

    Raises:
        DataError: no such pair, or a line that is not what it should be; names file and line.
    """
    folder = path if path.is_dir() else path.parent
    for kind, packed in _FORMS:
        ratings, movies = (folder / f"{stem}{kind}{packed}" for stem in ("ratings", "movies"))
        if ratings.is_file() and movies.is_file():
            return assemble(list(_films(movies)), _events(ratings), "films")
    raise DataError(f"{folder} should hold ratings and movies, both as .csv or both as .dat (.gz is fine)")


def _cells(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield (place for messages, cells); a line break inside quotes, which no such file has, is refused."""
    dat = ".dat" in path.suffixes
    for line, text in lines(path, "latin-1" if dat else None):
        where = f"{path}, line {line}"
        if not text:
            continue
        cells = text.split("::") if dat else _csv(text, where)
        if not dat and line == 1:
            if [cell.casefold() for cell in cells] != [name.casefold() for name in names]:
                raise DataError(f"{where}: the header should be {','.join(names)}, not {text[:60]!r}")
            continue
        if len(cells) != len(names):
            raise DataError(f"{where}: {len(cells)} fields where {', '.join(names)} should be")
        yield where, cells


def _csv(text: str, where: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise DataError(f"{where}: {error}") from None


def _events(path: Path) -> Iterator[Event]:
    for where, (user, film, rating, stamp) in _cells(path, _RATINGS):
        time, value = whole(stamp, f"{where}, timestamp"), number(rating, f"{where}, rating")
        yield Event(identifier(user, f"{where}: id"), identifier(film, f"{where}: id"), time, value)


def _films(path: Path) -> Iterator[Item]:
    for where, (id, raw, genres) in _cells(path, _MOVIES):
        title, year = split_year(clean_text(raw, TITLE_LIMIT))
        attributes: dict[str, Value] = {}
        if names := tuple(name for name in genres.split("|") if name and name != _NO_GENRE):
            attributes["genre"] = names
        if year is not None:
            attributes["year"] = year
        yield Item(identifier(id, f"{where}: id"), display_title(title) or f"Film {id}", "", attributes)
