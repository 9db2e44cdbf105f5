"""Grounding metrics of one request: the list is checked against the request, the reply against the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.eval.chat_client import Reply
from llmrec.eval.grounding import base_model
from llmrec.eval.grounding.requests import Demand
from llmrec.eval.grounding.text import TextCheck

SHOWN = 10


@dataclass(frozen=True)
class GroundingValue:
    """One measure of one request."""

    system: str
    level: int
    user: int
    metric: str
    value: float


def list_values(catalog: Catalog, demand: Demand, rows: Sequence[int]) -> dict[str, float]:
    """Existence, uniqueness and constraints of one list of rows; an empty list satisfies nothing."""
    exists = [0 <= row < len(catalog) and catalog.row(catalog[row].id) == row for row in rows]
    values = {
        "answered": float(bool(rows)),
        "satisfied": satisfied_share(catalog, demand, rows),
        "all_satisfied": float(bool(rows) and satisfied_share(catalog, demand, rows) == 1.0),
        "as_many_as_fit": min(1.0, len(rows) / min(SHOWN, demand.fits)),
        "repeated_or_known": float(len(set(rows)) < len(rows) or bool({*rows} & {*demand.history, demand.like})),
    }
    if rows:
        values["exists"] = float(np.mean(exists))
    if demand.like >= 0 and rows and all(exists):
        mine = _values_of(catalog, demand.like)
        values["shares_a_value_with_the_named"] = float(np.mean([bool(mine & _values_of(catalog, r)) for r in rows]))
    return values


def wrong_reasons(check: TextCheck, demand: Demand, reply: Reply) -> list[str]:
    """Statements in the reasons beside the items that neither the catalogue nor the user's own items support."""
    known = [*demand.history, *([demand.like] if demand.like >= 0 else [])]
    return [wrong for item in reply.items for wrong in _reason(check, item.row, item.reason, known)]


def text_values(check: TextCheck, demand: Demand, reply: Reply) -> dict[str, float]:
    """Count titles and claims in one reply: the program's sentence, the reasons, and the model's text if any."""
    known = [*demand.history, *([demand.like] if demand.like >= 0 else [])]
    values = {
        "off_list_titles_in_the_first_sentence": float(len(check.findings(reply.facts, reply.rows, known).off_list)),
        "wrong_claims_in_reasons": float(len(wrong_reasons(check, demand, reply))),
    }
    if reply.words:
        found = check.findings(reply.words, reply.rows)
        values |= {
            "titles_in_words": float(found.titles),
            "off_list_titles": float(len(found.off_list)),
            "off_catalogue_titles": float(len(found.off_catalogue)),
            "claims_in_words": float(found.claims),
            "contradicted_claims": float(len(found.contradicted)),
        }
    return values


def _reason(check: TextCheck, row: int, reason: str, known: Sequence[int]) -> list[str]:
    """Find errors in `Comedy, as you asked; goes with Heat (1995), both Crime`, about the item and about both."""
    wrong: list[str] = []
    for part in reason.split("; "):
        found = check.findings(part, [row], known)
        wrong += [*found.off_list, *found.contradicted]
        wrong += check.findings(part.rpartition(", both ")[2], [row]).contradicted if ", both " in part else []
    return wrong


def base_values(
    catalog: Catalog, level: int, demand: Demand, listed: base_model.LinkedTitles
) -> Iterator[GroundingValue]:
    """The same measures for the base model's list; a title that does not exist satisfies nothing."""
    found = [row for row in listed.rows if row >= 0]
    met = [row >= 0 and row not in demand.history and demand.satisfied(catalog[row]) for row in listed.rows]
    values = {"answered": float(bool(listed.titles)), "titles": float(len(listed.titles))}
    values["satisfied"] = float(np.mean(met)) if met else 0.0
    values["all_satisfied"] = float(bool(met) and all(met))
    if listed.titles:
        values["exists"] = len(found) / len(listed.titles)
        values["off_catalogue_titles"] = float(len(listed.titles) - len(found))
        values["known"] = sum(row in demand.history for row in found) / len(listed.titles)
    return (GroundingValue("base", level, demand.user, metric, value) for metric, value in values.items())


def satisfied_share(catalog: Catalog, demand: Demand, rows: Sequence[int]) -> float:
    """Share of the rows that exist and satisfy every constraint; 0 without rows."""
    met = [0 <= row < len(catalog) and demand.satisfied(catalog[row]) for row in rows]
    return float(np.mean(met)) if met else 0.0


def _values_of(catalog: Catalog, row: int) -> set[str]:
    return {value for values in catalog[row].attributes.values() if isinstance(values, tuple) for value in values}
