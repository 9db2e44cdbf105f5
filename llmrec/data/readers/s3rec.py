"""Reads sequence files in the format of S3-Rec, in which TIGER and its successors publish the Amazon 5-core data sets.

A line of `X.sequences.txt` holds a user and that user's items, oldest first, separated by spaces. There are no times,
so the position in the line is used instead. The items are in a file beside it, `X.items.jsonl` (one object per line:
id, title, categories, brand) or `X.item.tsv` with RecBole's header. All files may be packed as `.gz`.

Zhou et al., S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual Information Maximization, CIKM
2020, https://arxiv.org/abs/2008.07873.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from llmrec.data.catalog import TITLE_LIMIT, Catalog, Item, Value, clean_text
from llmrec.data.ids import IdVariants
from llmrec.data.interactions import Interactions
from llmrec.data.readers.assembly import DEFAULT_RULES, JoinRules, assemble
from llmrec.data.readers.common import Event, Report, has_ending, parse_id, read_json_lines, read_lines
from llmrec.data.readers.markup import plain_text
from llmrec.data.readers.product_metadata import (
    clean_product,
    common_root,
    count_malformed,
    fallback_title,
    parse_brand,
    parse_categories,
)
from llmrec.data.readers.recbole import read_items
from llmrec.errors import DataError

_SEQUENCES = (".sequences.txt", ".sequences.txt.gz")
_ITEMS = (".items.jsonl", ".items.jsonl.gz", ".item.tsv", ".item.tsv.gz", ".items.tsv", ".items.tsv.gz")
_SHOWN = 3  # ids named in a remark
_GAPS = re.compile(r"[ \t]+")  # no other white space separates ids: a CR or form feed would silently join two lines


def read_s3rec(path: Path, rules: JoinRules = DEFAULT_RULES) -> tuple[Catalog, Interactions, Report]:
    """Read one set of sequences with its items.

    An id that occurs in the sequences but has no record stays in the catalogue under the title `Item <id>`. A record
    without a title is named by its short text, else by its brand and narrowest category. Dropping either would change
    the protocol behind published numbers. An item that occurs twice in a line is kept as two interactions. If a user
    has several lines, a repeated line is dropped, and any other line continues the sequence of the earlier one.

    Args:
        path: the sequence file, or a directory that holds one.
        rules: see `JoinRules`.

    Raises:
        DataError: no sequence file or several, no items beside it, or an invalid line; the message names file and line.
    """
    sequences, records = find_sequences(path)
    users, notes, dropped = _sequences(sequences)
    items, found = _items(records)
    forms = IdVariants([] if rules.exact_ids else list(items))
    named = dict.fromkeys(id for rows in users.values() for id in rows)
    missing = [id for id in named if id not in items and not forms.variants(id)]
    if missing and len(missing) == len(named):
        looks = f"e.g. item {missing[0][:60]!r}; the items' ids look like {next(iter(items))[:60]!r}"
        raise DataError(f"{sequences}: none of its ids has a record in {records.name}; {looks}")
    for id in missing:
        items[id] = Item(id, f"Item {id}", "", {})
    if missing:
        shown = ", ".join(missing[:_SHOWN])
        found.append(f"{len(missing)} ids of the sequences have no text (such as {shown}): kept, titled by their id")
    events = (Event(user, id, place, 1.0) for user, ids in users.items() for place, id in enumerate(ids))
    remarks = (*notes, *found, "the file has no times: the place in the line stands in")
    return assemble(list(items.values()), events, "products", remarks, dropped, str(sequences), rules=rules)


def find_sequences(path: Path) -> tuple[Path, Path]:
    """Return the sequence file at `path` and the file of its items.

    Raises:
        DataError: no sequence file or several, or no file of items beside it.
    """
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if has_ending(one, _SEQUENCES))
        if len(found) != 1:
            names = ", ".join(one.name for one in found) or "none"
            raise DataError(f"{path} should hold one X.sequences.txt, or name the file itself; found: {names}")
        path = found[0]
    end = next((end for end in _SEQUENCES if path.name.endswith(end)), None)
    if end is None or not path.is_file():
        raise DataError(f"{path} is not a file X.sequences.txt or X.sequences.txt.gz")
    stem = path.name.removesuffix(end)
    for candidate in (path.with_name(stem + one) for one in _ITEMS):
        if candidate.is_file():
            return path, candidate
    raise DataError(f"{path} has no items beside it; {stem}.items.jsonl or {stem}.item.tsv should be there")


def _sequences(path: Path) -> tuple[dict[str, list[str]], list[str], dict[str, int]]:
    """Return (user -> item ids, remarks, counts of what was dropped)."""
    users: dict[str, list[str]] = {}
    again, joined = 0, 0
    for number, text in read_lines(path):
        if not (line := text.strip(" \t")):
            continue
        where = f"{path}, line {number}"
        user, *ids = (parse_id(word, f"{where}: id") for word in _GAPS.split(line))
        if not ids:
            raise DataError(f"{where}: user {user!r} has no items; a line is a user and at least one item")
        known = users.get(user)
        if known is None:
            users[user] = ids
        elif known[-len(ids) :] == ids:
            again += len(ids)
        else:
            known.extend(ids)
            joined += 1
    twice = sum(len(ids) - len(set(ids)) for ids in users.values())
    notes = []
    if joined:
        notes.append(f"{joined} lines belong to users of an earlier line: joined in the order of the file")
    if twice:
        notes.append(f"{twice} interactions repeat an item of the same user: kept")
    return users, notes, {"repeated line of a user": again}


def _items(path: Path) -> tuple[dict[str, Item], list[str]]:
    """Return (id -> item in the order of the file, remarks)."""
    table = path.name.removesuffix(".gz").endswith(".tsv")
    found = _rows(list(read_items(path))) if table else _records(path)
    items: dict[str, Item] = {}
    untitled, odd = 0, 0
    for item, titled, strange in found:
        items[item.id] = item
        untitled += not titled
        odd += strange
    if not items:
        raise DataError(f"{path}: no items in it")
    notes = []
    if untitled:
        notes.append(f"{untitled} items have no title: named by their short text, or by brand and narrowest category")
    if odd:
        notes.append(f"{odd} fields of items hold neither text nor a list where one should be: left out")
    return items, notes


def _rows(items: list[Item]) -> Iterator[tuple[Item, bool, int]]:
    """Yield what `_records` yields, for the items of a typed table."""
    root = common_root(items)
    yield from ((*clean_product(item, root), 0) for item in items)


def _records(path: Path) -> Iterator[tuple[Item, bool, int]]:
    """Yield (item, whether it has a title of its own, how many of its fields could not be read)."""
    seen: dict[str, str] = {}
    for where, record in read_json_lines(path):
        raw = record.get("id")
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            raise DataError(f"{where}: id {raw!r:.60} should be a number or a word")
        id = parse_id(raw, f"{where}: id")
        if id in seen:
            raise DataError(f"{where}: item id {id!r} occurs twice, first in {seen[id]}; ids must be unique")
        seen[id] = where.rpartition(", ")[2]
        attributes: dict[str, Value] = {}
        if categories := parse_categories(record.get("categories")):
            attributes["category"] = categories
        if brand := parse_brand(record.get("brand")):
            attributes["brand"] = brand
        title = clean_text(plain_text(record.get("title")), TITLE_LIMIT)
        text = plain_text(record.get("description"))
        named = title or clean_text(plain_text(record.get("text_id")), TITLE_LIMIT) or fallback_title(id, attributes)
        yield Item(id, named, text, attributes), bool(title), count_malformed(record)
