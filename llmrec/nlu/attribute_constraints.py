"""Parses attribute constraints: values asked for or excluded, the scope of negations, and alternatives."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from llmrec.data.filters import Filters, join_names, share_attribute, split_name
from llmrec.nlu.english import (
    CARRIERS,
    CLAUSES,
    DESCRIBING,
    FILLER,
    HELPING,
    LINKS,
    NEGATION_PAIRS,
    NEGATIONS,
    NOT_NEGATIONS,
    TURNS,
)
from llmrec.nlu.lexicon import Lexicon, ValueMatch, Word

_NEGATION_SCOPE = 6
_FEWEST_LISTED = 3  # a list of at least this many values holds alternatives, even if joined by `and`
_NO_PREFERENCE = re.compile(r"\b(?:dont mind|dont care|doesnt matter|wouldnt mind)\b")
_NOT_REQUIRED = re.compile(r"\b(?:dont|doesnt) (?:need|have to)(?: it)?(?: to)?(?: be)?(?: an?)?$")
_NOUN = r"(?:(?:films?|movies?|books?|games?|songs?|albums?|shows?|items?|ones|stuff|things?) )?"
_ITEM_NOUNS = frozenset(
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


_FUNCTION_WORDS = (
    frozenset(word.replace("'", "") for word in FILLER) | NEGATIONS | TURNS | LINKS | CARRIERS | _ITEM_NOUNS
)
_FUNCTION_WORDS |= frozenset(word for pair in NEGATION_PAIRS for word in pair.split())
_MILD_NEGATIONS = frozenset(["arent", "fewer", "isnt", "less", "not"])  # `not too long, with robots`
_PAST_VERBS = frozenset(["couldnt", "detested", "didnt", "disliked", "hated", "loathed", "wasnt"])
_DEGREE_ADVERBS = frozenset(
    [
        "all",
        "completely",
        "entirely",
        "exactly",
        "fully",
        "overly",
        "quite",
        "really",
        "so",
        "that",
        "too",
        "totally",
        "very",
    ]
)
_FEELINGS = ("im not", "i am not", "i was not", "i wasnt", "were not", "we are not", "we arent")
_REQUEST_WORDS = frozenset(["give", "i", "id", "im", "maybe", "please", "recommend", "show"])


@dataclass(frozen=True)
class Phrase:
    """A run of words: an attribute value, or a word that is not in the lexicon (`match` is None)."""

    first: int
    last: int
    match: ValueMatch | None


@dataclass(frozen=True)
class AttributeConstraints:
    """The constraints on attribute values that a text states.

    Attributes:
        filters: the constraints as filters.
        spans: word positions first..last (inclusive) that were parsed or must not count as free description.
        excluded: spans of excluded attribute values.
        unknown_excluded: spans of excluded words that are not attribute values.
    """

    filters: Filters
    spans: tuple[tuple[int, int], ...]
    excluded: tuple[tuple[int, int], ...]
    unknown_excluded: tuple[tuple[int, int], ...]


def parse_attribute_constraints(
    lexicon: Lexicon, words: list[Word], taken: set[int], nouns: str, titles: set[int]
) -> AttributeConstraints:
    """Parse attribute values: `no horror or war` excludes both, `comedy or drama` wants either, `funny war` wants both.

    Args:
        lexicon: the lexicon of the catalogue.
        words: the words of the text.
        taken: positions of words that already have another meaning.
        nouns: alternatives of a regular expression for the domain's nouns.
        titles: taken positions whose words are both a title and an attribute value; they ask for nothing, but can be
            excluded.
    """
    phrases = _find_phrases(lexicon, words, taken, frozenset(nouns.split("|")), titles)
    before, openers = _negated_before(words, phrases, taken)
    after, verdicts = _refused_after(words, phrases)
    skipped = {index for index, phrase in enumerate(phrases) if _is_indifferent(words, phrase)}
    negative = (before | after) - skipped
    said = {place for first, last in verdicts for place in range(first, last + 1)}
    negative -= {index for index, phrase in enumerate(phrases) if phrase.first in said}
    none_of: dict[str, tuple[str, ...]] = {}
    wanted: list[ValueMatch] = []
    for index, phrase in enumerate(phrases):
        if phrase.match is None or index in skipped:
            continue
        if index in negative:
            entry = phrase.match.entry
            none_of[entry.attribute] = (*none_of.get(entry.attribute, ()), *entry.values)
        elif phrase.match.confident:
            wanted.append(phrase.match)
    places = [(match.first, match.last) for match in wanted]
    places += [(phrases[index].first, phrases[index].last) for index in sorted(negative | skipped)]
    # a value that is both asked for and excluded counts as excluded: showing it would be the worse mistake
    filters = Filters().merge(_required_filters(words, wanted)).merge(Filters(none_of=none_of))
    out = [phrases[index] for index in sorted(negative)]
    excluded = [(phrase.first, phrase.last) for phrase in out if phrase.match]
    # `didn't` is followed by a verb, and `I'm not` by a feeling of the speaker: neither excludes anything
    unknown = [one for one in out if not one.match and not (one.first and words[one.first - 1].key in HELPING)]
    unknown = [one for one in unknown if not _about_the_speaker(words, one.first)]
    unknown_excluded = [(_phrase_start(words, phrase.first, taken), phrase.last) for phrase in unknown]
    return AttributeConstraints(filters, (*places, *openers, *verdicts), tuple(excluded), tuple(unknown_excluded))


def _about_the_speaker(words: list[Word], place: int) -> bool:
    """True for `convinced` in `I'm not really convinced`, and for `impressed` in `I wasn't impressed`."""
    before = [word.key for word in words[:place]]
    while before and before[-1] in _DEGREE_ADVERBS:
        before.pop()
    return " ".join(before[-3:]).endswith(_FEELINGS)


def _phrase_start(words: list[Word], first: int, taken: set[int]) -> int:
    """Return where the phrase that ends with the word at `first` begins, including an adjective: `happy endings`."""
    described = first and first - 1 not in taken and words[first - 1].key in DESCRIBING
    return first - 1 if described and not words[first].gap.strip() else first


def _required_filters(words: list[Word], wanted: list[ValueMatch]) -> Filters:
    any_of: dict[str, tuple[str, ...]] = {}
    all_of: dict[str, tuple[str, ...]] = {}
    for group in _group_alternatives(words, wanted):
        values = tuple(dict.fromkeys(value for match in group for value in match.entry.values))
        name = join_names(dict.fromkeys(part for match in group for part in split_name(match.entry.attribute)))
        spellings = len(values) > 1 and not group[0].entry.conjunctive
        if len(group) == 1 and spellings and any(share_attribute(name, other) for other in any_of):
            spellings, values = False, values[:1]  # at most one set of alternatives per attribute
        table = any_of if len(group) > 1 or spellings else all_of
        table[name] = tuple(dict.fromkeys((*table.get(name, ()), *values)))
    return Filters(any_of, all_of)


def _find_phrases(
    lexicon: Lexicon, words: list[Word], taken: set[int], nouns: frozenset[str], titles: set[int]
) -> list[Phrase]:
    matches = [
        match
        for match in lexicon.find(words, taken - titles, include_uncertain=True)
        if match.confident or not _is_function_word(words, match.first)
    ]
    matches = [match for match in matches if match.first not in titles or not _was_judged(words, match.first)]
    matches = [replace(match, confident=match.confident and match.first not in titles) for match in matches]
    covered = {place for match in matches for place in range(match.first, match.last + 1)}
    found = [Phrase(match.first, match.last, match) for match in matches]
    for place, word in enumerate(words):
        if place not in covered | taken and not (word.key in _FUNCTION_WORDS | nouns or word.key.isdigit()):
            found.append(Phrase(place, place, None))
    return sorted(found, key=lambda phrase: phrase.first)


def _was_judged(words: list[Word], place: int) -> bool:
    """True for `I hated Heat`, which is about one item; `I hate heat` is about a kind of item."""
    return any(word.key in _PAST_VERBS for word in words[max(0, place - _NEGATION_SCOPE) : place])


def _is_function_word(words: list[Word], place: int) -> bool:
    """True for an ordinary word that is not a value here: `like` in `I don't like`, not `short` in `no short ones`."""
    if words[place].key in CARRIERS:
        return True
    if words[place].key not in _FUNCTION_WORDS:
        return False
    before = place - 1
    while before >= 0 and words[before].key in CARRIERS | LINKS and not _is_negation(words, before):
        before -= 1
    return before < 0 or not _is_negation(words, before) or (before == place - 1 and words[before].key in HELPING)


def _negated_before(
    words: list[Word], phrases: list[Phrase], taken: set[int]
) -> tuple[set[int], list[tuple[int, int]]]:
    """Return the phrases negated by words before them, and the word spans of the negations up to the first phrase."""
    starts = {phrase.first: index for index, phrase in enumerate(phrases)}
    inside = {place for phrase in phrases for place in range(phrase.first + 1, phrase.last + 1)}
    found: set[int] = set()
    openers: dict[int, tuple[int, int]] = {}
    opened = since = last = -1  # position of the negation, start of its reach, and the last phrase it negates
    named = False
    for place, word in enumerate(words):
        if place in inside:
            continue
        if opened >= 0 and _leaves_scope(words, phrases, place, since, named, last):
            opened = -1
        if place in starts:
            if opened >= 0:
                last, named = starts[place], True
                found.add(last)
                openers.setdefault(opened, (opened - _is_pair(words, opened), place - 1))
                since = place if phrases[last].match else since
        elif place in taken:
            named = opened >= 0
        elif _is_negation(words, place):
            opened, since, last, named = place, place, -1, False
        elif word.key in TURNS and opened >= 0 and _ends_negation(words, place, opened, named):
            opened = -1
    return found, list(openers.values())


def _ends_negation(words: list[Word], place: int, opened: int, named: bool) -> bool:
    """True when a word such as `but`, `show` or `with` ends a negation."""
    key, opener = words[place].key, words[opened].key
    if key == "with":
        return named and opener in _MILD_NEGATIONS
    if named:
        return True
    between = {word.key for word in words[opened + 1 : place]}
    if not between:  # `no, show me` without the comma; `anything but` is a negation, `everything, but I` is not
        return opener == "no" or (opener == "but" and key in _REQUEST_WORDS)
    return key in CLAUSES or not between <= CARRIERS


def _refused_after(words: list[Word], phrases: list[Phrase]) -> tuple[set[int], list[tuple[int, int]]]:
    """Return the phrases refused by words after them, and the word spans of the refusals.

    `westerns are not for me` and `horror bores me` are refusals; each applies to the whole list before it.
    """
    found: set[int] = set()
    places: list[tuple[int, int]] = []
    for index, phrase in enumerate(phrases):
        end = next((other.first for other in phrases[index + 1 :] if other.match), len(words))
        after = words[phrase.last + 1 : min(end, phrase.last + 1 + _NEGATION_SCOPE)]
        ends = phrase.match is not None and any(value.endswith(".") for value in phrase.match.entry.values)
        stops = (n for n, word in enumerate(after) if re.search(r"[.!?;:\n]", word.gap) and (n or not ends))
        stop = next(stops, len(after))
        refusal = _REFUSAL.match(" ".join(word.key for word in after[:stop]))
        if refusal:
            found.add(index)
            places.append((phrase.last + 1, phrase.last + len(refusal.group().split())))
            while index and all(w.key in LINKS for w in words[phrases[index - 1].last + 1 : phrases[index].first]):
                index -= 1
                found.add(index)
    return found, places


def _is_negation(words: list[Word], place: int) -> bool:
    key = words[place].key
    pair = f"{key} {words[place + 1].key}" if place + 1 < len(words) else key
    before = f"{words[place - 1].key} {key}" if place else key
    if pair in NOT_NEGATIONS or before in NOT_NEGATIONS:
        return False
    return key in NEGATIONS or _is_pair(words, place)


def _is_pair(words: list[Word], place: int) -> bool:
    parted = not place or words[place].gap.strip()  # `I like everything, but how about westerns`
    return not parted and f"{words[place - 1].key} {words[place].key}" in NEGATION_PAIRS


def _leaves_scope(words: list[Word], phrases: list[Phrase], place: int, since: int, named: bool, last: int) -> bool:
    """True when a negation ends before `place`: at a full stop, out of reach, or at a comma that continues no list."""
    gap = words[place].gap
    if re.search(r"[.!?;:\n]", gap) or place - since > _NEGATION_SCOPE:
        return True
    if "," not in gap:
        return False
    return not named or not _list_continues(words, phrases, place, last)


def _list_continues(words: list[Word], phrases: list[Phrase], place: int, last: int) -> bool:
    """True for `, war or western`: a similar phrase follows, and the list ends with `or`, `nor` or `and`.

    After a value, a list of unknown words continues only if it ends with `or` or `nor`: `no horror, slow and
    thoughtful` asks for slow and thoughtful items.
    """
    if words[place].key in {"or", "nor", "and"}:
        return True
    here = next((phrase for phrase in phrases if phrase.first == place), None)
    if here is None:
        return False
    known = last >= 0 and phrases[last].match is not None
    closing = {"or", "nor"} if known and here.match is None else {"or", "nor", "and"}
    covered = {
        spot
        for phrase in phrases
        if phrase.match or here.match is None
        for spot in range(phrase.first, phrase.last + 1)
    }
    for spot in range(place, len(words)):
        if words[spot].key in closing:
            return spot + 1 in covered or (spot + 2 in covered and words[spot + 1].key in LINKS)
        if spot not in covered and words[spot].key not in LINKS:
            return False
    return False


def _is_indifferent(words: list[Word], phrase: Phrase) -> bool:
    """True for `I don't mind horror` and `it doesn't need to be horror`, which neither ask for nor exclude a value."""
    before = [word.key for word in words[max(0, phrase.first - 6) : phrase.first]]
    return bool(_NO_PREFERENCE.search(" ".join(before[-3:])) or _NOT_REQUIRED.search(" ".join(before)))


def _group_alternatives(words: list[Word], matches: list[ValueMatch]) -> list[list[ValueMatch]]:
    """Group alternatives.

    These are values joined by `or` or `/`, plural nouns joined by `and` or a comma, and lists of three or more.
    """
    groups: list[list[ValueMatch]] = []
    listed = _listed_values(words, matches)
    for place, match in enumerate(matches):
        last = groups[-1][-1] if groups else None
        same = last is not None and share_attribute(last.entry.attribute, match.entry.attribute)
        if same and last is not None and (place in listed or _are_alternatives(words, last, match)):
            groups[-1].append(match)
        else:
            groups.append([match])
    return groups


def _listed_values(words: list[Word], matches: list[ValueMatch]) -> set[int]:
    """Return the indices of values that continue a list of three or more: `drama, comedy and romance films`.

    The values of such a list before a plural noun are alternatives, since nobody asks for a film that is all of them.
    `romantic comedy films` and `war and romance films` may mean both.
    """
    found: set[int] = set()
    start = 0
    for place in range(1, len(matches) + 1):
        goes_on = place < len(matches) and _is_joined(words, matches[place - 1], matches[place])
        if not goes_on:
            if place - start > _FEWEST_LISTED - 1 and _is_plural(words, matches[place - 1]):
                found |= set(range(start + 1, place))
            start = place
    return found


def _is_joined(words: list[Word], first: ValueMatch, second: ValueMatch) -> bool:
    """True for neighbouring values with only a comma, `and`, or both between them."""
    between = [word.key for word in words[first.last + 1 : second.first]]
    return all(key == "and" for key in between) and (bool(between) or "," in words[second.first].gap)


def _are_alternatives(words: list[Word], first: ValueMatch, second: ValueMatch) -> bool:
    between = words[first.last + 1 : second.first]
    links = [
        word for place, word in enumerate(between) if place or word.key not in _ITEM_NOUNS
    ]  # `war films or musicals`
    if any(word.key not in LINKS for word in links) or "." in words[second.first].gap:
        return False
    comma = any("," in word.gap or "/" in word.gap for word in words[first.last + 1 : second.first + 1])
    plural = _is_plural(words, first) and _is_plural(words, second)
    return (
        any(word.key == "or" for word in between)
        or (plural and (comma or bool(links)))
        or "/" in words[second.first].gap
    )


def _is_plural(words: list[Word], match: ValueMatch) -> bool:
    """True for `musicals` and for `war films`."""
    return match.entry.plural or (match.last + 1 < len(words) and words[match.last + 1].key in _ITEM_NOUNS)
