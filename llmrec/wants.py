"""Attribute values asked for or excluded in words: negation, its reach, and alternatives."""

from __future__ import annotations

import re

from llmrec.english import LINKS, NEGATION_PAIRS, NEGATIONS, NOT_NEGATIONS, TURNS
from llmrec.filters import Filters
from llmrec.lexicon import Hit, Lexicon, Word

_REACH = 6
_NOUN = r"(?:(?:films?|movies?|books?|games?|songs?|albums?|shows?|items?|ones|stuff|things?) )?"
_THINGS = frozenset(
    ["films", "movies", "books", "games", "songs", "albums", "shows", "items", "ones", "flicks", "things"]
)
_REFUSAL = re.compile(
    rf"{_NOUN}(?:(?:is|are|was|were) (?:just |really |simply |definitely )*(?:not|never|no)|isnt|arent|wasnt|werent)"
    r" (?:for me|my (?:thing|taste|cup|style|kind|favou?rite)|what i|to my|on my|wanted|welcome|an option"
    r"|of interest)\b"
    rf"|{_NOUN}(?:bores?|annoys?|scares?|disgusts?|depress(?:es)?|irritates?) me\b"
    rf"|{_NOUN}(?:is|are) (?:too \w+|boring|awful|terrible|off the table|out of the question|out)\b"
    rf"|{_NOUN}(?:(?:is|are) )?(?:a |an )?(?:no go|nogo|no no|turn off|deal ?breaker|big no)\b"
    rf"|{_NOUN}(?:has|have|need|needs|had) (?:got )?to go\b|{_NOUN}(?:must|can|should) (?:go|stay away)\b"
    rf"|{_NOUN}(?:sucks?|stinks?|(?:put|puts|turn|turns) me off|(?:leave|leaves) me cold|wont do)\b"
    rf"|{_NOUN}(?:do|does) (?:nothing|not (?:appeal|interest|do))\b|{_NOUN}(?:dont|doesnt) (?:appeal|interest|do)\b"
)


def values_wanted(lexicon: Lexicon, words: list[Word], taken: set[int]) -> tuple[Filters, list[Hit]]:
    """Read attribute values: `no horror or war` excludes, `comedy or drama` is a choice, `funny war` both."""
    hits = lexicon.find(words, taken)
    negative = _negated(words, hits) | _refused(words, hits)
    skipped = {index for index, hit in enumerate(hits) if _indifferent(words, hit)}
    wanted = [hit for index, hit in enumerate(hits) if index not in negative and index not in skipped]
    none_of: dict[str, tuple[str, ...]] = {}
    for index in sorted(negative - skipped):
        meaning = hits[index].meaning
        none_of[meaning.attribute] = (*none_of.get(meaning.attribute, ()), *meaning.values)
    any_of: dict[str, tuple[str, ...]] = {}
    all_of: dict[str, tuple[str, ...]] = {}
    for group in _groups(words, wanted):
        values = tuple(dict.fromkeys(value for hit in group for value in hit.meaning.values))
        table = any_of if len(group) > 1 else all_of
        name = group[0].meaning.attribute
        table[name] = tuple(dict.fromkeys((*table.get(name, ()), *values)))
    # a value that is wanted and unwanted in one breath is read as unwanted: showing it would be the worse
    # mistake
    return Filters().merge(Filters(any_of, all_of)).merge(Filters(none_of=none_of)), hits


def _negated(words: list[Word], hits: list[Hit]) -> set[int]:
    starts = {hit.first: index for index, hit in enumerate(hits)}
    inside = {place for hit in hits for place in range(hit.first + 1, hit.last + 1)}
    found: set[int] = set()
    open_since, named = -1, False
    for place, word in enumerate(words):
        if place in inside:
            continue
        if open_since >= 0 and _closes(words, hits, place, open_since, named):
            open_since = -1
        if place in starts:
            if open_since >= 0:
                found.add(starts[place])
                open_since, named = place, True
        elif _is_negation(words, place):
            open_since, named = place, False
        elif word.key in TURNS and open_since >= 0 and (named or place - open_since > 1):
            open_since = -1
    return found


