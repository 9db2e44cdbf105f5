"""Reads ReDial (Li et al., 2018): conversations in which one person seeks films and another recommends some.

The directory holds the published files, plain or gzipped: the official test set, the available part of the training
set, and the films.
"""

from __future__ import annotations

import gzip
import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmrec.data.catalog import Catalog, Item, clean_text
from llmrec.data.titles import split_year
from llmrec.errors import DataError
from llmrec.eval.crs.data import RECOMMENDER, SEEKER, Corpus, Dialogue, Turn, merge_turns
from llmrec.nlu.opinions import opinion_on

PUBLISHED_TRAINING = 10_006  # dialogues of the official training file
TRAINING = ("train_data.jsonl", "train_pool_partial.jsonl")
TEST = ("test_data.jsonl", "test.jsonl")
FILMS = ("movie_info.json",)
_MENTION = re.compile(r"@(\d+)")
_LINE_CHARS = 1 << 22
_MESSAGE_CHARS = 4000


def read_redial(directory: Path) -> Corpus:
    """Read the benchmark.

    The catalogue holds every film of `movie_info.json` and every other film that a dialogue names, with its title
    there. Annotations of whether a film was liked, which people made after the conversation, are not read.

    Raises:
        DataError: a file is missing or malformed; names file and line.
    """
    films = read_films(find(directory, FILMS))
    train, test = (list(_records(find(directory, names))) for names in (TRAINING, TEST))
    for record in (*train, *test):
        for number, title in _mentions(record).items():
            films.setdefault(number, _named(number, title))
    catalog = Catalog([films[number] for number in sorted(films, key=int)], domain="films")
    share = len(train) / PUBLISHED_TRAINING
    available = (
        f"{len(train)} of the {PUBLISHED_TRAINING} official training dialogues ({share:.0%}); "
        f"{len(test)} test dialogues, the official test set holds 1342"
    )
    learnt, asked = (tuple(_dialogue(one, catalog) for one in part) for part in (train, test))
    return Corpus("redial", catalog, learnt, asked, available)


def find(directory: Path, names: tuple[str, ...]) -> Path:
    """Return the first of these files that exists in a directory, plain or gzipped.

    Raises:
        DataError: none of them exists.
    """
    for name in names:
        for path in (directory / name, directory / f"{name}.gz"):
            if path.is_file():
                return path
    raise DataError(f"{directory} holds no {' or '.join(names)}, plain or .gz; --data-dir is where the data set lies")


def opened(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line) of a UTF-8 text, gzipped or not.

    Raises:
        DataError: the file is not UTF-8 text, or a line is over 4 MiB.
    """
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="\n") as handle:
            while line := handle.readline(_LINE_CHARS + 1):
                number += 1
                if len(line) > _LINE_CHARS:
                    raise DataError(f"{path}, line {number}: longer than {_LINE_CHARS} characters")
                yield number, line.rstrip("\r\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}, line {number + 1} cannot be read: {error}") from None


def read_films(path: Path) -> dict[str, Item]:
    """Read the films of `movie_info.json`, by number.

    Raises:
        DataError: the file is malformed.
    """
    text = "\n".join(line for _, line in opened(path))
    try:
        table = json.loads(text)
        return {str(int(number)): _film(str(int(number)), fields) for number, fields in table.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is not a table of films by number: {error!r}") from None


def _film(number: str, fields: Mapping[str, Any]) -> Item:
    named = _named(number, str(fields["name"]))
    lists = {key: tuple(str(one) for one in fields.get(key) or ()) for key in ("genre", "director", "star")}
    return Item(number, named.title, str(fields.get("plot") or ""), {**named.attributes, **lists})


def _named(number: str, name: str) -> Item:
    title, year = split_year(clean_text(html.unescape(name), 300))
    return Item(number, title or f"film {number}", "", {} if year is None else {"year": year})


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in opened(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            _ = record["conversationId"], record["messages"], _mentions(record)
            _ = [(m["text"], m["senderWorkerId"]) for m in record["messages"]], record["respondentWorkerId"]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path}, line {number}: not a dialogue of ReDial: {error!r}") from None
        yield record


def _mentions(record: Mapping[str, Any]) -> dict[str, str]:
    """Films named in a dialogue; the field is an empty list where there are none."""
    return {str(int(number)): str(title) for number, title in dict(record["movieMentions"] or {}).items()}


def _dialogue(record: Mapping[str, Any], catalog: Catalog) -> Dialogue:
    titles = {number: catalog.row(number) for number in _mentions(record)}
    turns = []
    for message in record["messages"]:
        speaker = RECOMMENDER if message["senderWorkerId"] == record["respondentWorkerId"] else SEEKER
        turns.append(_turn(speaker, html.unescape(str(message["text"])), titles, catalog))
    return Dialogue(str(record["conversationId"]), int(record["conversationId"]), merge_turns(turns))


def _turn(speaker: str, raw: str, films: Mapping[str, int], catalog: Catalog) -> Turn:
    """Parse a message; a mention is `@` and a number of `films`, and other such marks are dropped."""
    pieces, rows, disliked = [""], list[int](), list[int]()
    lower = raw.casefold() if len(raw.casefold()) == len(raw) else raw
    end = 0
    for found in _MENTION.finditer(raw):
        row = films.get(found[1])
        pieces += [raw[end : found.start()], " " if row is None else catalog.label(row)]
        end = found.end()
        if row is not None:
            rows.append(row)
            disliked += [row] if opinion_on(lower, found.start(), found.end()) == "dislike" else []
    text = clean_text("".join([*pieces, raw[end:]]), _MESSAGE_CHARS)
    words = clean_text(_MENTION.sub(" ", raw), _MESSAGE_CHARS)
    return Turn(speaker, words, text, tuple(dict.fromkeys(rows)), tuple(dict.fromkeys(disliked)))
