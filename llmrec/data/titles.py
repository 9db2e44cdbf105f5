"""Titles as people type them: articles, years, accents and typos; and the matching of typed titles with items."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from rapidfuzz import fuzz, process
from rapidfuzz.distance import OSA

from llmrec.errors import RequestError

# English, French, Italian, Spanish, German, Scandinavian, Dutch, Portuguese, Hungarian
_ARTICLES = (
    "The|A|An|Le|La|Les|L'|L\u2019|Un|Une|Il|Lo|I|Gli|Uno|Una|El|Los|Las|Unos|Unas|Der|Die|Das|Den|Dem|Ein|Eine|Einen"
    "|Einer|En|Et|Ett|Det|De|Het|Een|O|Os|As|Um|Uma|Az"
)
# Articles that may also be other words. They begin too many titles that have no article (`Die Hard`, `As Good as ...`).
_WORDS_TOO = ("as", "de", "dem", "den", "det", "die", "en", "et", "i", "l'", "l\u2019", "o", "um")
PLAIN_ARTICLES = frozenset(_ARTICLES.lower().split("|")).difference(_WORDS_TOO)
_SUFFIX = re.compile(rf"^(?P<title>[^()]+), (?P<article>{_ARTICLES})$", re.IGNORECASE)
_OTHER = re.compile(r"^(?P<main>.*[^\s(]) \((?P<other>[^()]+)\)$")
_AKA = re.compile(r"^(?:a\.k\.a\.?|aka|also known as)\s+", re.IGNORECASE)
_NEXT_AKA = re.compile(r"\s*[,;/]?\s+(?=(?:a\.k\.a\.?|aka|also known as)\s)", re.IGNORECASE)
_YEAR = re.compile(r"^(?P<title>.+?)\s*\(\s*(?P<year>\d{4})\s*\)\s*$", re.DOTALL)
_BARE_YEAR = re.compile(r"^(?P<title>.+?),?\s+(?P<year>(?:19|20)\d{2})\s*$", re.DOTALL)
_LEADING = re.compile(rf"^(?:{'|'.join(sorted(PLAIN_ARTICLES))}) (?=.)")
_ANY_LEADING = re.compile(rf"^(?:{_ARTICLES.lower()}) (?=.)")
_ELIDED = re.compile("^L['\u2019](?=.)", re.IGNORECASE)
_PART = re.compile(r"\bpart (?=\d+\b)")
_ROMAN = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}
_HEAD = re.compile(r"\s+or:|:|\s+-\s+")
_AND = re.compile(r"&| \+ ")
_APOSTROPHES = re.compile("['\u2019`\u00b4]")
_NOT_WORD = re.compile(r"[\W_]+")
# Lengths in letters:
_SHORTEST = 5  # from here on, one letter too many or too few is forgiven
_SHORT = 7  # from here on, so is one wrong letter, or one swapped with its neighbour
_LONG = 11  # from here on, two edits are forgiven
_VERY_LONG = 30  # from here on, one edit in ten letters is forgiven
_PLURAL = 8  # below this, a final `s` distinguishes two titles: `Alien` and `Aliens`


def display_title(title: str) -> str:
    """Put articles first: `Usual Suspects, The` becomes `The Usual Suspects`.

    The same is done in every parenthesis, as in `Postino, Il (Postman, The)` and `(a.k.a. ...)`.
    """
    main, others = _split_parentheses(title)
    shown = [_article_first(main)]
    for other in others:
        shown.append("(" + ", ".join(f"{aka}{_article_first(name)}" for aka, name in _known_as(other)) + ")")
    return " ".join(shown)


def title_variants(title: str) -> tuple[str, ...]:
    """Return all names in a title: `Seven` and `Se7en` for `Seven (a.k.a. Se7en)`."""
    main, others = _split_parentheses(title)
    called = [main, *(name for other in others for _, name in _known_as(other))]
    return tuple(dict.fromkeys(_article_first(name) for name in called))


def _split_parentheses(title: str) -> tuple[str, list[str]]:
    """Return the name before the trailing parentheses, and the content of each parenthesis."""
    others: list[str] = []
    while match := _OTHER.match(title):
        title = match["main"]
        others.insert(0, match["other"])
    return title, others


def _known_as(other: str) -> list[tuple[str, str]]:
    """Return the names in a parenthesis as pairs (prefix, name); the prefix is the name's `a.k.a.`, or empty."""
    found = []
    for part in _NEXT_AKA.split(other):
        aka = _AKA.match(part)
        found.append((aka[0], part[aka.end() :]) if aka else ("", part))
    return found


