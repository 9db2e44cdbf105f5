"""Reads for whom an item must be suitable, how intense it may be, and how long: `for my 6 year old`, `not too scary`.

These limits protect people, so they are hard: an item whose field is empty does not pass. Only attributes that the
catalogue has are limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llmrec.data.attribute_types import INTENSITIES
from llmrec.data.catalog import Catalog
from llmrec.data.filters import Filters
from llmrec.nlu.english import NUMBERS

AUDIENCE, MINUTES = "audience", "minutes"

_SMALL, _FAMILY, _TEENS = "small children", "family", "teenagers"
_OLDEST = {_SMALL: 6, _FAMILY: 12, _TEENS: 17}  # years of age up to which each group is meant
_NUMBER = {word: number for number, word in enumerate(NUMBERS, start=1)} | {"a": 1, "an": 1, "one": 1, "two": 2}
_COUNT = rf"(?P<n>\d{{1,3}}(?:\.\d+)?|an?|{'|'.join(NUMBERS)})"
_WHO = (
    r"(?:(?:my|our|the|his|her|their|some|a|with|and|two|three|whole|entire|little|young(?:er)?|small|own) )*"
    r"(?:kids?|child(?:ren)?|sons?|daughters?|nephews?|nieces?|grandchild(?:ren)?|grandkids?|grandson|granddaughter"
    r"|family|families|boys?|girls?|little ones?)"
)
_AGE = re.compile(
    rf"(?:\b(?:for|with|and) (?:my |our |an? |the |his |her |their )*)?{_COUNT}(?:(?: (?:and|or|to) |-| & )"
    r"(?P<m>\d{1,2}))?[- ]?(?:years?|yrs?|yo|y/o)\b(?:[- ]olds?)?(?: (?:son|daughter|kid|child|boy|girl|nephew|niece"
    r"|grandson|granddaughter|children|kids|boys|girls|cousin|brother|sister)s?)?"
    rf"|\b(?:kids?|children|boys?|girls?|child) (?:aged?|of|who (?:is|are)) (?P<n2>\d{{1,2}})\b(?: years?)?"
)
_OLD = re.compile(r"old|\byo\b|y/o|aged?|kid|child|boy|girl|son\b|daughter|nephew|niece")
_GROUPS = (
    (_SMALL, re.compile(r"\b(?:for|with) (?:my |our |the )?(?:very |really )?(?:(?:small|young|little) "
                        r"(?:kids?|child(?:ren)?|ones?)|toddlers?|pre-?schoolers?|kindergart\w+)\b"
                        r"|\b(?:toddlers?|pre-?school)[- ](?:friendly|age)\b")),
    (_TEENS, re.compile(r"\bfor (?:my |our |the |some |a )?(?:teens?|teenagers?|teenage (?:son|daughter|kids?|boys?"
                        r"|girls?)|adolescents?)\b")),
    (_FAMILY, re.compile(rf"\b(?:for|with|suit(?:able|s)? (?:for)?|appropriate for|okay? for|safe for) {_WHO}\b"
                         r"(?! (?:of|in)\b)"
                         r"|\b(?:kid|child|children|family)[- ](?:friendly|safe|appropriate|suitable)\b"
                         r"|\bfamily (?:movies?|films?|night|evening|entertainment|fun|viewing|watching)\b"
                         r"|\b(?:kids|children'?s|kiddie) (?:movies?|films?)\b"
                         r"|\b(?:my |the |our )(?:kids?|children|son|daughter|family) (?:can|could|will|would|might|to)"
                         r" (?:watch|see|enjoy|like)\b|\ball ages\b|\brated (?:g|pg)\b(?!-)")),
)  # fmt: skip
_WORDS = {
    "violence": r"violen(?:t|ce)|gor[ey]|gory|blood(?:y|shed)?|brutal(?:ity)?|killings?|fighting|guns?|graphic",
    "fright": r"scar(?:y|es?|ing)|fright(?:ening|s)?|terrifying|creepy|spooky|disturbing|nightmares?|jump scares?"
    r"|horror elements",
    "sex": r"sex(?:ual(?:ity)?|y)?(?: scenes?| stuff| content)?|nud(?:e|ity)|naked(?:ness)?|erotic|explicit|raunchy",
}
_NONE = (
    r"\b(?:no|nothing|zero|without(?: any)?|free of|avoid(?:ing)?|not any|don'?t (?:like|want|enjoy|need)(?: any)?"
    r"|do not (?:like|want)(?: any)?|hate|can'?t (?:stand|handle|take|watch)|leave out|isn'?t|not|never|anything but)"
)
_SOME = (
    r"\b(?:not (?:too|so|very|that|overly|as|really|super)|nothing (?:too|so|very|that|overly)|isn'?t (?:too|so|very"
    r"|that|overly)|aren'?t (?:too|so|very)|less|without (?:too )?much|not (?:too )?much|low|little|minimal|mild"
    r"|mildly|(?:too|so) much|fewer|light on)"
)
_BELOW = r"under|below|less than|shorter than|at most|no (?:more|longer) than|not (?:more|longer) than|up to|within|max"
_ABOVE = r"over|above|more than|longer than|at least|no less than|not under"
_HOURS = (
    rf"{_COUNT}(?: and an? (?P<half>half)|(?P<half2>\.5| 1/2))?[- ]?(?:hours?|hrs?|h)\b(?: and an? (?P<half3>half))?"
)
_LENGTH = re.compile(
    rf"\b(?:(?P<below>{_BELOW})|(?P<above>{_ABOVE}))(?: about| around)? (?:{_HOURS}(?:(?: and)? (?P<extra>\d{{1,2}}) "
    r"?(?:minutes?|mins?|m)\b)?|(?P<minutes>\d{1,3})[- ]?(?:minutes?|mins?)\b)(?: long)?"
)
_SHORT, _LONG = 95, 150  # minutes: a fifth of the films of MovieLens-100k are shorter, a fifteenth are longer
_BRIEF = re.compile(r"\b(?:(?:something|anything|nothing too|not too|rather|pretty|fairly) (?P<word>short|long)\b"
                    r"|(?P<word2>short|long) (?:film|movie)s?\b|(?P<quick>quick watch)\b)")  # fmt: skip


@dataclass(frozen=True)
class Suitability:
    """What must hold.

    Attributes:
        filters: the limits.
        places: character spans that were read.
    """

    filters: Filters
    places: tuple[tuple[int, int], ...]


def suitability(text: str, catalog: Catalog) -> Suitability:
    """Read the limits in a message.

    Args:
        text: lower case with straight apostrophes, titles blanked out.
        catalog: only attributes that it has are limited.
    """
    own = set(catalog.attribute_names)
    all_of: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, tuple[float | None, float | None]] = {}
    places: list[tuple[int, int]] = []
    groups = list(_audiences(text)) if AUDIENCE in own else []
    groups = [one for one in groups if one[0] in catalog.values(AUDIENCE)]
    if groups:
        youngest = min((one[0] for one in groups), key=list(_OLDEST).index)
        all_of[AUDIENCE] = (youngest,)
        places += [place for _, place in groups]
    for name in INTENSITIES:
        if name in own:
            for most, place in _limits(text, _WORDS[name]):
                ranges[name] = (None, min(most, ranges.get(name, (None, most))[1] or most))
                places.append(place)
    if MINUTES in own and (found := _length(text)) is not None:
        ranges[MINUTES], place = found
        places.append(place)
    return Suitability(Filters(all_of=all_of, ranges=ranges), tuple(sorted(places)))


def _audiences(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
    for match in _AGE.finditer(text):
        written = (match["m"] and match["n"] and min(match["n"], match["m"], key=_value)) or match["n"] or match["n2"]
        age = _value(written)
        if _OLD.search(match.group()) and age < 18:
            yield next(group for group, oldest in _OLDEST.items() if age <= oldest), match.span()
    for group, pattern in _GROUPS:
        for match in pattern.finditer(text):
            yield group, match.span()


def _limits(text: str, words: str) -> Iterator[tuple[int, tuple[int, int]]]:
    """The greatest intensity allowed and where it was said: 1 for `not too`, 0 for `no`."""
    between = r"(?:(?:too|so|very|much|real|really|any|of|\w+y) )?(?:\w+,? (?:or|and|nor) (?:no |too )?)?"
    for most, opening in ((1, _SOME), (0, _NONE)):
        for match in re.finditer(rf"{opening} {between}(?:{words})\b", text):
            if most or not re.match(_SOME, text[match.start() :]):
                yield most, match.span()


def _length(text: str) -> tuple[tuple[float | None, float | None], tuple[int, int]] | None:
    match = _LENGTH.search(text)
    if match is not None:
        half = 30 if match["half"] or match["half2"] or match["half3"] else 0
        minutes = float(match["minutes"] or 0) or 60 * _value(match["n"]) + half + float(match["extra"] or 0)
        strict = 0 if match.group().startswith(("at", "no", "up", "within", "max")) else 1
        return ((None, minutes - strict) if match["below"] else (minutes + strict, None)), match.span()
    brief = _BRIEF.search(text)
    if brief is None:
        return None
    word = brief["word"] or brief["word2"] or "short"
    if "not too" in brief.group() or "nothing too" in brief.group():
        return ((None, _LONG - 1) if word == "long" else (_SHORT + 1, None)), brief.span()
    return ((None, _SHORT) if word == "short" else (_LONG, None)), brief.span()


def _value(text: str | None) -> float:
    return float(_NUMBER.get(text or "", 0)) if text in _NUMBER else float(text or 0)
