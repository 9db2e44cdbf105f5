"""Converts text fields with HTML markup to plain text."""

from __future__ import annotations

import html
import re

# of HTML alone: `<3` is no tag, and `<Uncut>` may be part of a title
_NAMES = (
    "a abbr acronym address applet article aside audio b base basefont bdi bdo big blockquote body br button canvas "
    "caption center cite code col colgroup dd del details dfn dialog dir div dl dt em embed fieldset figcaption figure "
    "font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend li "
    "link main map mark marquee menu meta nav nobr noscript object ol optgroup option p param path picture pre q rp rt "
    "ruby s samp section select small source span strike strong sub summary sup svg table tbody td textarea tfoot th "
    "thead time title tr track tt u ul var video wbr"
)
_NAME = rf"(?:{'|'.join(_NAMES.split())}|[a-z]\w*:\w+)"  # and Word's own, `<o:p>`
_TAG = re.compile(rf"</?{_NAME}(?:[\s/][^<>]{{0,500}})?>|<![^<>]{{0,500}}>", re.IGNORECASE | re.ASCII)
_CODE = re.compile(r"<(?:script|style)\b[^<>]{0,500}>", re.IGNORECASE)
_CODE_END = re.compile(r"</(?:script|style)\b[^<>]{0,500}>", re.IGNORECASE)
_NO_CHARACTER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")  # Python makes no number of thousands of digits


def plain_text(value: object) -> str:
    """A text field as people read it: HTML entities decoded, tags gone; "" for anything but text.

    A list of texts, as the later Amazon files have for descriptions, is joined. What stands between `<script>` or
    `<style>` and its end is no text.
    """
    if isinstance(value, list):
        return " ".join(one for one in (plain_text(part) for part in value if isinstance(part, str)) if one)
    if not isinstance(value, str):
        return ""
    text = html.unescape(_NO_CHARACTER.sub("\ufffd", value))
    return " ".join(_TAG.sub(" ", _without_code(text)).split())


def _without_code(text: str) -> str:
    """Linear in the text, whatever stands open in it: each piece after a beginning is searched for one end."""
    first, *rest = _CODE.split(text)
    return " ".join((first, *(_CODE_END.split(piece, maxsplit=1)[-1] for piece in rest)))
