"""HTML of the chat and of the item cards, and the escaping that all HTML of the page uses.

Only the modules of this package write HTML. They escape everything that comes from the catalogue, the model or a
visitor; escaped text is safe in HTML and has no effect in Markdown. HTML attributes contain only words and numbers from
these modules.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Literal

from llmrec.app.web.html.covers import cover
from llmrec.data.catalog import Catalog, Item, clean_text
from llmrec.dialogue.responses import item_count
from llmrec.nlu.attribute_phrases import adjectives_of, clause, kinds_of, says_kind
from llmrec.nlu.state import Session
from llmrec.nlu.wording import already_known, unique_words

if TYPE_CHECKING:
    from llmrec.recommender import Recommendation

CARDS = 20
_CHIPS = 4
_CHIP_CHARS = 40
_PREMISE_CHARS = 220
_LABEL_CHARS = 48
_MARKDOWN = {ord(char): f"&#{ord(char)};" for char in "\\`*_{}[]()#+-.!|~$:=@/\"'"}
_VALUE = re.compile(r"[a-z]+:[a-z0-9]+")
_SOURCES = {
    "llm": "language model",
    "encoder": "your taste",
    "neighbours": "often liked together",
    "profile": "alike",
    "words": "your words",
    "popularity": "well known",
}


def escape_html(raw: str) -> str:
    """Escape text for places that render HTML but not Markdown: messages and toasts."""
    return escape(raw, quote=False)


def escaped(raw: str) -> str:
    """Escape text for places that render Markdown: one line, with all Markdown punctuation as entities."""
    return escape(clean_text(raw, 4_000), quote=False).translate(_MARKDOWN)


def button(wire: Literal["act", "ask"], value: str, words: str, style: str, about: str = "") -> str:
    """Return a button that sends `value` through a hidden text box of the page; `about` is for screen readers only.

    Raises:
        ValueError: the value is not `verb:argument`; external text must not appear in an attribute.
    """
    if not _VALUE.fullmatch(value):
        raise ValueError(f"button value {value!r} is not verb:argument")
    more = f'<span class="hid"> {escaped(about)}</span>' if about else ""
    return f'<button type="button" name="{wire}" value="{value}" class="{style}">{escaped(words)}{more}</button>'


def chat_messages(session: Session, asked: str = "", reply: str | None = None) -> list[dict[str, str]]:
    """Return the conversation for the chat window, from the server's session.

    Args:
        session: the session; its finished turns come first.
        asked: the message that is being answered.
        reply: the reply so far; an empty reply shows a waiting indicator, None means that no reply is in progress.
    """
    shown = []
    for turn in session.turns:
        shown += [_message("user", escape_html(turn.user)), _message("assistant", _reply(turn.reply, turn.notices))]
    if reply is not None:
        waiting = '<span class="waiting" role="status">Looking\N{HORIZONTAL ELLIPSIS}</span>'
        shown += [_message("user", escape_html(asked)), _message("assistant", escape_html(reply) or waiting)]
    return shown


def item_cards(catalog: Catalog, items: Sequence[Recommendation], year: str | None) -> str:
    """Return the list: a card for each of the first `CARDS` items, the others as numbered lines."""
    if not items:
        return ""
    shown = "".join(item_card(catalog, item, year) for item in items[:CARDS])
    noted = f"Notes on {catalog.domain} were written by {catalog.notes_by}. They may be wrong."
    by = f'<div class="sub noted">{escaped(noted)}</div>' if catalog.notes_by else ""
    return f'<ol class="cards">{shown}</ol>{remaining_items(catalog, items[CARDS:], CARDS + 1)}{by}'


def item_card(catalog: Catalog, item: Recommendation, year: str | None) -> str:
    """Return the card of an item: cover, title, year, chips, text, people, the reason for it, and its buttons."""
    entry, label_ = catalog[item.row], catalog.label(item.row)
    dated = entry.attributes.get(year) if year else None
    when = f'<span class="year">{escaped(str(dated))}</span>' if dated is not None else ""
    chips = "".join(f'<span class="chip">{escaped(_short(word))}</span>' for word in _words(entry))
    premise = f'<div class="premise">{escaped(_short(entry.text, _PREMISE_CHARS))}</div>' if entry.text else ""
    made = f'<div class="people">{escaped(people)}</div>' if (people := _people(entry)) else ""
    spoke = _SOURCES.get(item.source, "")
    source = f'<span class="source">{escaped(spoke)}</span>' if spoke else ""
    why = f'<div class="why">{source}{escaped(item.reason)}</div>' if item.reason or source else ""
    acts = (
        button("act", f"like:{item.row}", "Like", "act like", label_)
        + button("act", f"dislike:{item.row}", "Not for me", "act dislike", label_)
        + button("act", f"seen:{item.row}", already_known(catalog.domain), "act seen", label_)
        + button("ask", f"more:{item.row}", "More like this", "act more", label_)
    )
    return (
        f'<li class="card">{cover(entry.title, label_)}<div class="about"><div class="name">'
        f'<span class="title">{escaped(entry.title)}</span>{when}</div>'
        f'<div class="chips">{chips}</div>{premise}{made}{why}<div class="acts">{acts}</div></div></li>'
    )


def remaining_items(catalog: Catalog, items: Sequence[Recommendation], first: int) -> str:
    """Return the items beyond the cards as a numbered list that starts at `first`; empty without items."""
    if not items:
        return ""
    rows = "".join(
        f'<div class="more-item"><span class="place">{place}</span>'
        f"<span>{escaped(catalog.label(item.row))}</span></div>"
        for place, item in enumerate(items, start=first)
    )
    return f'<div class="more-items">{rows}</div>'


def list_heading(catalog: Catalog, session: Session, note: str = "") -> str:
    """Return the heading above the cards; `note` says what has just changed."""
    profile = session.profile
    count = item_count(catalog, len(profile.shown))
    if not profile.shown:
        what, how = "Nothing to show", f"Ask for {catalog.domain} in your own words, or remove a constraint."
    elif profile.blank:
        what, how = "Popular now", "Like a few, or say what you are in the mood for."
    elif session.turns or not profile.user:
        what, how = "Your list", f"{count}, best first"
    else:
        what, how = f"For user {profile.user}", f"{count}, best first"
    return (
        f'<h2 class="heading">{escaped(what)}</h2>'
        f'<div class="sub" role="status">{escaped(note) + " " if note else ""}{escaped(how)}</div>'
    )


def suggestion_chips(values: Sequence[tuple[str, str]]) -> str:
    """Return the chips with suggested messages, given as (value, text) pairs."""
    return f'<div class="offers">{"".join(button("ask", value, words, "offer") for value, words in values)}</div>'


def masthead(catalog: Catalog) -> str:
    """Return the top of the page."""
    return (
        '<div class="masthead"><h1 class="brand">llmrec</h1>'
        f'<span class="sub">{len(catalog):,} {escaped(catalog.domain)}, and nothing outside the catalogue</span>'
        '<button type="button" name="page" value="theme" class="plain theme">Light or dark</button></div>'
    )


def welcome(catalog: Catalog) -> str:
    """Return the content of the empty chat window."""
    return (
        '<div class="welcome"><div class="hello">What are you in the mood for?</div>'
        f'<div class="sub">Name {escaped(catalog.domain)} you liked, say what you want and what you do not. '
        "The list updates with every message.</div></div>"
    )


def muted_line(words: str) -> str:
    """Return a muted line."""
    return f'<div class="sub">{escaped(words)}</div>'


def exported_conversation(json_text: str) -> str:
    """Return an exported conversation in an element that the page's script finds and offers as a file."""
    return f'<pre class="exported">{escape(json_text, quote=False).translate(_MARKDOWN)}</pre>'