def _refused(words: list[Word], hits: list[Hit]) -> set[int]:
    """Values that what follows them excludes: `westerns are not for me`, `horror bores me`, all of a list before it."""
    found: set[int] = set()
    for index, hit in enumerate(hits):
        end = hits[index + 1].first if index + 1 < len(hits) else len(words)
        after = words[hit.last + 1 : min(end, hit.last + 1 + _REACH)]
        stop = next((n for n, word in enumerate(after) if re.search(r"[.!?;:\n]", word.gap)), len(after))
        if _REFUSAL.match(" ".join(word.key for word in after[:stop])):
            found.add(index)
            while index and all(w.key in LINKS for w in words[hits[index - 1].last + 1 : hits[index].first]):
                index -= 1
                found.add(index)
    return found


def _is_negation(words: list[Word], place: int) -> bool:
    key = words[place].key
    pair = f"{key} {words[place + 1].key}" if place + 1 < len(words) else key
    before = f"{words[place - 1].key} {key}" if place else key
    if pair in NOT_NEGATIONS or before in NOT_NEGATIONS:
        return False
    return key in NEGATIONS or before in NEGATION_PAIRS


def _closes(words: list[Word], hits: list[Hit], place: int, since: int, named: bool) -> bool:
    """A negation ends at a full stop, out of reach, or at a comma that does not go on with a list."""
    gap = words[place].gap
    if re.search(r"[.!?;:\n]", gap) or place - since > _REACH:
        return True
    if "," not in gap:
        return False
    return not named or not _list_goes_on(words, hits, place)


def _list_goes_on(words: list[Word], hits: list[Hit], place: int) -> bool:
    """True for `, war or western`: a value follows, and the list closes with or, nor or and."""
    if words[place].key in {"or", "nor", "and"}:
        return True
    covered = {spot for hit in hits for spot in range(hit.first, hit.last + 1)}
    if place not in covered:
        return False
    for spot in range(place, len(words)):
        if words[spot].key in {"or", "nor", "and"}:
            return spot + 1 in covered or (spot + 2 in covered and words[spot + 1].key in LINKS)
        if spot not in covered and words[spot].key not in LINKS:
            return False
    return False


def _indifferent(words: list[Word], hit: Hit) -> bool:
    """True for `I don't mind horror` and `any horror is fine`-like remarks that neither ask nor exclude."""
    before = " ".join(word.key for word in words[max(0, hit.first - 3) : hit.first])
    return bool(re.search(r"\b(dont mind|dont care|doesnt matter)\b", before))


def _groups(words: list[Word], hits: list[Hit]) -> list[list[Hit]]:
    """Put alternatives together: joined by `or` or `/`, or plural nouns joined by `and` or a comma."""
    groups: list[list[Hit]] = []
    for hit in hits:
        last = groups[-1][-1] if groups else None
        same = last is not None and last.meaning.attribute == hit.meaning.attribute
        if same and last is not None and _alternative(words, last, hit):
            groups[-1].append(hit)
        else:
            groups.append([hit])
    return groups


def _alternative(words: list[Word], first: Hit, second: Hit) -> bool:
    between = words[first.last + 1 : second.first]
    links = [word for place, word in enumerate(between) if place or word.key not in _THINGS]  # `war films or musicals`
    if any(word.key not in LINKS for word in links) or "." in words[second.first].gap:
        return False
    comma = any("," in word.gap or "/" in word.gap for word in words[first.last + 1 : second.first + 1])
    plural = _plural(words, first) and _plural(words, second)
    return (
        any(word.key == "or" for word in between)
        or (plural and (comma or bool(links)))
        or "/" in words[second.first].gap
    )


def _plural(words: list[Word], hit: Hit) -> bool:
    """True for `musicals` and for `war films`."""
    return hit.meaning.plural or (hit.last + 1 < len(words) and words[hit.last + 1].key in _THINGS)
