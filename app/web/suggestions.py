"""Suggests messages to send: examples at the start, then critiques from attributes of the shown items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from llmrec.app.web.html import cards
from llmrec.data.catalog import Catalog
from llmrec.nlu.lexicon import Lexicon
from llmrec.nlu.state import Profile, Session

MOST = 5
_LONGEST_TITLE = 40


def suggest(catalog: Catalog, lexicon: Lexicon, years: Sequence[int], session: Session) -> tuple[str, ...]:
    """Return up to `MOST` messages that buttons offer to send."""
    texts = (
        _critiques(catalog, lexicon, session.profile) if session.turns else _examples(catalog, lexicon, years, session)
    )
    return tuple(dict.fromkeys(texts))[:MOST]


def _examples(catalog: Catalog, lexicon: Lexicon, years: Sequence[int], session: Session) -> Iterator[str]:
    rows = session.profile.rows
    title = catalog[rows[0]].title if rows else ""
    if title and len(title) <= _LONGEST_TITLE:
        yield f"I loved {title}"
    main = lexicon.example_values
    if main and years:
        yield f"{main[min(1, len(main) - 1)]} from the {sorted(years)[len(years) // 2] // 10 * 10}s"
    if len(main) > 2:
        yield f"{main[0]}, but no {main[2]}"
    yield "Surprise me"


def _critiques(catalog: Catalog, lexicon: Lexicon, profile: Profile) -> Iterator[str]:
    if not profile.shown:
        yield from ("Forget the filters", "Surprise me")
        return
    yield "Something else"
    label = cards.short_title(catalog, profile.rows[0])
    if len(label) <= _LONGEST_TITLE:
        yield f"More like {label}"
    filters = profile.filters
    wanted = {value for values in (*filters.any_of.values(), *filters.all_of.values()) for value in values}
    counts = Counter(
        value
        for row in profile.rows
        for values in catalog[row].attributes.values()
        if isinstance(values, tuple)
        for value in values
        if value not in wanted
    )
    if counts:
        yield f"No {counts.most_common(1)[0][0]}"
    if lexicon.year:
        low, high = filters.ranges.get(lexicon.year, (None, None))
        yield from ("Older",) if high is None else ()
        yield from ("Newer",) if low is None else ()
    yield "Why these?"
