"""Parses constraints on audience, intensity, length, spoken language, and place and time of the story.

`for my 6 year old` and `not too scary` protect people, so they are hard limits: an item without a value for the field
does not pass. Only attributes that the catalogue has are limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llmrec.data.attribute_types import INTENSITIES
from llmrec.data.catalog import Catalog
from llmrec.data.filters import Filters, Range
from llmrec.nlu.english import NUMBER_WORDS, NUMBERS

AUDIENCE, MINUTES = "audience", "minutes"
PERIOD, PLACE, LANGUAGE = "period", "place", "language"
Span = tuple[int, int]

_SMALL, _FAMILY, _TEENS = "small children", "family", "teenagers"
_OLDEST = {_SMALL: 6, _FAMILY: 12, _TEENS: 17}  # greatest age in years of each group
_N = rf"(?:\d{{1,2}}|{'|'.join(NUMBERS)})"
_CHILD = (
    r"(?:kids?|child(?:ren)?|sons?|daughters?|nephews?|nieces?|grand(?:child(?:ren)?|kids?|sons?|daughters?)|boys?"
    r"|girls?|little (?:ones?|brother|sister|cousin))"
)
_NOT_AN_AGE = r"(?! ?(?:films?|movies?|minutes?|mins?|hours?|ones?|of|suggestions?|or so|more|titles?|stars?)\b)"
# `6 year old`, `5yo`; `kids are 4 and 6`, `my son is five`; `aged 8`, `just turned four`; `I'm 10`, `she is 9`
_AGES = re.compile(
    rf"\b(?P<years>{_N})(?: ?(?:and|or|to|&|-) ?(?P<years_to>{_N}))?(?: and a half)?[- ]?(?:years?[- ]?olds?"
    rf"|yrs?[- ]old|yo\b|y/o|year[- ]olds?)"
    rf"|\b{_CHILD}\b,?(?: (?:who|that|and|with|she|he|they|is|are|was|just|only|almost|nearly|now|turned|turning|aged?"
    rf"|of|has|have))* (?P<child>{_N})\b{_NOT_AN_AGE}(?:(?:,| and| or| to) (?P<child_to>{_N})\b)?"
    rf"|\b(?:ages?|aged|turn(?:s|ed|ing)?|youngest (?:is|has))(?: of| from)? (?P<aged>{_N})\b"
    rf"(?:(?: and| or| to|-) ?(?P<aged_to>{_N})\b)?"
    rf"|\b(?:i'?m|i am|(?:s?he|they)(?:'?s| is|'?re| are))(?: (?:just|only|almost|nearly))* (?P<person>{_N})\b"
    rf"{_NOT_AN_AGE}(?! ?(?:fan|in|into|sure|looking))"
)
_SMALL_WORDS = re.compile(
    r"\b(?:toddlers?|pre-?school(?:ers?)?|kindergart\w+|nursery(?: school)?|(?:very |really )?(?:small|young|tiny"
    r"|little) (?:kids?|child(?:ren)?)|little ones?|bab(?:y|ies))\b(?! (?:in|film|movie)\b)"
)
_TEEN_WORDS = re.compile(
    r"\b(?:for|with|my|our) (?:\w+ )?(?:teens?|teenagers?|teenage (?:son|daughter|kids?|boys?|girls?)|adolescents?)\b"
)
_FAMILY_WORDS = re.compile(
    rf"\b(?:for|with|my|our|the|his|her|take|and) (?:(?:the|my|our|his|her|their|some|two|three|whole|entire|own"
    rf"|all) )*(?:{_CHILD}|family)\b(?! (?:of|in|is about)\b)"
    r"|\b(?:kid|kids|child|children|family)[- ](?:friendly|safe|appropriate|suitable)\b|\ball ages\b"
    r"|\bfamily (?:movies?|films?|night|evening|entertainment|fun|viewing)\b|\bkids (?:movies?|films?)\b"
    r"|\b(?:kids|children|everyone|all of us) and (?:grown-?ups|adults|grandparents|parents)\b"
    r"|\b(?:first|second|third|fourth|fifth|sixth|elementary|primary) (?:grade|school|graders?)\b"
    r"|\brated (?:g|pg)\b(?!-)"
)
_ABOUT = re.compile(r"\b(?:about|starring|featuring|of|story of)(?: \w+)? $")

_WORDS = {
    "violence": r"violen(?:t|ce)|gor[ey]|gory|blood(?:y|shed)?|brutal(?:ity)?|kill(?:ings?|ed|s)?|fighting|guns?"
    r"|shooting|graphic|(?:gets?|getting) hurt|cruel(?:ty)?",
    "fright": r"scar(?:y|es?|ed|ing)|fright(?:en(?:ing|ed)|s)?|terrifying|creepy|spooky|disturbing|nightmares?"
    r"|jump scares?|afraid|fear|terrified|freaks? (?:me|her|him|us) out|spooked",
    "sex": r"sex(?:ual(?:ity)?|y)?(?: scenes?| stuff| content)?|nud(?:e|ity)|naked(?:ness)?|erotic|explicit|raunchy"
    r"|steamy|bedroom scenes?|love scenes?|undress\w*",
}
_IMPLIED = {
    "violence": frozenset(["violent", "gory", "guns", "murder"]),
    "fright": frozenset(["frightening", "creepy", "spooky", "chilling"]),
    "sex": frozenset(["erotic", "sensual", "sex", "pornography", "rape"]),
}  # values of controlled lists; excluding one of them limits the intensity
_PLAINLY_NONE = re.compile(r"\bnon-?violent\b")
_NEGATION = (
    r"(?:\b(?:no|not|nothing|never|none|nobody|without|avoid\w*|skip|hates?|dislike|cannot|cant|dont|wont|doesnt|isnt"
    r"|arent|shouldnt|tired of|sick of|leave out|rather not|anything but|except|minus|faint|squeamish|awkward|hides?"
    r"|sensitive|afraid of|free of|low on|light on|keep it low)\b|n't\b)"
)
_DEGREE = r"\b(?:too|so|very|overly|that|as|really|super|much|low|light)\b"
_LESS = r"\b(?:less|low|little|minimal|minimum|mildly|mild|fewer|tame|tone down|toned down)\b"
_FINE_WITH = re.compile(r"\b(?:don'?t mind|not afraid of|ok(?:ay)? with|fine with|no problem with|don'?t care about)\b")
_AFTERWARDS = re.compile(
    r"\s*(?:\w+ ){0,2}?(?:to a minimum|is a no|are a no|bothers?|upsets?|puts? me off|is out|are out"
    r"|(?:is|are)(?: not|n't)|isn't for|aren't for|off the table)"
)
_CLAUSE = re.compile(r"[.;!?]|\bbut\b(?! (?:not|no|nothing|without)\b)")
_REACH = 45  # characters between a negation and what it rules out

_DURATION = re.compile(
    rf"\b(?P<n>\d{{1,3}}(?:\.\d+)?|an?|{'|'.join(NUMBERS)})(?P<half> and a half|\.5| 1/2)?[- ]?(?P<unit>hours?|hrs?|h"
    rf"|minutes?|mins?)\b(?P<half2> and a half)?(?:(?: and)? (?P<extra>\d{{1,2}}) ?(?:minutes?|mins?|m)\b)?(?: long)?"
)
_SHORTER = r"under|below|less|shorter|at most|up to|within|max(?:imum)?|tops|no more|fewer|by then|till then"
_LONGER = r"over|above|more|longer|past|at least|min(?:imum)?|upwards?|exceed\w*|beyond"
_BEFORE = re.compile(rf"\b(?:(?P<shorter>{_SHORTER})|(?P<longer>{_LONGER}))\b(?: \w+){{0,3}} ?$")
_NOT_BEFORE = re.compile(
    r"(?:\b(?:not|no|nothing|never|doesn'?t|don'?t|can'?t|cannot|shouldn'?t|won'?t)|n't)\b(?: \w+){0,3} $"
)
_AFTER = re.compile(r"\s*(?:or|and|,)?\s*(?:(?P<shorter>less|shorter|tops|max(?:imum)?|at most|or under)"
                    r"|(?P<longer>more|longer|up|upwards?|min(?:imum)?|at (?:the very )?least|plus))\b"
                    r"|[^.;!?]{0,30}?(?P<until>\b(?:can'?t be|not be|no)(?: any)? longer\b"
                    r"|\b(?:over|done|finish\w*) (?:by|before)\b)")  # fmt: skip
_STRICT = re.compile(r"\b(?:under|below|less|shorter|over|above|more|longer)\b")
_SHORT, _LONG = 95, 150  # minutes: a fifth of the films of MovieLens-100k are shorter, a fifteenth are longer
_BRIEF = re.compile(
    r"\b(?:(?:something|anything|nothing too|not too|rather|pretty|fairly|really|very) (?P<word>short|long)\b"
    r"|(?P<word2>short|long) (?:film|movie)s?\b|(?P<quick>quick watch)\b)"
)
# Words that show that a message is about the story (_SETTING); after words of _MADE a time or place is about the
# production instead.
_SETTING = re.compile(
    r"\b(?:set|takes? place|taking place|plays?|playing|happens?|happening|situated|located|location|stor(?:y|ies)|plot"
    r"|action|back then|lived?|living|characters|takes place then)\b"
)
_MADE = re.compile(r"\b(?:made|released|shot|filmed|produced|came out|from|of)(?: in)?(?: the)? $")
_WHEN = re.compile(
    r"\b(?P<when>(?:19)?[0-9]0'?s|1[5-9]th century|middle ages|antiquity|ancient times|near future|far future|future"
    r"|prehistory)\b"
)
_SPOKEN = re.compile(
    r"\b(?:spoken in|speaks?|language is|audio in|in) (?P<before>[a-z]+)\b"
    r"(?! (?:film|movie|cinema|production|city|town|style))"
    r"|\b(?P<after>[a-z]+)[- ](?:speaking|language|spoken|audio|dialogue)\b"
)
_PERIODS = {"ancient times": "antiquity", "future": "far future"}


@dataclass(frozen=True)
class Suitability:
    """The suitability limits of a message.

    Attributes:
        filters: the limits.
        places: character spans that were parsed.
    """

    filters: Filters
    places: tuple[Span, ...]


def parse_suitability(text: str, catalog: Catalog) -> Suitability:
    """Parse the limits in a message.

    Args:
        text: lower case, with straight apostrophes and titles blanked out.
        catalog: only attributes that it has are limited.
    """
    own = set(catalog.attribute_names)
    all_of: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, Range] = {}
    places: list[Span] = []
    if AUDIENCE in own:
        groups = [one for one in _audiences(text) if one[0] in catalog.values(AUDIENCE)]
        if groups:
            all_of[AUDIENCE] = (min((group for group, _ in groups), key=list(_OLDEST).index),)
            places += [place for _, place in groups]
    for name in INTENSITIES:
        for most, place in _limits(text, name) if name in own else ():
            earlier = ranges.get(name, (None, None))[1]
            ranges[name] = (None, most if earlier is None else min(most, earlier))
            places.append(place)
    if MINUTES in own and (length := _length(text)) is not None:
        ranges[MINUTES] = length[0]
        places.append(length[1])
    for name, parse in ((PERIOD, _period), (PLACE, _place), (LANGUAGE, _language)):
        found = parse(text, catalog) if name in own else None
        if found is not None:
            all_of[name] = (found[0],)
            places.append(found[1])
    return Suitability(Filters(all_of=all_of, ranges=ranges), tuple(sorted(places)))


def with_intensity_limits(filters: Filters, catalog: Catalog) -> Filters:
    """Add the limits that excluded values imply, and remove required values that a limit contradicts.

    `no violent ones` also limits `violence`, besides excluding a mood. `I don't like scary films, the last scary one
    ...` asks for no scary film.
    """
    gone = {value.casefold() for values in filters.none_of.values() for value in values}
    implied = {name: (None, 1.0) for name, values in _IMPLIED.items() if gone & values and name not in filters.ranges}
    own = {name: bound for name, bound in implied.items() if name in catalog.attribute_names}
    limited = [name for name, bound in filters.ranges.items() if name in _IMPLIED and bound[1] is not None]
    contrary = frozenset[str]().union(*(_IMPLIED[name] for name in limited))
    wanted = [
        {name: values for name, values in part.items() if contrary.isdisjoint(value.casefold() for value in values)}
        for part in (filters.any_of, filters.all_of)
    ]
    return Filters(wanted[0], wanted[1], filters.none_of, filters.ranges).merge(Filters(ranges=own))


def _audiences(text: str) -> Iterator[tuple[str, Span]]:
    for match in _AGES.finditer(text):
        ages = [_value(found) for found in match.groupdict().values() if found]
        if min(ages) < 18:
            yield next(group for group, oldest in _OLDEST.items() if min(ages) <= oldest), match.span()
    for group, pattern in ((_SMALL, _SMALL_WORDS), (_TEENS, _TEEN_WORDS), (_FAMILY, _FAMILY_WORDS)):
        for match in pattern.finditer(text):
            if not _ABOUT.search(text[: match.start()]):
                yield group, match.span()


def _limits(text: str, name: str) -> Iterator[tuple[int, Span]]:
    """Yield the greatest intensity allowed and the span that says so: 1 for `not too violent`, 0 for `no violence`."""
    if name == "violence":
        yield from ((0, match.span()) for match in _PLAINLY_NONE.finditer(text))
    for match in re.finditer(rf"\b(?:{_WORDS[name]})\b", text):
        start = max((cut.end() for cut in _CLAUSE.finditer(text[: match.start()])), default=0)
        before = text[max(start, match.start() - _REACH) : match.start()]
        shift = match.start() - len(before)
        if _FINE_WITH.search(before):
            continue
        negations = list(re.finditer(_NEGATION, before))
        less = re.search(rf"{_LESS}(?: \w+){{0,3}} ?$", before)
        after = _AFTERWARDS.match(text, match.end())
        if negations:
            degree = re.search(_DEGREE, before[negations[-1].start() :])
            yield (1 if degree or less else 0), (shift + negations[0].start(), match.end())
        elif less or after:
            yield 1, (shift + less.start() if less else match.start(), after.end() if after else match.end())


def _length(text: str) -> tuple[Range, Span] | None:
    for match in _DURATION.finditer(text):
        hours = not match["unit"].startswith("m")
        half = 30 if hours and (match["half"] or match["half2"]) else 0
        minutes = _value(match["n"]) * (60 if hours else 1) + half + float(match["extra"] or 0)
        before, after = _BEFORE.search(text[: match.start()]), _AFTER.match(text, match.end())
        said = before or after
        if said is None:
            continue
        negated = before is not None and _NOT_BEFORE.search(text[: before.start()]) is not None
        until = after is not None and said is after and after["until"] is not None
        below = until or (said["shorter"] is not None) != negated
        strict = 1 if said is before and not negated and _STRICT.search(said.group()) else 0
        span = (before.start() if before else match.start(), after.end() if after else match.end())
        return ((None, minutes - strict) if below else (minutes + strict, None)), span
    brief = _BRIEF.search(text)
    if brief is None:
        return None
    word = brief["word"] or brief["word2"] or "short"
    if "not too" in brief.group() or "nothing too" in brief.group():
        return ((None, _LONG - 1) if word == "long" else (_SHORT + 1, None)), brief.span()
    return ((None, _SHORT) if word == "short" else (_LONG, None)), brief.span()


def _period(text: str, catalog: Catalog) -> tuple[str, Span] | None:
    """Return the value of the attribute `period` that a message names as the time of the story, and its span."""
    for match in _settings(text, _WHEN):
        said = match["when"].replace("'", "")
        said = f"19{said}" if re.fullmatch(r"[0-9]0s", said) else _PERIODS.get(said, said)
        value = next((one for one in catalog.values(PERIOD) if one.casefold() == said), None)
        if value is not None:
            return value, match.span()
    return None


def _place(text: str, catalog: Catalog) -> tuple[str, Span] | None:
    """Return the longest value of the attribute `place` that a message names as the story's place, and its span."""
    if _SETTING.search(text) is None:
        return None
    names = sorted((one for one in catalog.values(PLACE) if one.casefold() in text), key=len, reverse=True)
    for name in names:
        for match in _settings(text, re.compile(rf"\b{re.escape(name.casefold())}\b")):
            return name, match.span()
    return None


def _settings(text: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Yield the matches of a pattern that are about the story, not about when or where the item was made."""
    if _SETTING.search(text):
        yield from (one for one in pattern.finditer(text) if not _MADE.search(text[: one.start()]))


def _language(text: str, catalog: Catalog) -> tuple[str, Span] | None:
    """Return the value of the attribute `language` that a message names as the spoken language, and its span."""
    values = {one.casefold(): one for one in catalog.values(LANGUAGE)}
    for match in _SPOKEN.finditer(text):
        value = values.get(match["before"] or match["after"])
        if value is not None:
            return value, match.span()
    return None


def _value(text: str) -> float:
    return 1.0 if text in ("a", "an") else float(NUMBER_WORDS.get(text) or text)
