"""What phrases of one message name: each is looked up once, and only a few of them by likeness.

Likeness is measured against every title, so that a page of names that mean nothing would cost seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rapidfuzz import fuzz
from rapidfuzz.distance import OSA

from llmrec.data.catalog import Catalog
from llmrec.data.titles import title_key
from llmrec.errors import RequestError

_MOST = 8  # phrases of a message compared with all titles; titles typed as they are come on top
_SLIP = 7
_ALIKE = 65.0


@dataclass(frozen=True)
class Named:
    """The row that a phrase means; -1 for none, with a note that says why."""

    row: int
    note: str = ""


class Lookup:
    """Looks up the phrases of one message.

    Args:
        catalog: whose titles they may be.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[str, Named] = {}
        self._left = _MOST

    def find(self, phrase: str) -> Named:
        """As the catalogue finds, and one slip of the keyboard (`toy stroy`) in a title long enough."""
        if phrase not in self._known:
            self._known[phrase] = self._look(phrase)
        return self._known[phrase]

    def _look(self, phrase: str) -> Named:
        several = ""
        try:
            row = self._catalog.exact(phrase)
        except RequestError as error:
            row, several = None, self._several(phrase, error)
        if row is not None:
            return Named(row)
        if not self._left:
            return Named(-1, several or f"I did not look for \u201c{phrase}\u201d; name fewer at once.")
        self._left -= 1
        try:
            row = None if several else self._catalog.misspelt(phrase)
        except RequestError as error:
            several = self._several(phrase, error)
        if row is not None:
            return Named(row)
        near = self._catalog.closest(phrase, 3)
        slip = self._slip(phrase, near[:2])
        return Named(-1, several or self._unknown(phrase, near)) if slip is None else Named(slip)

    def _slip(self, phrase: str, near: list[int]) -> int | None:
        typed = title_key(phrase)
        if len(typed) < _SLIP or re.search(r"\d", typed):
            return None
        far = [OSA.distance(typed, title_key(self._catalog[row].title)) for row in near]
        return near[0] if far and far[0] == 1 and (len(far) < 2 or far[1] > 1) else None

    def _several(self, phrase: str, error: RequestError) -> str:
        names = str(error).rpartition("any of: ")[2]
        return f"Several {self._catalog.domain} fit \u201c{phrase}\u201d: {names}. Which one?"

    def _unknown(self, phrase: str, near: list[int]) -> str:
        likely = [self._catalog.label(row) for row in near if self._alike(phrase, row)]
        close = f"; do you mean {' or '.join(likely)}?" if likely else "."
        return f"I have nothing called \u201c{phrase}\u201d here{close}"

    def _alike(self, phrase: str, row: int) -> bool:
        typed, known = title_key(phrase), title_key(self._catalog[row].title)
        return fuzz.ratio(typed, known) >= _ALIKE or typed in known
