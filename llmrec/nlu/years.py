"""Parses years and list lengths: `the nineties`, `before 1980`, `newer`, `give me five`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from llmrec.data.filters import Range
from llmrec.nlu import cue_phrases
from llmrec.nlu.english import DECADES, NUMBER_WORDS

Span: TypeAlias = tuple[int, int]
YearParse: TypeAlias = tuple[Range | None, list[Span], list[str]]
RangeMatch: TypeAlias = tuple[Range, Span] | None

_COUNT = rf"(?P<count>\d{{1,6}}|{'|'.join(NUMBER_WORDS)}|a couple(?: of)?|a few)"
_DECADES = {word: number * 10 for number, word in enumerate(DECADES, start=2)}
_OLD, _RECENT = 25, 3
_YEAR = r"(?:1[89]\d\d|20\d\d)"
_BETWEEN = re.compile(
    rf"\b(?:between|from)\s+({_YEAR})\s+(?:and|to|until|till|through)\s+({_YEAR})\b"
    rf"|\b({_YEAR})\s*[-\u2013\u2014]\s*({_YEAR})\b"
)
_DECADE = re.compile(
    rf"(?:\b(?P<part>early|mid|late)[\s-]+(?:the )?)?(?<!\w)(?:(?P<full>{_YEAR})|'?(?P<short>\d0)"
    rf"|(?P<word>{'|'.join(_DECADES)}))"
    r"(?(word)\b|'?s\b)"
)
_BEFORE = re.compile(
    rf"\b(?:(?P<strict>before|older than|earlier than|prior to|pre)|until|till|up to|no later than"
    rf"|not after)[\s-]+(?:the year )?"
    rf"(?P<year>{_YEAR})\b(?!'?s)"
)
_AFTER = re.compile(
    rf"\b(?:(?P<strict>after|newer than|later than|more recent than|past|post)|since|from|starting in"
    rf"|not before)"
    rf"[\s-]+(?:the year )?(?P<year>{_YEAR})(?P<open>\s*(?:on|onwards?|or later|or newer|and later"
    rf"|\+))?(?!'?s)(?!\d)"
)
_EXACT = re.compile(rf"(?<![\d-])({_YEAR})(?!\d|'?s\b)")
_RELATIVE = re.compile(r"\b(?P<way>newer|more recent|less old|older|less recent)\b(?! than\b)")
_VAGUE = re.compile(r"\b(?:(?P<old>old(?! enough| fashioned)|classics?|oldies)|(?P<new>recent|modern|latest|newest))\b")
# a negation applies to the year only if it has no other object: "nothing from the", but not "no comedies from the"
_PLAIN = "from|the|in|of|films?|movies?|books?|items?|anything|stuff|made|released|any|want|like|too|ones?"
_NEGATED = re.compile(rf"\b(?:no|not|nothing|without|except|avoid|dont want|don't want)(?:\s+(?:{_PLAIN}))*\s*$")
_OR_LATER = re.compile(r"^\s*(?:or (?:later|newer|after)|and (?:later|newer|after)|onwards?|\+)(?!\w)")
_OR_EARLIER = re.compile(r"^\s*(?:or|and) (?:earlier|older|before)\b")


def parse_years(text: str, shown: Sequence[int], known: Sequence[int]) -> YearParse:
    """Parse a range of years.

    Args:
        text: lower case, with titles blanked out.
        shown: years of the items on display, for `newer` and `older`.
        known: all years in the catalogue, sorted.

    Returns:
        (low, high) inclusive or None, the character spans that were parsed, and remarks on what could not be done.
    """
    for reader in (_parse_between, _parse_decade, _parse_bound, _parse_exact):
        found = reader(text, known)
        if found is not None:
            bound, place = found
            return _negate_range(bound, known, place) if _NEGATED.search(text[: place[0]]) else (bound, [place], [])
    return _parse_relative(text, shown, known)


def _negate_range(bound: Range, known: Sequence[int], place: Span) -> YearParse:
    """Return the complement of a range of years, or a remark if the catalogue has years on both sides of it.

    `not from the nineties` is a single range only when the catalogue has no earlier or no later years.
    """
    low, high = bound
    if high is not None and (low is None or not any(year < low for year in known)):
        return (high + 1, None), [place], []
    if low is not None and (high is None or not any(year > high for year in known)):
        return (None, low - 1), [place], []
    return (
        None,
        [place],
        [f"I cannot leave out {low:g}\N{EN DASH}{high:g} alone; name an earlier or a later time instead."],
    )


def _parse_between(text: str, known: Sequence[int]) -> RangeMatch:
    match = _BETWEEN.search(text)
    if match is None:
        return None
    years = sorted(int(group) for group in match.groups() if group)
    return (years[0], years[1]), match.span()


def _parse_decade(text: str, known: Sequence[int]) -> RangeMatch:
    match = _DECADE.search(text)
    if match is None:
        return None
    low, high = _decade(match, known)
    second = _DECADE.search(text, match.end())
    if second and re.fullmatch(
        r"\s*(?:and|to|or|through|until|,|/|-|\u2013)\s*(?:the )?\s*", text[match.end() : second.start()]
    ):
        other = _decade(second, known)
        start = re.search(r"\b(?:between|from)\s+(?:the )?$", text[: match.start()])
        return (min(low, other[0]), max(high, other[1])), (
            start.start() if start else match.start(),
            second.end(),
        )
    return _decade_bound(text, match.span(), (low, high))


def _decade(match: re.Match[str], known: Sequence[int]) -> tuple[int, int]:
    if match["full"]:
        start = int(match["full"]) // 10 * 10
    else:
        ten = int(match["short"]) if match["short"] else _DECADES[match["word"]]
        # "the 20s" means the 2020s only where the catalogue has those and no 1920s
        recent = ten < 30 and bool(known) and known[-1] >= 2000 + ten and known[0] >= 1910 + ten
        start = 2000 + ten if recent or ten == 0 else 1900 + ten
    low, high = {"early": (0, 3), "mid": (4, 6), "late": (7, 9)}.get(match["part"] or "", (0, 9))
    return start + low, start + high


def _decade_bound(text: str, place: Span, decade: tuple[int, int]) -> tuple[Range, Span]:
    """Return the range of a decade, or the range that it bounds: `before the eighties`, `since the 90s`."""
    low, high = decade
    if later := _OR_LATER.match(text[place[1] :]):
        return (low, None), (place[0], place[1] + later.end())
    if earlier := _OR_EARLIER.match(text[place[1] :]):
        return (None, high), (place[0], place[1] + earlier.end())
    edge = re.search(
        r"\b(?P<word>before|older than|pre|after|newer than|post|since|until|up to)[\s-]+(?:the\s+)?$",
        text[: place[0]],
    )
    if edge is None:
        return decade, place
    bounds: dict[str, Range] = {
        "after": (high + 1, None),
        "newer than": (high + 1, None),
        "post": (high + 1, None),
    }
    bounds |= {"since": (low, None), "until": (None, high), "up to": (None, high)}
    return bounds.get(edge["word"], (None, low - 1)), (edge.start(), place[1])


def _parse_bound(text: str, known: Sequence[int]) -> RangeMatch:
    before, after = _BEFORE.search(text), _AFTER.search(text)
    high = int(before["year"]) - (1 if before["strict"] else 0) if before else None
    if after is None:
        return None if before is None else ((None, high), before.span())
    low = int(after["year"]) + (1 if after["strict"] else 0)
    if before is not None and high is not None:
        inside = low <= high and not _NEGATED.search(text[: before.start()])
        places = (min(before.start(), after.start()), max(before.end(), after.end()))
        return ((low, high), places) if inside else ((None, high), before.span())
    plain_from = after.group().startswith("from") and not after["open"]
    return ((low, low) if plain_from else (low, None)), after.span()


def _parse_exact(text: str, known: Sequence[int]) -> RangeMatch:
    match = _EXACT.search(text)
    return None if match is None else _decade_bound(text, match.span(), (int(match[1]), int(match[1])))


def _parse_relative(text: str, shown: Sequence[int], known: Sequence[int]) -> YearParse:
    match = _RELATIVE.search(text)
    newer = match is not None and match["way"] in {"newer", "more recent", "less old"}
    if match is None:
        match = _VAGUE.search(text)
        newer, shown = match is not None and bool(match["new"]), ()
    if match is None or not known:
        return None, [], []
    if shown:
        middle = sorted(shown)[len(shown) // 2]
        bound: Range = (middle + 1, None) if newer else (None, middle - 1)
    else:
        # old: at least 25 years before the newest item, or the oldest quarter of a younger catalogue; recent: the last
        # 3 years
        old = known[-1] - _OLD if known[0] <= known[-1] - _OLD else known[len(known) // 4]
        bound = (known[-1] - _RECENT, None) if newer else (None, old)
    return bound, [match.span()], []


def years_relative_to(before: str, years: Sequence[int]) -> tuple[Range, tuple[int, int]] | None:
    """Return the range of years that `newer than ITEMS` or `older than ITEMS` allows, and the phrase's span.

    None when the text before the items does not end with such a phrase.

    Args:
        before: the text before the items, lower case.
        years: the years of the items.
    """
    newer, older = cue_phrases.NEWER_THAN.search(before), cue_phrases.OLDER_THAN.search(before)
    if years and newer:
        return (max(years) + 1, None), newer.span()
    return ((None, min(years) - 1), older.span()) if years and older else None


def parse_list_length(text: str, nouns: str, longest: int) -> tuple[int, list[Span], list[str]]:
    """Parse how many items are asked for: `give me 5`, `top 10`, `three films`; 0 when no number is given.

    Args:
        text: lower case, with titles and years blanked out.
        nouns: alternatives of a regular expression for the domain's nouns.
        longest: the most items that may be listed.
    """
    verb = (
        r"(?:give|show|recommend|suggest|list|find|get|name|want|need|top|just|only|best|limit(?:ed)?"
        r"|keep|cut|reduce|shorten|make)(?: me| us| it| them| this| that| the list)?(?: down)?(?: to)?"
    )
    things = rf"(?:{nouns}|more|others?|recommendations?|suggestions?|titles?|options?|ideas?|picks?|things?)"
    some = r"(?!\s+(?:like|one\b|of\b(?! (?:them|these|those|your|the best)\b)))"
    asked_for = rf"\b{verb}(?: the| your)?(?: top| best)? {_COUNT}\b{some}"
    counted = rf"\b{_COUNT.replace('count', 'number')} (?:(?!of\b)[\w-]+ ){{0,3}}?{things}\b"
    alone = _COUNT.replace("count", "alone")
    enough = rf"(?:^\W*|[,.]\s+){alone} (?:will do|(?:is|are) (?:enough|plenty|fine)|at most|max)\b"
    match = re.search(f"{asked_for}|{counted}|{enough}", text)
    if match is None:
        return 0, [], []
    raw = match["count"] or match["number"] or match["alone"]
    asked = NUMBER_WORDS.get(raw) or (3 if raw == "a few" else 2 if raw.startswith("a couple") else int(raw))
    if asked > longest:
        return longest, [match.span()], [f"I list at most {longest} at a time."]
    if asked < 1:
        return 0, [match.span()], ["I need at least 1 to list."]
    # only the number counts as parsed: in "two funny space films" the rest describes what is wanted
    return asked, [match.span(next(name for name in ("count", "number", "alone") if match[name]))], []
