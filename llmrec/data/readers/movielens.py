"""Reads MovieLens as GroupLens publishes it: in the `.dat` form (1M, 10M), the later `.csv` form or the 100k archive.

Ratings and movies in the first two forms become a catalogue and an interaction log. The archive of MovieLens-100k
(`u.data`, and `u.item` in Latin-1) is converted to RecBole's atomic files, whose hashes are pinned.

Harper and Konstan, The MovieLens Datasets: History and Context, 2015, https://doi.org/10.1145/2827872.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from llmrec.data.catalog import TITLE_LIMIT, Catalog, Item, Value, clean_text
from llmrec.data.interactions import Interactions
from llmrec.data.readers.assembly import DEFAULT_RULES, JoinRules, assemble
from llmrec.data.readers.common import Event, Report, parse_float, parse_id, parse_timestamp, read_lines
from llmrec.data.titles import display_title, split_year
from llmrec.errors import DataError

_FORMS = (".csv", ".dat")
_STEMS = ("ratings", "movies")
_RATINGS = ("userId", "movieId", "rating", "timestamp")
_MOVIES = ("movieId", "title", "genres")
_NO_GENRE = "(no genres listed)"
_GENRES_100K = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
_TITLE = re.compile(r"^(?P<title>.*?)\s*\((?P<year>[^()]*)\)\s*$")
_MEMBER_LIMIT = 32 << 20
_FIELDS = 5  # id, title, release date, video release date, address; one flag per genre follows


def read_movielens(path: Path, rules: JoinRules = DEFAULT_RULES) -> tuple[Catalog, Interactions, Report]:
    """Read the files `ratings` and `movies`, given as their directory or one of the two; films get `year` and `genre`.

    Lines of the `.dat` form that are not UTF-8 are decoded as Latin-1, as in MovieLens-1M. If a directory holds both
    forms, the `.csv` form is read.

    Raises:
        DataError: no such pair, or an invalid line; the message names file and line.
    """
    ratings, movies = find_pair(path)
    films = list(_films(movies))
    untitled = sum(not titled for _, titled in films)
    notes = (f"{untitled} films have no title: named by their id",) if untitled else ()
    return assemble([film for film, _ in films], _events(ratings), "films", notes, source=str(ratings), rules=rules)


def find_pair(path: Path) -> tuple[Path, Path]:
    """Return the files of ratings and of films, both in the same form; each may be packed as `.gz`.

    Raises:
        DataError: one of them is missing, or `path` is another file.
    """
    folder, forms = path, list(_FORMS)
    if not path.is_dir():
        stem, _, form = path.name.removesuffix(".gz").partition(".")
        folder, forms = path.parent, [one for one in _FORMS if one == f".{form}"]
        if not path.is_file() or not forms or stem not in _STEMS:
            raise DataError(f"{path} is not a file ratings or movies, .csv or .dat (.gz is fine)")
    for form in forms:
        found = [[one for end in ("", ".gz") if (one := folder / f"{stem}{form}{end}").is_file()] for stem in _STEMS]
        if all(found):
            ratings, movies = (path if path in these else these[0] for these in found)
            return ratings, movies
    raise DataError(f"{folder} should hold ratings and movies, both as {' or both as '.join(forms)} (.gz is fine)")


def _cells(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield (place for messages, cells) for every line; a line break in quotes, which no such file has, is refused."""
    dat = ".dat" in path.suffixes
    for line, text in read_lines(path, "latin-1" if dat else None):
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
        time, value = parse_timestamp(stamp, f"{where}, timestamp"), parse_float(rating, f"{where}, rating")
        yield Event(parse_id(user, f"{where}: id"), parse_id(film, f"{where}: id"), time, value)


def _films(path: Path) -> Iterator[tuple[Item, bool]]:
    """Yield (film, whether it has a title)."""
    seen: dict[str, str] = {}
    for where, (written, raw, genres) in _cells(path, _MOVIES):
        id = parse_id(written, f"{where}: id")
        if id in seen:
            raise DataError(f"{where}: item id {id[:60]!r} occurs twice, first in {seen[id]}; ids must be unique")
        seen[id] = where.rpartition(", ")[2]
        title, year = split_year(clean_text(raw, TITLE_LIMIT))
        attributes: dict[str, Value] = {}
        if names := tuple(name for name in genres.split("|") if name and name != _NO_GENRE):
            attributes["genre"] = names
        if year is not None:
            attributes["year"] = year
        shown = display_title(title)
        yield Item(id, shown or f"Film {id}", "", attributes), bool(shown)


def convert_100k(archive: bytes, directory: Path) -> None:
    """Write ml-100k.inter and ml-100k.item into `directory` from the bytes of ml-100k.zip.

    Raises:
        DataError: the bytes are not that archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as bundle:
            ratings, films = _member(bundle, "ml-100k/u.data"), _member(bundle, "ml-100k/u.item")
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"this is not the MovieLens-100k archive: {error}") from None
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (directory / "ml-100k.inter").write_text(f"{head}\n{ratings.decode('ascii')}", encoding="utf-8")
    head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    lines = [_film_100k(line, number) for number, line in enumerate(films.decode("latin-1").splitlines(), 1) if line]
    (directory / "ml-100k.item").write_text("\n".join([head, *lines, ""]), encoding="utf-8")


def _member(bundle: zipfile.ZipFile, name: str) -> bytes:
    if bundle.getinfo(name).file_size > _MEMBER_LIMIT:
        raise DataError(f"{name} has {bundle.getinfo(name).file_size} bytes; at most {_MEMBER_LIMIT} are expected")
    return bundle.read(name)


def _film_100k(line: str, number: int) -> str:
    cells = line.split("|")
    if len(cells) != _FIELDS + len(_GENRES_100K):
        raise DataError(f"u.item, line {number}: {len(cells)} fields instead of {_FIELDS + len(_GENRES_100K)}")
    match = _TITLE.match(cells[1])
    title, year = (match["title"], match["year"]) if match else (cells[1], "")
    genres = " ".join(genre for genre, flag in zip(_GENRES_100K, cells[_FIELDS:], strict=True) if flag == "1")
    return "\t".join([cells[0], title, year, genres])
