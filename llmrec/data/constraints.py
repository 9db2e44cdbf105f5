"""Splits filters into single constraints, removes them, and relaxes them when no item fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from llmrec.data.attribute_types import INTENSITIES, SAFETY, format_number
from llmrec.data.catalog import Catalog
from llmrec.data.filters import Filters, Mask, Range, ValuesByAttribute, share_attribute

FilterPart = Literal["any_of", "all_of", "none_of", "ranges"]


@dataclass(frozen=True)
class Constraint:
    """One removable part of a `Filters`; `key` identifies it, and `label` describes it to people."""

    key: str
    label: str
    part: FilterPart
    attribute: str
    value: str = ""

    @property
    def excludes(self) -> bool:
        """Whether the constraint excludes values instead of requiring them."""
        return self.part == "none_of"


def constraints(filters: Filters) -> tuple[Constraint, ...]:
    """Return the single constraints of `filters`; a group of alternatives is one constraint."""
    found = [_part("any_of", name, " or ".join(values)) for name, values in filters.any_of.items() if values]
    found += [_part("all_of", name, value, value) for name, values in filters.all_of.items() for value in values]
    found += [
        _part("ranges", name, format_range(name, bound))
        for name, bound in filters.ranges.items()
        if bound != (None, None)
    ]
    found += [
        _part("none_of", name, f"no {value}", value) for name, values in filters.none_of.items() for value in values
    ]
    return tuple(found)


def remove_constraint(filters: Filters, key: str) -> Filters:
    """Return `filters` without the constraint with this key; an unknown key changes nothing."""
    for one in constraints(filters):
        if one.key == key:
            if one.part == "ranges":
                return replace(filters, ranges={n: r for n, r in filters.ranges.items() if n != one.attribute})
            choice = _less(getattr(filters, one.part), one)
            return Filters(**{**_parts(filters), one.part: choice}, ranges=filters.ranges)
    return filters


def remove_value(filters: Filters, attribute: str, value: str) -> Filters:
    """Return `filters` without one value of an attribute, whether it was required or excluded."""
    parts = {
        part: {
            name: left
            for name, values in choice.items()
            if (
                left := tuple(
                    v for v in values if not share_attribute(name, attribute) or v.casefold() != value.casefold()
                )
            )
        }
        for part, choice in _parts(filters).items()
    }
    return Filters(**parts, ranges=filters.ranges)


def remove_wanted(filters: Filters, attribute: str) -> Filters:
    """Return `filters` without the requirements on one attribute; exclusions stay. `*` drops everything."""
    if attribute == "*":
        return Filters()
    return Filters(
        any_of={name: values for name, values in filters.any_of.items() if not share_attribute(name, attribute)},
        all_of={name: values for name, values in filters.all_of.items() if not share_attribute(name, attribute)},
        none_of=filters.none_of,
        ranges={name: bound for name, bound in filters.ranges.items() if name != attribute},
    )


def relax(catalog: Catalog, filters: Filters, allowed: Mask) -> tuple[Filters, tuple[str, ...]]:
    """Relax filters: drop required constraints one at a time until at least one allowed row matches.

    Each step drops the constraint whose removal lets in the most rows. Exclusions, and limits that protect people, are
    never dropped.

    Args:
        catalog: the catalogue that is filtered.
        filters: the filters to relax; they may match nothing.
        allowed: bool[n], the rows that may be shown at all.

    Returns:
        The relaxed filters and the labels of the dropped constraints, in the order in which they were dropped. When the
        constraints that always stay rule out every allowed row, the filters come back unchanged and match nothing.
    """
    given_up: list[str] = []
    kept = Filters(
        all_of={name: values for name, values in filters.all_of.items() if name in SAFETY},
        none_of=filters.none_of,
        ranges={name: bound for name, bound in filters.ranges.items() if name in SAFETY},
    )
    if not (catalog.where(kept) & allowed).any():
        return filters, ()
    while not (catalog.where(filters) & allowed).any():
        choices = [one for one in constraints(filters) if not one.excludes and one.attribute not in SAFETY]
        # on ties a range is dropped before a word: a western of another decade is closer than a film of another genre
        choices.sort(key=lambda one: one.part != "ranges")
        gains = [int((catalog.where(remove_constraint(filters, one.key)) & allowed).sum()) for one in choices]
        chosen = choices[max(range(len(choices)), key=lambda index: gains[index])]
        filters = remove_constraint(filters, chosen.key)
        given_up.append(chosen.label)
    return filters, tuple(given_up)


def format_range(attribute: str, bound: Range) -> str:
    """Format a range for people: two years joined by an en dash, `from 1990` or `up to 1979`.

    The attribute is named unless it is the year.
    """
    low, high = bound
    if attribute in INTENSITIES and low is None and high in (0, 1):
        return f"{'no' if high == 0 else 'little'} {attribute}"
    if low is not None and high is not None:
        words = format_number(low) if low == high else f"{format_number(low)}\N{EN DASH}{format_number(high)}"
    elif high is not None:
        words = f"up to {format_number(high)}"
    else:
        words = "any" if low is None else f"from {format_number(low)}"
    return words if attribute == "year" else f"{attribute.replace('_', ' ')} {words}"


def _part(part: FilterPart, attribute: str, label: str, value: str = "") -> Constraint:
    return Constraint(f"{part}|{attribute}|{value}", label, part, attribute, value)


def _parts(filters: Filters) -> dict[str, ValuesByAttribute]:
    return {"any_of": filters.any_of, "all_of": filters.all_of, "none_of": filters.none_of}


def _less(choice: ValuesByAttribute, one: Constraint) -> ValuesByAttribute:
    """Remove one value, or the whole attribute when the constraint is a group of alternatives."""
    left = {name: values for name, values in choice.items() if name != one.attribute}
    rest = tuple(value for value in choice[one.attribute] if value != one.value) if one.value else ()
    return {**left, one.attribute: rest} if rest else left
