"""Requests in other people's words: tags that MovieLens users gave to films, as search requests with known answers."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmrec.data.catalog import Catalog
from llmrec.data.titles import display_title, title_key
from llmrec.errors import DataError
from llmrec.eval.crs.redial import find
from llmrec.eval.knowledge.film_labels import label_keys, title_forms

_LABEL = re.compile(r"(?P<title>.*)\((?P<year>\d{4})\)\s*")
_LINE = 10_000


def tag_requests(directory: Path, catalog: Catalog) -> dict[str, frozenset[int]]:
    """Return tag -> rows with that tag, for tags that are neither a genre nor a title of the catalogue.

    Films are matched by title and year. `directory` holds MovieLens' `movies.csv` and `tags.csv`, plain or gzipped.

    Raises:
        DataError: a file is missing or has other columns.
    """
    rows = _rows_by_label(catalog)
    films = {}
    for line in _read(directory, "movies.csv", ("movieId", "title")):
        label = _LABEL.fullmatch(line["title"])
        if label:
            keys = (title_key(display_title(name.strip())) for name in title_forms(label["title"]))
            found = next((rows[key, int(label["year"])] for key in keys if (key, int(label["year"])) in rows), None)
            if found is not None:
                films[line["movieId"]] = found
    tagged: dict[str, set[int]] = {}
    for line in _read(directory, "tags.csv", ("movieId", "tag")):
        if line["movieId"] in films:
            tagged.setdefault(" ".join(line["tag"].casefold().split()), set()).add(films[line["movieId"]])
    known = {title_key(item.title) for item in catalog.items}
    if "genre" in catalog.attribute_names:
        known |= {title_key(value) for value in catalog.values("genre")}
    return {tag: frozenset(rows) for tag, rows in sorted(tagged.items()) if title_key(tag) not in known}


def _rows_by_label(catalog: Catalog) -> Mapping[tuple[str, int], int]:
    rows: dict[tuple[str, int], int] = {}
    for row, item in enumerate(catalog.items):
        for key in label_keys(item):
            rows.setdefault(key, row)
    return rows


def _read(directory: Path, name: str, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    path = find(directory, (name,))
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise DataError(f"{path} has the columns {reader.fieldnames}; it needs {', '.join(columns)}")
            for line in reader:
                yield {column: (line[column] or "")[:_LINE] for column in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {str(error)[:100]}") from None
