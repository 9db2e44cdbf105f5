"""Parses the message of a request; shared by the chat, the endpoints, batch jobs and the Python API."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.constraints import relax
from llmrec.data.filters import Filters, Mask
from llmrec.data.requests import MAX_K, Request
from llmrec.dialogue.responses import no_request_notice, shortfall_notices
from llmrec.dialogue.state_tracking import update_profile
from llmrec.nlu.parser import Intent, parse_message
from llmrec.nlu.state import Profile, Session


@dataclass(frozen=True)
class ParsedRequest:
    """A request whose message has been parsed.

    Attributes:
        request: the request, with `parsed` set.
        notices: sentences on what was relaxed, unknown or not found.
    """

    request: Request
    notices: tuple[str, ...] = ()


def parse_request(request: Request, catalog: Catalog, most: int = MAX_K) -> ParsedRequest:
    """Parse the message of a request, as the chat parses the first message of a visitor with that history.

    If no allowed item satisfies all constraints that the message asks for, they are relaxed one at a time, and a notice
    says so. Its exclusions and the request's own filters always hold. A number of items in the message replaces k.

    Args:
        request: returned unchanged if it has been parsed already.
        catalog: the catalogue that the message is about.
        most: the longest list that the message may ask for.

    Raises:
        RequestError: a filter names an unknown attribute or value.
    """
    if request.parsed or not request.message:
        return ParsedRequest(replace(request, parsed=True))
    intent = _parse_standalone(request.message, catalog)
    profile = update_profile(Profile(history=request.history), intent)
    found, dropped = build_request(profile, catalog, replace(request, k=min(profile.k, most) or request.k))
    notices = intent.notes
    if intent.kind in {"empty", "outside", "smalltalk", "undo"}:
        notices = (*notices, no_request_notice(catalog))
    nothing = not _allowed(found, catalog).any()
    return ParsedRequest(
        found, (*notices, *shortfall_notices(catalog, profile, (), dropped, found.k if nothing else 0))
    )


def build_request(profile: Profile, catalog: Catalog, base: Request) -> tuple[Request, tuple[str, ...]]:
    """Return the request for a profile, and the labels of the constraints that were relaxed.

    Args:
        profile: its required values may be relaxed; its exclusions always hold.
        catalog: the catalogue that the profile refers to.
        base: k, candidates, filters and exclusions that also hold.
    """
    known = profile if base.unseen else replace(profile, history=())
    hidden = tuple(dict.fromkeys((*base.exclude, *catalog.same_label_rows(known.hidden))))
    open_ = replace(base, exclude=hidden, history=profile.known)
    wanted, dropped = relax(catalog, profile.filters, _allowed(open_, catalog))
    filters, candidates = _combine_filters(base, wanted, catalog)
    found = replace(open_, message=profile.wish, filters=filters, candidates=candidates, parsed=True)
    return found, dropped


def _combine_filters(base: Request, wanted: Filters, catalog: Catalog) -> tuple[Filters, tuple[int, ...] | None]:
    """Return the filters of the request and of the message combined, and the candidates.

    If both have alternatives (`any_of`) for the same attribute, one Filters cannot hold both: the request's own filters
    then restrict the candidates instead.
    """
    own = base.filters
    if own.empty:
        return wanted, base.candidates
    if set(own.any_of) & set(wanted.any_of):
        left = catalog.where(own)
        if base.candidates is not None:
            left = left & _only(base.candidates, len(catalog))
        return wanted, tuple(int(row) for row in np.flatnonzero(left))
    return own.intersect(wanted), base.candidates


def _allowed(request: Request, catalog: Catalog) -> Mask:
    mask = catalog.where(request.filters).copy()
    if request.candidates is not None:
        mask &= _only(request.candidates, len(catalog))
    mask[list((*request.exclude, *(request.history if request.unseen else ())))] = False
    return mask


def _only(rows: tuple[int, ...], n: int) -> Mask:
    mask = np.zeros(n, bool)
    mask[list(rows)] = True
    return mask


@lru_cache(maxsize=4096)
def _parse_standalone(message: str, catalog: Catalog) -> Intent:
    return parse_message(message, catalog, Session(""))
