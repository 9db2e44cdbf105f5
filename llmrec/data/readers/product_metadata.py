"""Cleans product metadata: category paths, brands, and titles for products that have none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from llmrec.data.catalog import TITLE_LIMIT, Item, Value, clean_text
from llmrec.data.readers.markup import plain_text

_NAMES = ("brand", "store")  # must be text; lists of brands are ignored
_TEXT = ("title", "text_id", "description", "feature", "features")
_LISTS = ("categories", "category")
_NOBODY = ("", "unknown", "none", "n/a", "unbranded")


def parse_categories(paths: object) -> tuple[str, ...]:
    """Return the names on category paths, broad ones first, each once, without the root of each path (the department).

    Args:
        paths: a list of paths (lists of names), or one path as a list of names; anything else gives no names.
    """
    if not isinstance(paths, list):
        return ()
    lists = paths if any(isinstance(one, list) for one in paths) else [paths]
    names = (plain_text(name) for one in lists if isinstance(one, list) for name in (one[1:] if len(one) > 1 else one))
    return tuple(dict.fromkeys(name for name in names if name))


def parse_brand(raw: object) -> str:
    """Return a brand as plain text; "" for none and for words such as `unknown` or `n/a`."""
    brand = plain_text(raw) if isinstance(raw, str) else ""
    return "" if brand.casefold() in _NOBODY else brand


def fallback_title(id: str, attributes: Mapping[str, Value]) -> str:
    """Return a title for an item without one: brand and narrowest category with the id, else `Item <id>`."""
    categories = attributes.get("category", ())
    words = [attributes.get("brand", ""), categories[-1] if isinstance(categories, tuple) and categories else ""]
    name = clean_text(" ".join(str(word) for word in words if word), TITLE_LIMIT - len(id) - 3)
    return f"{name} ({id})" if name else f"Item {id}"


def count_malformed(record: Mapping[str, object]) -> int:
    """Return how many fields of a product do not hold the expected text or list; such fields are ignored."""
    names = sum(not isinstance(record.get(name), str | None) for name in _NAMES)
    texts = sum(not isinstance(record.get(name), str | list | None) for name in _TEXT)
    return names + texts + sum(not isinstance(record.get(name), list | None) for name in _LISTS)


def common_root(items: Sequence[Item]) -> str:
    """Return the category that at least 95 % of all lists begin with, which says little about an item; "" for none."""
    firsts = Counter(
        plain_text(value[0])
        for item in items
        for name, value in item.attributes.items()
        if name in _LISTS and isinstance(value, tuple) and value
    )
    root, times = firsts.most_common(1)[0] if firsts else ("", 0)
    return root if times >= 0.95 * firsts.total() else ""


def clean_product(item: Item, root: str = "") -> tuple[Item, bool]:
    """Clean an item of a typed table by the rules for product metadata; also return whether it has a title of its own.

    Args:
        item: the item as read.
        root: the category to remove where it is the first of several, see `common_root`.
    """
    attributes: dict[str, Value] = {}
    for name, value in item.attributes.items():
        if name in _LISTS and isinstance(value, tuple):
            path = [plain_text(name) for name in value]
            if names := tuple(dict.fromkeys(one for one in path[len(path) > 1 and path[0] == root :] if one)):
                attributes["category"] = names
        elif name == "brand":
            if brand := parse_brand(value):
                attributes[name] = brand
        else:
            attributes[name] = value
    title = "" if item.title == item.id else clean_text(plain_text(item.title), TITLE_LIMIT)
    return Item(item.id, title or fallback_title(item.id, attributes), plain_text(item.text), attributes), bool(title)
