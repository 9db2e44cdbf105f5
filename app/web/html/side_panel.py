"""HTML of the side panel: the visitor's profile, whose entries can be removed, and the catalogue search."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from llmrec.app.web.html.cards import button, escaped, muted_line, short_title
from llmrec.data.catalog import Catalog
from llmrec.data.constraints import constraints
from llmrec.nlu.state import Profile
from llmrec.nlu.wording import domain_verbs, with_count

_LATEST = 3
_MOST = 40


def profile_panel(catalog: Catalog, known: Profile) -> str:
    """Return the profile: constraints, then opinions, then the logged history of a user that the visitor acts as."""
    active = [(f"unfilter:{text_key(one.key)}", one.label) for one in constraints(known.filters)]
    wish = [("unwish:0", known.wish if len(known.wish) <= 60 else f"{known.wish[:59]}\N{HORIZONTAL ELLIPSIS}")]
    seen = domain_verbs(catalog.domain).done.capitalize()
    parts = [
        _pills("Constraints", active, "Remove"),
        _pills("In your words", wish if known.wish else [], "Forget"),
        *(
            _pills(name, [(f"forget:{row}", short_title(catalog, row)) for row in rows[-_MOST:]], "Take back")
            for name, rows in (
                ("Liked", known.liked),
                ("Not for me", known.disliked),
                (seen, known.seen),
            )
        ),
        _log(catalog, known),
    ]
    inside = "".join(parts) or muted_line(
        "What you like and what you rule out appears here; click an entry to remove it."
    )
    return f'<div class="profile">{inside}</div>'


def search_results(catalog: Catalog, rows: Sequence[int], typed: bool) -> str:
    """Return search results, each a button that likes the item; without results for the typed text, a message."""
    if not rows:
        return muted_line(f"No title among the {catalog.domain} matches.") if typed else ""
    pills = "".join(button("act", f"add:{row}", short_title(catalog, row), "pill add", "like it") for row in rows)
    return f'<div class="pills">{pills}</div>'


def text_key(key: str) -> str:
    """Return a hash that stands for a text in an attribute, where the text itself is not allowed."""
    return f"{zlib.crc32(key.encode()):08x}"


def _pills(name: str, values: Sequence[tuple[str, str]], does: str) -> str:
    if not values:
        return ""
    pills = "".join(button("act", value, words, "pill remove", does) for value, words in values)
    return f'<h3 class="sub">{escaped(name)}</h3><div class="pills">{pills}</div>'


def _log(catalog: Catalog, known: Profile) -> str:
    if not known.user:
        return ""
    latest = ", ".join(catalog.label(row) for row in reversed(known.history[-_LATEST:]))
    words = f"{with_count(len(known.history), catalog.domain)} in the log; most recent: {latest}"
    return f'<h3 class="sub">{escaped(f"User {known.user}")}</h3><div class="log">{escaped(words)}</div>'
