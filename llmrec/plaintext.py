"""Text fields as people read them: entities decoded, tags and page code gone."""

from __future__ import annotations

import html
import re

_TAG = re.compile(r"</?[A-Za-z!][^<>]{0,500}>")  # `<3` is no tag
_CODE = re.compile(r"<(?:script|style)\b[^<>]{0,500}>", re.IGNORECASE)
_CODE_END = re.compile(r"</(?:script|style)\b[^<>]{0,500}>", re.IGNORECASE)
_NO_CHARACTER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")  # Python makes no number of thousands of digits


def plain(value: object) -> str:
    """A text field as people read it: HTML entities decoded, tags gone; "" for anything but text.

    A list of texts, as the later Amazon files have for descriptions, is joined. What stands between `<script>` or
    `<style>` and its end is no text.
    """
    if isinstance(value, list):
        return " ".join(one for one in (plain(part) for part in value if isinstance(part, str)) if one)
    if not isinstance(value, str):
        return ""
    text = html.unescape(_NO_CHARACTER.sub("\ufffd", value))
    return " ".join(_TAG.sub(" ", _without_code(text)).split())


def _without_code(text: str) -> str:
    """Linear in the text, whatever stands open in it: each piece after a beginning is searched for one end."""
    first, *rest = _CODE.split(text)
    return " ".join((first, *(_CODE_END.split(piece, maxsplit=1)[-1] for piece in rest)))
