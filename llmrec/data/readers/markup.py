"""Converts text fields with HTML markup to plain text."""

from __future__ import annotations

import html
import re

# HTML tags only: `<3` is no tag, and `<Uncut>` may be part of a title
_NAMES = (
    "a abbr acronym address applet article aside audio b base basefont bdi bdo big blockquote body br button canvas "
    "caption center cite code col colgroup dd del details dfn dialog dir div dl dt em embed fieldset figcaption figure "
    "font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend li "
    "link main map mark marquee menu meta nav nobr noscript object ol optgroup option p param path picture pre q rp rt "
    "ruby s samp section select small source span strike strong sub summary sup svg table tbody td textarea tfoot th "
    "thead time title tr track tt u ul var video wbr"
)
_NAME = rf"(?:{'|'.join(_NAMES.split())}|[a-z]\w*:\w+)"  # also Microsoft Word's tags, such as `<o:p>`
_TAG = re.compile(rf"</?{_NAME}(?:[\s/][^<>]{{0,500}})?>|<![^<>]{{0,500}}>", re.IGNORECASE | re.ASCII)
_CODE = re.compile(r"<(?:script|style)\b[^<>]{0,500}>", re.IGNORECASE)
_CODE_END = re.compile(r"</(?:script|style)\b[^<>]{0,500}>", re.IGNORECASE)
_NO_CHARACTER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")  # Python cannot parse thousands of digits


def plain_text(value: object) -> str:
    """Return a text field as plain text, with HTML entities decoded and tags removed; "" for anything but text.

    A list of texts, as in the descriptions of the later Amazon files, is joined. The contents of `<script>` and
    `<style>` are removed.
    """
    if isinstance(value, list):
        return " ".join(one for one in (plain_text(part) for part in value if isinstance(part, str)) if one)
    if not isinstance(value, str):
        return ""
    text = html.unescape(_NO_CHARACTER.sub("\ufffd", value))
    return " ".join(_TAG.sub(" ", _without_code(text)).split())


def _without_code(text: str) -> str:
    """Remove `<script>` and `<style>` elements in linear time, even if many are unclosed.

    The text is split at the opening tags, and each piece after one is searched for a single closing tag.
    """
    first, *rest = _CODE.split(text)
    return " ".join((first, *(_CODE_END.split(piece, maxsplit=1)[-1] for piece in rest)))