def split_year(title: str) -> tuple[str, int | None]:
    """Split `Toy Story (1995)` into title and year; the year is None when there is none in parentheses."""
    match = _YEAR.match(title)
    return (match["title"], int(match["year"])) if match else (title, None)


def title_key(title: str) -> str:
    """Return a title normalised for comparison: without case, accents, punctuation, spacing and forms of sequels.

    `The Godfather: Part II` and `the godfather 2` have the same key.
    """
    decomposed = unicodedata.normalize("NFKD", title.casefold())
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    words = _NOT_WORD.sub(" ", _APOSTROPHES.sub("", _AND.sub(" and ", plain))).strip()
    words = _PART.sub("", " ".join(_ROMAN.get(word, word) for word in words.split()))
    # a title of punctuation only, such as "!!!", keeps it: an empty key would match every other such title
    return words or " ".join(plain.split())


class TypoIndex:
    """Index of known names that finds a name despite a few typos, by optimal string alignment distance.

    One edit is one letter too many, missing or wrong, or two neighbouring letters swapped.

    Args:
        names: title keys.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_length: dict[int, list[str]] = {}
        for name in names:
            self._by_length.setdefault(len(name), []).append(name)

    def nearest(self, typed: str) -> list[tuple[str, int]]:
        """Return the names that are the fewest edits away, with that number; empty when none is close enough."""
        reach = _allowed_edits(len(typed))
        lengths = range(len(typed) - reach, len(typed) + reach + 1)
        names = [name for length in lengths for name in self._by_length.get(length, ())]
        near = process.extract(typed, names, scorer=OSA.distance, score_cutoff=reach, limit=None)
        found = [(name, int(edits)) for name, edits, _ in near if _is_typo(typed, name, int(edits))]
        return [one for one in found if one[1] == found[0][1]]


class TitleMatcher:
    """Finds the row that a typed title refers to."""

    def __init__(self, titles: Sequence[str], years: Sequence[int | None], labels: Sequence[str]) -> None:
        self._titles, self._years, self._labels = titles, years, labels
        self._keys = [title_key(title) for title in titles]
        self._stages = tuple(
            _key_table(map(keys, titles)) for keys in (_full_keys, _variant_keys, _head_keys, _articleless_keys)
        )
        self._index = TypoIndex(self._stages[0])

    def find(self, title: str) -> int:
        """Return the row of a typed title; a full match beats a match of a part, which beats a match with typos.

        Raises:
            RequestError: no title matches, or several different ones do; the message names the closest.
        """
        found = self.exact(title)
        if found is None:
            found = self.misspelt(title)
        if found is None:
            near = ", ".join(self._labels[row] for row in self.closest(title, 3))
            raise RequestError(f"no title {title!r} in this catalogue; the closest are: {near}")
        return found

    def exact(self, title: str) -> int | None:
        """Return the row of a title, or of a part of one, typed without typos; None when there is none.

        Raises:
            RequestError: several different titles match.
        """
        bare, year = split_year(title.strip())
        found = self._exact(bare, year)
        if found is None and year is None and (match := _BARE_YEAR.match(bare)):
            found = self._exact(match["title"], int(match["year"]))
        return found

    def closest(self, title: str, n: int) -> list[int]:
        """Return the `n` rows with the most similar titles, best first, ties by row."""
        key = title_key(display_title(split_year(title.strip())[0]))
        score = np.zeros(len(self._keys))
        for scorer in (fuzz.ratio, fuzz.WRatio):
            score += process.cdist([key], self._keys, scorer=scorer, workers=1)[0]
        return [int(row) for row in np.argsort(-score, kind="stable")[:n]]

    def _exact(self, title: str, year: int | None) -> int | None:
        keys = _full_keys(title)
        for stage in self._stages:
            for key in keys:
                rows = self._in_year(stage.get(key, []), year)
                if rows:
                    return self._single(rows, title)
        return None

    def _in_year(self, rows: Sequence[int], year: int | None) -> list[int]:
        """Narrow rows to the given year.

        A difference of one year is accepted where no row matches exactly: it is usually a release in another country. A
        larger difference means another work.
        """
        if year is None:
            return list(rows)
        exact = [row for row in rows if self._years[row] == year]
        return exact or [row for row in rows if abs((self._years[row] or year) - year) <= 1]

    def _single(self, rows: Sequence[int], title: str) -> int:
        """Return the first row when all have the same title (one work under two ids); otherwise raise RequestError."""
        if len({self._keys[row] for row in rows}) > 1:
            names = ", ".join(self._labels[row] for row in rows[:5])
            raise RequestError(f"the title {title!r} could be any of: {names}")
        return rows[0]

    def misspelt(self, title: str) -> int | None:
        """Return the row of a title with typos; None when there is none.

        Raises:
            RequestError: several different titles are equally close.
        """
        rows = self.nearest(title)
        return self._single(rows, title) if rows else None

    def nearest(self, title: str) -> list[int]:
        """Return all rows whose whole title is the fewest edits away, ascending; a year in `title` must match."""
        bare, year = split_year(title.strip())
        edits: dict[int, int] = {}
        for key in _full_keys(bare):
            for name, count in self._index.nearest(key):
                for row in self._in_year(self._stages[0][name], year):
                    edits[row] = min(count, edits.get(row, count))
        fewest = min(edits.values(), default=0)
        return sorted(row for row, count in edits.items() if count == fewest)


def _article_first(title: str) -> str:
    match = _SUFFIX.match(title)
    if not match:
        return title
    gap = "" if match["article"].endswith(("'", "\u2019")) else " "
    return f"{match['article']}{gap}{match['title']}"


def _full_keys(title: str) -> list[str]:
    """Return the keys of the whole title, with and without its article."""
    key = title_key(display_title(title.strip()))
    return list(dict.fromkeys([key, _LEADING.sub("", key)]))


def _variant_keys(title: str) -> list[str]:
    """Return the keys of every name of a title with several, such as `Il Postino (The Postman)`; empty for others."""
    called = title_variants(title)
    return [key for name in called for key in _full_keys(name)] if len(called) > 1 else []


def _articleless_keys(title: str) -> list[str]:
    """Return the keys of every name of a title without its article: `Welle` for `The Wave (Die Welle)`.

    When the title has only one name, a first word that is both an article and an English word is kept: `Hard` does not
    match `Die Hard`.
    """
    called = title_variants(title)
    bare = [title_key(_ELIDED.sub("", name)) for name in called]
    return [_ANY_LEADING.sub("", key) for key in bare] if len(called) > 1 else bare


def _head_keys(title: str) -> list[str]:
    """Return the keys of the part before a subtitle: `Terminator 2` for `Terminator 2: Judgment Day`."""
    head = _HEAD.split(title, maxsplit=1)[0]
    return _full_keys(head) if head != title else []


def _key_table(keys: Iterable[Sequence[str]]) -> dict[str, list[int]]:
    table: dict[str, list[int]] = {}
    for row, names in enumerate(keys):
        for name in dict.fromkeys(names):
            if name:
                table.setdefault(name, []).append(row)
    return table


def _allowed_edits(letters: int) -> int:
    """Return the number of edits that are forgiven in a title of this many letters."""
    if letters < _VERY_LONG:
        return (letters >= _SHORTEST) + (letters >= _LONG)
    return letters // 10


def _is_typo(typed: str, known: str, edits: int) -> bool:
    """Return whether a typed title is a misspelling of a known one rather than another title.

    Their numbers must agree, and a short title must differ by more than a plural `s`.
    """
    if not edits:
        return True
    letters = min(len(_LEADING.sub("", key)) for key in (typed, known))
    if edits > _allowed_edits(letters) or _numbers(typed) != _numbers(known):
        return False
    if letters < _SHORT and len(typed) == len(known):
        return False
    if letters < _PLURAL and typed.rstrip("s") == known.rstrip("s"):
        return False
    return edits == 1 or typed[0] == known[0]


def _numbers(key: str) -> list[str]:
    return [word for word in key.split() if word.isdigit() or word in ("i", "v", "x")]
