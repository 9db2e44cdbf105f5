"""Turns feedback into preference pairs with the columns of preference training (`prompt`, `chosen`, `rejected`).

There are two rules, both within one displayed list. A liked item is preferred to a disliked one. It is also preferred
to an item above it that got no reaction, since lists are read from the top ("click > skip above": T. Joachims, KDD
2002).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from llmrec.app.server.feedback import Reaction
from llmrec.data.catalog import Catalog
from llmrec.errors import RequestError


@dataclass(frozen=True)
class PreferencePair:
    """A preference for one item over another.

    Attributes:
        visitor: pseudonym of the visitor.
        prompt: the context as text: the items liked before, and the message if it was kept.
        chosen, rejected: the items, by title and year if the catalogue is known, otherwise by id.
        chosen_item, rejected_item: their ids.
        liked_items: ids of the items liked before, oldest first.
        message: the message, or "".
        why: why the item is rejected: "disliked" or "skipped".
    """

    visitor: str
    prompt: str
    chosen: str
    rejected: str
    chosen_item: str
    rejected_item: str
    liked_items: tuple[str, ...]
    message: str
    why: str

    def values(self) -> dict[str, object]:
        """Return plain values, one row of the export."""
        return asdict(self)


@dataclass(frozen=True)
class _Like:
    """A like that was not taken back, with the displayed list, the items liked before and the message."""

    item: str
    shown: tuple[str, ...]
    before: tuple[str, ...]
    message: str


def preference_pairs(found: Iterable[Reaction], catalog: Catalog | None = None) -> Iterator[PreferencePair]:
    """Yield every preference once, visitor by visitor; reactions that were taken back are ignored.

    Args:
        found: all reactions, oldest first.
        catalog: catalogue for the titles; None writes ids instead.
    """
    by_visitor: dict[str, list[Reaction]] = {}
    for one in found:
        by_visitor.setdefault(one.visitor, []).append(one)
    for visitor, own in by_visitor.items():
        final = {one.item: one.reaction for one in own if one.reaction != "more"}
        touched = {one.item for one in own}
        told = set[tuple[str, str]]()
        for like in _likes(own, final):
            place = like.shown.index(like.item) if like.item in like.shown else 0
            disliked = [(item, "disliked") for item in _beside(own, like) if final.get(item) == "dislike"]
            skipped = [(item, "skipped") for item in like.shown[:place] if item not in touched]
            for item, why in (*disliked, *skipped):
                if item != like.item and (like.item, item) not in told:
                    told.add((like.item, item))
                    yield _pair(visitor, like, item, why, catalog)


def why_no_pairs(found: Sequence[Reaction]) -> str:
    """Explain why `preference_pairs` yields nothing for these reactions."""
    if not found:
        return "the file holds no reactions yet"
    final = {(one.visitor, one.item): one.reaction for one in found if one.reaction != "more"}
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(Counter(one.reaction for one in found).items()))
    held = f"the {len(found)} reactions ({kinds}) hold"
    liked = [one for one in found if one.reaction == "like" and final[one.visitor, one.item] == "like"]
    if not liked:
        taken = any(one.reaction == "like" for one in found)
        return f"{held} no like{' that was not taken back' if taken else ''}, and a pair needs one"
    if not any(one.item in one.shown for one in liked):
        return f"{held} likes of items that stood in no list, and a pair compares two items of one list"
    return (
        f"{held} no like with a dislike in the same list, and none with an item above it that was passed over without "
        "a reaction"
    )


def _likes(own: Iterable[Reaction], final: dict[str, str]) -> Iterator[_Like]:
    liked: list[str] = []
    for one in own:
        if one.reaction == "like" and final.get(one.item) == "like" and one.item not in liked:
            yield _Like(one.item, one.shown, tuple(liked), one.words or "")
            liked.append(one.item)


def _beside(own: Iterable[Reaction], like: _Like) -> list[str]:
    """Return the items of all lists that held the liked item when the visitor reacted to an item."""
    lists = [one.shown for one in own if like.item in one.shown]
    return list(dict.fromkeys(item for shown in lists for item in shown))


def _pair(visitor: str, like: _Like, rejected: str, why: str, catalog: Catalog | None) -> PreferencePair:
    known = f"I liked {'; '.join(_name(item, catalog) for item in like.before)}." if like.before else ""
    return PreferencePair(
        visitor=visitor,
        prompt=" ".join(part for part in (known, like.message) if part) or "What would you recommend?",
        chosen=_name(like.item, catalog),
        rejected=_name(rejected, catalog),
        chosen_item=like.item,
        rejected_item=rejected,
        liked_items=like.before,
        message=like.message,
        why=why,
    )


def _name(item: str, catalog: Catalog | None) -> str:
    if catalog is None:
        return item
    try:
        return catalog.label(catalog.row(item))
    except RequestError:
        return item  # removed from the catalogue since: the preference still counts
