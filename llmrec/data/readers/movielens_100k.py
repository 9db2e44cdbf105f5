"""Turns MovieLens-100k as GroupLens publishes it (u.data, u.item in Latin-1) into a pair of atomic files.

Harper and Konstan, The MovieLens Datasets: History and Context, 2015, https://doi.org/10.1145/2827872.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

from llmrec.errors import DataError

_GENRES = [
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
_FIELDS = 5  # id, title, release date, video release date, address; then one flag a genre


def convert(archive: bytes, directory: Path) -> None:
    """Write ml-100k.inter and ml-100k.item into `directory` from the bytes of ml-100k.zip.

    Raises:
        DataError: not that archive.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as bundle:
            ratings, films = _member(bundle, "ml-100k/u.data"), _member(bundle, "ml-100k/u.item")
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"this is not the MovieLens-100k archive: {error}") from None
    head = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    (directory / "ml-100k.inter").write_text(f"{head}\n{ratings.decode('ascii')}", encoding="utf-8")
    head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    lines = [_film(line, number) for number, line in enumerate(films.decode("latin-1").splitlines(), 1) if line]
    (directory / "ml-100k.item").write_text("\n".join([head, *lines, ""]), encoding="utf-8")


def _member(bundle: zipfile.ZipFile, name: str) -> bytes:
    if bundle.getinfo(name).file_size > _MEMBER_LIMIT:
        raise DataError(f"{name} has {bundle.getinfo(name).file_size} bytes; at most {_MEMBER_LIMIT} are expected")
    return bundle.read(name)


def _film(line: str, number: int) -> str:
    cells = line.split("|")
    if len(cells) != _FIELDS + len(_GENRES):
        raise DataError(f"u.item, line {number}: {len(cells)} fields instead of {_FIELDS + len(_GENRES)}")
    match = _TITLE.match(cells[1])
    title, year = (match["title"], match["year"]) if match else (cells[1], "")
    genres = " ".join(genre for genre, flag in zip(_GENRES, cells[_FIELDS:], strict=True) if flag == "1")
    return "\t".join([cells[0], title, year, genres])
