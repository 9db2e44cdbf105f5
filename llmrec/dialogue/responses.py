"""Template responses, which state only what the catalogue, the profile and the active constraints say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llmrec.data.attribute_types import SAFETY, format_number
from llmrec.data.catalog import Catalog
from llmrec.data.constraints import constraints
from llmrec.data.filters import Filters
from llmrec.nlu.state import Profile
from llmrec.nlu.wording import end_sentence, join_words, singular, unique_words, with_article, with_count

if TYPE_CHECKING:
    from llmrec.data.requests import Recommendation
    from llmrec.nlu.parser import Intent

_NAMED = 3
_TEXT = 240


def item_count(catalog: Catalog, count: int) -> str:
    """Return `1 film`, `10 films`."""
    return with_count(count, catalog.domain)


def title_list(catalog: Catalog, rows: Sequence[int]) -> str:
    """Return up to three titles as an enumeration, and how many more there are."""
    names = [catalog[row].title for row in rows[:_NAMED]]
    if len(rows) > _NAMED:
        names.append(f"{len(rows) - _NAMED} more")
    return join_words(names)


def clarifying_question(catalog: Catalog, main: Sequence[str]) -> str:
    """Ask the one clarifying question, with examples from the catalogue."""
    one = with_article(singular(catalog.domain))
    if main:
        return f"What are you in the mood for? Name {one} you liked, or say for instance {join_words(main, 'or')}."
    return f"What are you looking for? Name {one} you liked, or describe what you want."


def smalltalk_reply(kind: str, topic: str, catalog: Catalog, main: Sequence[str]) -> str:
    """Reply to small talk and off-topic messages in a sentence or two."""
    things, ask = catalog.domain, clarifying_question(catalog, main)
    if kind == "outside" and topic == "language":
        return f"I only read English; tell me in English which {things} you liked or what you are in the mood for."
    if kind == "outside":
        hint = "tell me one you liked or what you are in the mood for"
        return f"I can only help you find {things} from this catalogue; {hint}."
    if kind == "empty":
        return f"I need a few words to go by. {ask}"
    answers = {
        "greeting": f"Hello! {ask}",
        "thanks": "You are welcome. Tell me if you want others, or use Like and Dislike to steer the next list.",
        "bye": "Goodbye, enjoy!",
        "mood": f"All well, thank you. {ask}",
        "about": f"I am a recommender program: I know the {len(catalog):,} {things} of this catalogue and "
        "suggest from those only.",
        "help": f"Tell me {things} you liked or disliked, what you want and what you do not, a time, or "
        "how many; "
        "then ask for something else, or why.",
        "ok": f"All right. {ask}",
        "reset": f"We start afresh. {ask}",
    }
    return answers.get(topic, ask)


def undo_reply(profile: Profile) -> str:
    """Say that the last exchange was taken back, and which constraints are active now."""
    labels = [one.label for one in constraints(profile.filters)]
    return f"I took that back; what holds now: {join_words(labels)}." if labels else "I took that back."


def list_introduction(
    catalog: Catalog,
    profile: Profile,
    intent: Intent,
    items: Sequence[Recommendation],
    used: Filters,
    main: Sequence[str],
) -> str:
    """Introduce a list: say which opinions were noted, and what the list is based on."""
    noted = []
    if intent.liked:
        noted.append(f"Noted: you like {title_list(catalog, intent.liked)}.")
    if intent.disliked:
        noted.append(f"I leave out {title_list(catalog, intent.disliked)} from now on.")
    if intent.seen:
        noted.append(f"You know {title_list(catalog, intent.seen)} already.")
    if not items:
        return " ".join([*noted, f"I have no {catalog.domain} left to show for this."])
    if profile.blank:
        ask = "" if profile.asked else f"{clarifying_question(catalog, main)} "
        some = with_count(len(items), catalog.domain, "popular")
        return " ".join(
            [
                *noted,
                f"{ask}{'Until then, here' if ask else 'Here'} {_be(len(items))} {some}.",
            ]
        )
    return " ".join([*noted, _describe_list(catalog, profile, intent, len(items), used)])


def _describe_list(catalog: Catalog, profile: Profile, intent: Intent, count: int, used: Filters) -> str:
    other = with_count(count, catalog.domain, "other" if intent.kind == "more" else "")
    labels = [one.label for one in constraints(used)]
    matching = f" ({', '.join(labels)})" if labels else ""
    opinions = [row for row in profile.liked if row not in intent.liked] + list(intent.liked)
    basis = ""
    if profile.wish:
        basis = " for what you describe"
    elif opinions:
        them = "it" if len(opinions) == 1 else "them"
        basis = f", close to {them if set(opinions) == set(intent.liked) else title_list(catalog, opinions[::-1])}"
    elif profile.known:
        basis = f", going by the {item_count(catalog, len(profile.known))} you know"
    return f"Here {_be(count)} {other}{matching}{basis}."


def shortfall_notices(
    catalog: Catalog, profile: Profile, items: Sequence[Recommendation], dropped: Sequence[str], asked: int
) -> tuple[str, ...]:
    """Say which constraints were relaxed, or that fewer items fit than were asked for."""
    labels = [one.label for one in constraints(profile.filters)]
    if dropped:
        kept = [label for label in labels if label not in dropped]
        rest = f" and kept {join_words(kept)}" if kept else ""
        return (
            f"No {catalog.domain} left that fit {join_words(labels)}; I relaxed {join_words(list(dropped))}{rest}.",
        )
    if not items and asked and labels:
        return (f"No {catalog.domain} left that fit {join_words(labels)}; take a condition back to see more.",)
    if items and len(items) < asked:
        if not labels:
            last = (
                f"This is the last {singular(catalog.domain)}"
                if len(items) == 1
                else f"These are the last {catalog.domain}"
            )
            return (f"{last} that I have not shown or ruled out.",)
        fit = "fits" if len(items) == 1 else "fit"
        return (f"Only {item_count(catalog, len(items))} {fit} {join_words(labels)}; remove a filter to see more.",)
    return ()


def no_request_notice(catalog: Catalog) -> str:
    """Say that a message asked for nothing that can be listed."""
    return f"I found no wish about {catalog.domain} in that message."


def unknown_notices(catalog: Catalog, filters: Filters) -> tuple[str, ...]:
    """Say how many items were left out only because the catalogue has no data on whether they are suitable."""
    limited = [name for name in SAFETY if name in filters.ranges or name in filters.all_of]
    if not limited:
        return ()
    others = Filters(
        filters.any_of,
        {name: values for name, values in filters.all_of.items() if name not in limited},
        filters.none_of,
        {name: bound for name, bound in filters.ranges.items() if name not in limited},
    )
    rows = np.flatnonzero(catalog.where(others))
    count = sum(any(name not in catalog[int(row)].attributes for name in limited) for row in rows)
    if not count:
        return ()
    said = join_words([name if name == "audience" else f"level of {name}" for name in limited], "or")
    return (f"I left out {item_count(catalog, count)} whose {said} I do not know.",)


def explain_items(catalog: Catalog, profile: Profile, rows: Sequence[int]) -> str:
    """Give the reasons for the items asked about, or for the first three."""
    wanted = [item for item in profile.shown if item.row in rows] or list(profile.shown[:_NAMED] if not rows else ())
    if not wanted:
        verb = "is" if len(rows) == 1 else "are"
        return f"{title_list(catalog, rows)} {verb} not on the list, so there is no reason to give."
    return "\n".join(
        f"{catalog.label(item.row)}: {end_sentence(item.reason or _fields(catalog, item.row))}" for item in wanted
    )


def describe_items(catalog: Catalog, profile: Profile, rows: Sequence[int]) -> str:
    """Say what the catalogue says about items, and no more."""
    lines = []
    for row in rows[:_NAMED]:
        text = catalog[row].text
        cut = f"{text[:_TEXT].rstrip()}\N{HORIZONTAL ELLIPSIS}" if len(text) > _TEXT else text
        more = f" {cut}" if text else ""
        reason = next((item.reason for item in profile.shown if item.row == row and item.reason), "")
        because = f" On the list because: {end_sentence(reason)}" if reason else ""
        lines.append(f"{catalog.label(row)}: {end_sentence(_fields(catalog, row))}{more}{because}")
    return "\n".join([*lines, "That is what the catalogue says; I add nothing to it."])


def _fields(catalog: Catalog, row: int) -> str:
    parts = []
    for name, value in catalog[row].attributes.items():
        said = name.replace("_", " ")
        if isinstance(value, tuple):
            parts.append(f"{said} {join_words(unique_words(value))}")
        elif name != "year":
            parts.append(f"{said} {value if isinstance(value, str) else format_number(value)}")
    return "; ".join(parts) or f"one of the {catalog.domain} here"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"
