"""The only place that makes HTML. Whatever comes from the catalogue, the model or a visitor is escaped here.

Escaped text is safe in HTML and says nothing in Markdown either; attributes hold words of this file only.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from llmrec.catalog import Catalog, Value, clean_text
from llmrec.sentences import noun
from llmrec.session import Session

if TYPE_CHECKING:
    from llmrec.recommend import Recommendation

_HUES = 24
_PATTERNS = 4
_CHIPS = 4
_CHIP_CHARS = 40
_LABEL_CHARS = 48
_INITIALS = 2
_LIGHT = frozenset({"the", "a", "an", "of", "in", "on", "and", "to", "for"})
_MARKDOWN = {ord(char): f"&#{ord(char)};" for char in "\\`*_{}[]()#+-.!|~$:=@/\"'"}


def text(raw: str) -> str:
    """Escape for a place that shows HTML but no Markdown: messages, toasts."""
    return escape(raw, quote=False)


def field(raw: str) -> str:
    """Escape for a place that shows Markdown: one line, with every mark that Markdown knows as an entity."""
    return escape(clean_text(raw, 4_000), quote=False).translate(_MARKDOWN)


def messages(session: Session, asked: str = "", reply: str | None = None) -> list[dict[str, str]]:
    """Return the conversation for the chat window, from the server's session.

    Args:
        session: whose finished turns come first.
        asked: a message that is being answered.
        reply: what was answered to it so far; empty shows that the program is at work.
    """
    shown = []
    for turn in session.turns:
        shown += [_message("user", text(turn.user)), _message("assistant", _reply(turn.reply, turn.notices))]
    if reply is not None:
        waiting = '<span class="waiting" role="status">Looking\N{HORIZONTAL ELLIPSIS}</span>'
        shown += [_message("user", text(asked)), _message("assistant", text(reply) or waiting)]
    return shown


def card(catalog: Catalog, item: Recommendation, place: int, year: str | None) -> str:
    """Return one item of the list: cover, title, year, chips, and why it is here; `place` counts from 1."""
    entry = catalog[item.row]
    dated = entry.attributes.get(year) if year else None
    when = f'<span class="year">{field(str(dated))}</span>' if dated is not None else ""
    chips = "".join(f'<span class="chip">{field(_short(word))}</span>' for word in _words(entry.attributes))
    why = f'<div class="why">{field(item.reason)}</div>' if item.reason else ""
    return (
        f'<div class="item">{cover(entry.title, catalog.label(item.row))}<div class="about"><div class="name">'
        f'<span class="place">{place}</span><span class="title">{field(entry.title)}</span>{when}</div>'
        f'<div class="chips">{chips}</div>{why}</div></div>'
    )


def cover(title: str, label: str) -> str:
    """Return a drawn cover: colour and pattern from the label's hash, initials of the title on top."""
    code = zlib.crc32(label.encode())
    words = [word for word in clean_text(title, 300).split() if word[0].isalnum()]
    weighty = [word for word in words if word.casefold() not in _LIGHT] or words
    initials = "".join(word[0] for word in weighty[:_INITIALS]).upper()
    style = f"cover h{code % _HUES} p{code // _HUES % _PATTERNS}"
    return f'<div class="{style}"><span class="initials">{field(initials)}</span></div>'


def rest(catalog: Catalog, items: Sequence[Recommendation], first: int) -> str:
    """Return the items beyond the cards as a numbered list that starts at `first`; empty without any."""
    if not items:
        return ""
    rows = "".join(
        f'<div class="more-item"><span class="place">{place}</span><span>{field(catalog.label(item.row))}</span></div>'
        for place, item in enumerate(items, start=first)
    )
    return f'<div class="more-items">{rows}</div>'


def heading(catalog: Catalog, session: Session) -> str:
    """Return the line above the cards."""
    profile = session.profile
    count = noun(catalog, len(profile.shown))
    if not profile.shown:
        return (
            f'<div class="heading">Nothing to show yet</div><div class="sub">Ask for {field(catalog.domain)} '
            "in your own words, or remove a filter.</div>"
        )
    if profile.blank:
        what, how = "Popular now", "Like a few, or say what you are in the mood for."
    elif session.turns:
        what, how = "Your list", f"{count}, best first"
    else:
        what, how = (f"For user {profile.user}" if profile.user else "Your list"), f"{count}, best first"
    return f'<div class="heading">{field(what)}</div><div class="sub">{field(how)}</div>'


def masthead(catalog: Catalog) -> str:
    """Return the top of the page."""
    return (
        '<div class="masthead"><span class="brand">llmrec</span>'
        f'<span class="sub">{len(catalog):,} {field(catalog.domain)}, and nothing that is not among them</span>'
        "</div>"
    )


def hint(words: str) -> str:
    """Return a muted line."""
    return f'<div class="sub">{field(words)}</div>'


def label(catalog: Catalog, row: int) -> str:
    """Return a short title for a button or a pill; those show text as it is, so nothing is escaped."""
    return _short(catalog.label(row), _LABEL_CHARS)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _reply(reply: str, notices: Sequence[str]) -> str:
    asides = "".join(f'<span class="notice">{text(notice)}</span>' for notice in notices)
    return f"{text(reply)}{asides}"


def _words(attributes: Mapping[str, Value]) -> list[str]:
    """The first few words among an item's attributes, those with several values first."""
    values = list(attributes.values())
    several = [word for value in values if isinstance(value, tuple) for word in value]
    single = [value for value in values if isinstance(value, str)]
    return (several + single)[:_CHIPS]


def _short(words: str, limit: int = _CHIP_CHARS) -> str:
    return words if len(words) <= limit else f"{words[: limit - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}"
