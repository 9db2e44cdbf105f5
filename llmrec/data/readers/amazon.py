"""Reads Amazon reviews with their product metadata: the files of 2014, 2018 and 2023, one JSON object per line.

McAuley et al. 2015 and He and McAuley 2016 (2014 files), Ni et al. 2019 (2018), Hou et al. 2024 (2023);
https://amazon-reviews-2023.github.io. The releases differ only in the names of their fields. The metadata of 2014 was
published as Python dictionaries; they are parsed as literals and never executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmrec.data.catalog import TITLE_LIMIT, Catalog, Item, Value, clean_text
from llmrec.data.ids import IdVariants
from llmrec.data.interactions import Interactions
from llmrec.data.readers.assembly import DEFAULT_RULES, JoinRules, assemble
from llmrec.data.readers.common import Event, Report, has_ending, parse_id, parse_timestamp, read_json_lines
from llmrec.data.readers.markup import plain_text
from llmrec.data.readers.product_metadata import count_malformed, fallback_title, parse_brand, parse_categories
from llmrec.errors import DataError

_ENDS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_META = "meta_"
_PRICE = re.compile(r"\$?\s*(\d{1,7}(?:,\d{3})*(?:\.\d{1,2})?)", re.ASCII)
_TEXT = 1000  # characters of a description; the rest is advertisement, and a sentence encoder reads no further
_SCRIPT = "getTime"  # marks titles of 2018 that were scraped from the page's scripts


@dataclass(frozen=True)
class Product:
    """A metadata record as read: the item, whether it has a title of its own, and its number of unreadable fields."""

    item: Item
    titled: bool
    unread: int  # fields of an unexpected type


def read_amazon(path: Path, rules: JoinRules = DEFAULT_RULES) -> tuple[Catalog, Interactions, Report]:
    """Read one pair of files `X.json` (reviews) and `meta_X.json` (products).

    The catalogue holds only products with reviews, because the metadata files list whole departments. A reviewed
    product without a record is kept under the title `Item <id>`. If a product has several records, the first one is
    used.

    Args:
        path: a directory with one pair, or the file of reviews with its metadata beside it.
        rules: see `JoinRules`.

    Raises:
        DataError: no such pair, or an invalid line; the message names file and line.
    """
    reviews, metadata = find_reviews(path)
    wanted = dict.fromkeys(event.item for event in _events(reviews))
    if not wanted:
        raise DataError(f"{reviews}: no reviews in it")
    found: dict[str, Product] = {}
    others, again, renamed = 0, 0, 0
    forms = IdVariants([] if rules.exact_ids else wanted)
    for product in _products(metadata):
        id = product.item.id
        if id not in wanted and (meant := forms.unique_variant(id)):
            id, renamed = meant, renamed + 1
        others += id not in wanted
        again += id in found
        if id in wanted and id not in found:
            found[id] = replace(product, item=replace(product.item, id=id))
    if not found:
        missing = f"e.g. product {next(iter(wanted))[:60]!r} is missing"
        raise DataError(f"{metadata}: none of its products is in {reviews.name}; {missing}")
    items = [found[id].item if id in found else Item(id, f"Item {id}", "", {}) for id in wanted]
    notes = _notes(len(wanted) - len(found), list(found.values()))
    if renamed:
        notes = (*notes, f"{renamed} products have their id in another form than the reviews: read as theirs")
    dropped = {"product without a review": others, "repeated product": again}
    return assemble(items, _events(reviews), "products", notes, dropped, str(reviews), rules=rules)


def _notes(missing: int, found: Sequence[Product]) -> tuple[str, ...]:
    untitled, odd = sum(not one.titled for one in found), sum(one.unread for one in found)
    notes = []
    if missing:
        notes.append(f"{missing} reviewed products have no metadata: kept, titled by their id")
    if untitled:
        notes.append(f"{untitled} products have no title: named by brand and narrowest category")
    if odd:
        notes.append(f"{odd} fields of products hold neither text nor a list where one should be: left out")
    return tuple(notes)


def find_reviews(path: Path) -> tuple[Path, Path]:
    """Return the file of reviews and the file of metadata.

    Raises:
        DataError: there is not exactly one of each.
    """
    folder = path if path.is_dir() else path.parent
    files = sorted(one for one in folder.iterdir() if has_ending(one, _ENDS)) if folder.is_dir() else []
    reviews = [one for one in files if not one.name.startswith(_META)] if path.is_dir() else [path]
    metadata = [one for one in files if one.name.startswith(_META)]
    if not path.is_dir() and len(metadata) > 1:
        stem = _subject(path)
        metadata = [one for one in metadata if _subject(one) == stem]
    for kind, these in (("file of reviews X.json", reviews), ("file of products meta_X.json", metadata)):
        if len(these) != 1 or not these[0].is_file():
            names = ", ".join(one.name for one in these if one.is_file())[:200] or "none"
            raise DataError(f"{folder} should hold one {kind} (.jsonl and .gz are fine); found: {names}")
    return reviews[0], metadata[0]


def _subject(path: Path) -> str:
    """Return the department: `Video_Games` for `reviews_Video_Games_5.json.gz` and for `meta_Video_Games.json.gz`."""
    name = path.name.split(".")[0].removeprefix(_META).removeprefix("reviews_")
    return re.sub(r"_5$", "", name)


def _first(record: Mapping[str, Any], *names: str) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _events(path: Path) -> Iterator[Event]:
    """Yield reviews; products of 2023 are identified by their parent, which covers all colours and sizes."""
    for where, record in read_json_lines(path):
        user = _id(_first(record, "reviewerID", "user_id"), f"{where}, reviewerID or user_id")
        item = _id(_first(record, "parent_asin", "asin"), f"{where}, asin or parent_asin")
        stamp = _number(_first(record, "unixReviewTime", "timestamp"), f"{where}, unixReviewTime or timestamp")
        value = _number(_first(record, "overall", "rating"), f"{where}, overall or rating")
        yield Event(user, item, parse_timestamp(repr(stamp), f"{where}, unixReviewTime or timestamp"), float(value))


def _id(raw: object, where: str) -> str:
    if not isinstance(raw, str):
        raise DataError(f"{where}: {raw!r:.60} should be an id, in quotation marks")
    return parse_id(raw, f"{where}:")


def _number(raw: object, where: str) -> int | float:
    """Return a time or rating that is a finite number below 2**62; raises DataError for anything else."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not abs(raw) < 2**62:
        raise DataError(f"{where}: {raw!r:.60} should be a number")
    return raw


def _products(path: Path) -> Iterator[Product]:
    for where, record in read_json_lines(path, literals=True):
        id = _id(_first(record, "parent_asin", "asin"), f"{where}, asin or parent_asin")
        attributes: dict[str, Value] = {}
        if categories := parse_categories(_first(record, "categories", "category")):
            attributes["category"] = categories
        if brand := parse_brand(_first(record, "brand", "store")):
            attributes["brand"] = brand
        if (price := _price(record.get("price"))) is not None:
            attributes["price"] = price
        raw = record.get("title")
        title = "" if isinstance(raw, str) and _SCRIPT in raw else clean_text(plain_text(raw), TITLE_LIMIT)
        text = (
            plain_text(record.get("description"))
            or plain_text(record.get("feature"))
            or plain_text(record.get("features"))
        )
        named = title or fallback_title(id, attributes)
        yield Product(Item(id, named, text[:_TEXT], attributes), bool(title), count_malformed(record))


def _price(raw: object) -> float | None:
    """Return a price in dollars from a number or text such as `$12.99`; None for ranges and scraped page code."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw) if 0 <= raw < 1e7 else None
    match = _PRICE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    return float(match[1].replace(",", "")) if match else None