def short_title(catalog: Catalog, row: int) -> str:
    """Return a shortened title for a button, not escaped."""
    return _short(catalog.label(row), _LABEL_CHARS)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _reply(reply: str, notices: Sequence[str]) -> str:
    asides = "".join(f'<span class="notice">{escape_html(notice)}</span>' for notice in notices)
    return f"{escape_html(reply)}{asides}"


def _words(item: Item) -> list[str]:
    """Return the first few words that say what an item is; attributes with several values come first."""
    several = [word for _, word in kinds_of(item)]
    single = [value for name, value in item.attributes.items() if isinstance(value, str) and says_kind(name)]
    return unique_words([*several, *single, *adjectives_of(item)])[:_CHIPS]


def _people(item: Item) -> str:
    """Return who made an item, and two actors: `Directed by Ridley Scott, with Sigourney Weaver and Tom Skerritt`."""
    named = (("director", 2), ("author", 2), ("artist", 2), ("actor", 2))
    said = [clause(name, found[:most]) for name, most in named if isinstance(found := item.attributes.get(name), tuple)]
    words = ", ".join(said)
    return words[:1].upper() + words[1:]


def _short(words: str, limit: int = _CHIP_CHARS) -> str:
    return words if len(words) <= limit else f"{words[: limit - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"
