"""Ids of items and users: how a value becomes an id, and which spellings mean the same id.

An id is kept as its table writes it. Programs that pass tables on may change ids: a column with an empty cell becomes a
column of floats (`1.0`), a spreadsheet drops leading zeros (`7` for `007`), a web form sends full-width digits. All
spellings of an id share one `canonical_form`. When an id is looked up and does not exist as written, it means the only
known id with the same canonical form.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from functools import cached_property

FIRST_INEXACT = 2**53  # from here on, floats cannot represent every whole number
_WHOLE = re.compile(r"(-?)0*(\d+)(?:\.0+)?", re.ASCII)
_FLOATED = re.compile(r"-?(\d+)\.0+", re.ASCII)
_EXPONENT = re.compile(r"-?\d+(?:\.\d+[eE]\+?|[eE]\+)\d+", re.ASCII)  # `12e4` may be the beginning of a hash


def id_text(value: object) -> str:
    """Return a value as an id: stripped text, or the digits of a whole number; "" for any other value."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return ""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(int(value)) if isinstance(value, Decimal) and value.is_finite() and value == int(value) else ""


def is_rounded(value: object) -> bool:
    """Return whether a value is a whole number that a float or a spreadsheet may have rounded to a different id."""
    if isinstance(value, float):
        return abs(value) >= FIRST_INEXACT
    if not isinstance(value, str):
        return False
    text = value.strip()
    floated = _FLOATED.fullmatch(text)
    return bool(_EXPONENT.fullmatch(text)) or (floated is not None and float(text) >= FIRST_INEXACT)


def canonical_form(id: str) -> str:
    """Return the form that all spellings of an id share: ` 1 `, `1.0`, `01` and a full-width 1 all become `1`."""
    id = id.strip()
    if id.isascii() and not id.startswith(("0", "-0")) and ".0" not in id:
        return id
    text = unicodedata.normalize("NFKC", id).strip()
    found = _WHOLE.fullmatch(text)
    return found[1] + found[2] if found else text


class IdVariants:
    """Known ids indexed by their canonical form; the index is built at the first lookup.

    Args:
        ids: the known ids, all distinct.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = ids

    @cached_property
    def _found(self) -> dict[str, list[str]]:
        found = defaultdict[str, list[str]](list)
        for one in self._ids:
            found[canonical_form(one)].append(one)
        return found

    def variants(self, id: str) -> tuple[str, ...]:
        """Return the known ids with the same canonical form as `id`, except `id` itself."""
        return tuple(one for one in self._found.get(canonical_form(id), ()) if one != id)

    def unique_variant(self, id: str) -> str | None:
        """Return the known id that `id` is another spelling of; None when there is none or more than one."""
        found = self.variants(id)
        return found[0] if len(found) == 1 else None


def first_collision(ids: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two of these distinct ids that share a canonical form, in order; None if no two do."""
    seen: dict[str, str] = {}
    for one in ids:
        if (other := seen.setdefault(canonical_form(one), one)) != one:
            return other, one
    return None
