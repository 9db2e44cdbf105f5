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
# Those that are no English words: the others begin too many titles that have no article (`Die Hard`, `As Good as ...`).
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
_SHORTEST = 5  # letters of a title that may be misspelt, by one letter too many or too few
_SHORT = 7  # letters from which on a letter may be wrong or swapped with its neighbour, too
_LONG = 11  # letters from which on two edits are forgiven
_VERY_LONG = 30  # letters from which on there may be an edit in every ten
_PLURAL = 8  # below it an `s` at the end tells two titles apart: `Alien` and `Aliens`


def display_title(title: str) -> str:
    """Turn `Usual Suspects, The` into `The Usual Suspects`, also inside `Postino, Il (Postman, The)`; of any number of
    parts, `(a.k.a. ...)` among them.
    """
    main, others = _split_parentheses(title)
    shown = [_article_first(main)]
    for other in others:
        shown.append("(" + ", ".join(f"{aka}{_article_first(name)}" for aka, name in _known_as(other)) + ")")
    return " ".join(shown)


def title_variants(title: str) -> tuple[str, ...]:
    """Return all that a title is called: `Seven (a.k.a. Se7en)` is `Seven` and `Se7en`."""
    main, others = _split_parentheses(title)
    called = [main, *(name for other in others for _, name in _known_as(other))]
    return tuple(dict.fromkeys(_article_first(name) for name in called))


def _split_parentheses(title: str) -> tuple[str, list[str]]:
    """The name before the parentheses at the end, and what each of them holds."""
    others: list[str] = []
    while match := _OTHER.match(title):
        title = match["main"]
        others.insert(0, match["other"])
    return title, others


def _known_as(other: str) -> list[tuple[str, str]]:
    """The names in a parenthesis, each with its `a.k.a.` or nothing."""
    found = []
    for part in _NEXT_AKA.split(other):
        aka = _AKA.match(part)
        found.append((aka[0], part[aka.end() :]) if aka else ("", part))
    return found


def split_year(title: str) -> tuple[str, int | None]:
    """Split `Toy Story (1995)` into title and year; without a year in parentheses, the title and None."""
    match = _YEAR.match(title)
    return (match["title"], int(match["year"])) if match else (title, None)


def title_key(title: str) -> str:
    """Return what stays of a title when case, accents, punctuation, spacing and the form of a sequel do not
    count.

    `The Godfather: Part II` and `the godfather 2` have one key.
    """
    decomposed = unicodedata.normalize("NFKD", title.casefold())
    plain = "".join(char for char in decomposed if not unicodedata.combining(char))
    words = _NOT_WORD.sub(" ", _APOSTROPHES.sub("", _AND.sub(" and ", plain))).strip()
    words = _PART.sub("", " ".join(_ROMAN.get(word, word) for word in words.split()))
    # a title of marks only, such as "!!!", keeps them: an empty key would match every other such title
    return words or " ".join(plain.split())


class TypoIndex:
    """Known names that are found with a few wrong letters, by optimal string alignment distance.

    One edit is a letter too many, too few or wrong, or two neighbours swapped.

    Args:
        names: title keys.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._by_length: dict[int, list[str]] = {}
        for name in names:
            self._by_length.setdefault(len(name), []).append(name)

    def nearest(self, typed: str) -> list[tuple[str, int]]:
        """Return the names with the fewest edits, and how many these are; nothing when none is near enough."""
        reach = _allowed_edits(len(typed))
        lengths = range(len(typed) - reach, len(typed) + reach + 1)
        names = [name for length in lengths for name in self._by_length.get(length, ())]
        near = process.extract(typed, names, scorer=OSA.distance, score_cutoff=reach, limit=None)
        found = [(name, int(edits)) for name, edits, _ in near if _is_typo(typed, name, int(edits))]
        return [one for one in found if one[1] == found[0][1]]


class TitleMatcher:
    """Finds the one row a typed title means."""

    def __init__(self, titles: Sequence[str], years: Sequence[int | None], labels: Sequence[str]) -> None:
        self._titles, self._years, self._labels = titles, years, labels
        self._keys = [title_key(title) for title in titles]
        self._stages = tuple(
            _key_table(map(keys, titles)) for keys in (_full_keys, _variant_keys, _head_keys, _articleless_keys)
        )
        self._index = TypoIndex(self._stages[0])

    def find(self, title: str) -> int:
        """Return the row; exact beats part-of-title beats misspelt.

        Raises:
            RequestError: nothing fits or several different titles do; names the closest.
        """
        found = self.exact(title)
        if found is None:
            found = self.misspelt(title)
        if found is None:
            near = ", ".join(self._labels[row] for row in self.closest(title, 3))
            raise RequestError(f"no title {title!r} in this catalogue; the closest are: {near}")
        return found

    def exact(self, title: str) -> int | None:
        """Return the row of a title, or of part of one, typed as it is; None when there is none.

        Raises:
            RequestError: several different titles fit.
        """
        bare, year = split_year(title.strip())
        found = self._exact(bare, year)
        if found is None and year is None and (match := _BARE_YEAR.match(bare)):
            found = self._exact(match["title"], int(match["year"]))
        return found

    def closest(self, title: str, n: int) -> list[int]:
        """Return the `n` rows whose titles look most like it, best first, ties by row."""
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
        """Narrow to the asked year; off by one is a release elsewhere, more is another work."""
        if year is None:
            return list(rows)
        exact = [row for row in rows if self._years[row] == year]
        return exact or [row for row in rows if abs((self._years[row] or year) - year) <= 1]

    def _single(self, rows: Sequence[int], title: str) -> int:
        """Return the lowest row when all have one title (the same work under two ids), else refuse."""
        if len({self._keys[row] for row in rows}) > 1:
            names = ", ".join(self._labels[row] for row in rows[:5])
            raise RequestError(f"the title {title!r} could be any of: {names}")
        return rows[0]

    def misspelt(self, title: str) -> int | None:
        """Return the row of a title with typos; None when there is none.

        Raises:
            RequestError: several different titles are as near.
        """
        rows = self.nearest(title)
        return self._single(rows, title) if rows else None

    def nearest(self, title: str) -> list[int]:
        """Return the rows whose whole title has the fewest typos, ascending; of the year where one is given."""
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
    """The whole title, with and without its article."""
    key = title_key(display_title(title.strip()))
    return list(dict.fromkeys([key, _LEADING.sub("", key)]))


def _variant_keys(title: str) -> list[str]:
    """Any name of `Il Postino (The Postman)`."""
    called = title_variants(title)
    return [key for name in called for key in _full_keys(name)] if len(called) > 1 else []


def _articleless_keys(title: str) -> list[str]:
    """Any name of a title without what may be an article: `Welle` of `The Wave (Die Welle)`.

    Where there is one name only, an article that is an English word, too, is taken for that: `Hard` is not `Die Hard`.
    """
    called = title_variants(title)
    bare = [title_key(_ELIDED.sub("", name)) for name in called]
    return [_ANY_LEADING.sub("", key) for key in bare] if len(called) > 1 else bare


def _head_keys(title: str) -> list[str]:
    """The part before a subtitle: `Terminator 2` of `Terminator 2: Judgment Day`."""
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
    """How many edits are forgiven in a title of so many letters."""
    if letters < _VERY_LONG:
        return (letters >= _SHORTEST) + (letters >= _LONG)
    return letters // 10


def _is_typo(typed: str, known: str, edits: int) -> bool:
    """Tell a misspelling from another title: numbers agree, and a short title differs by more than a plural."""
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
