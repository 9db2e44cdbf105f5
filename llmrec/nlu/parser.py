"""Parses a message into an intent: items and opinions, constraints, references, and out-of-scope requests.

The parser is rule-based: in the same context a text always has the same meaning, and the filters enforce every parsed
constraint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from llmrec.data.catalog import Catalog, clean_text
from llmrec.data.filters import Filters, Range
from llmrec.nlu import cue_phrases, smalltalk
from llmrec.nlu.attribute_constraints import parse_attribute_constraints
from llmrec.nlu.entity_linking import EntityLinker, Mention, coordinated_groups
from llmrec.nlu.item_questions import ItemQuestion, asks_about_shown, asks_about_title, item_question, people_like
from llmrec.nlu.lexicon import Lexicon, Word, split_words
from llmrec.nlu.notes import unsupported_notes
from llmrec.nlu.numeric_constraints import (
    NumericAttributes,
    numeric_attributes,
    parse_numeric_ranges,
    unmatched_amounts,
    year_range_to_dates,
)
from llmrec.nlu.opinions import opinion_on
from llmrec.nlu.references import find_references, resolve_choice
from llmrec.nlu.retractions import parse_retractions
from llmrec.nlu.state import Limits, Session
from llmrec.nlu.suitability import parse_suitability, with_intensity_limits
from llmrec.nlu.years import parse_list_length, parse_years, years_relative_to

IntentKind = Literal[
    "recommend", "like", "dislike", "more", "reference", "why", "smalltalk", "outside", "empty", "undo"
]
_TIMES = frozenset(["year", "decade", "time", "period", "age", "era", "date", "release date"])
_ENGLISH = "I read English; I went by the names and words in it that I know."


@dataclass(frozen=True)
class Intent:
    """The meaning of a message.

    Attributes:
        kind: the kind of answer it asks for.
        liked: rows named with approval, in catalogue order, since the order of titles in a sentence has no meaning.
        disliked: rows named with disapproval.
        seen: rows said to be known already.
        about: rows asked about.
        filters: constraints named in this turn.
        drop: attributes whose earlier constraints are dropped; `*` for all.
        retracted: (attribute, value) pairs that are no longer required or excluded.
        options: rows with the same name, one of which is meant; the visitor is asked which.
        opinion: what was said about the options.
        message: the free description for the recommender, without the parsed parts and request words; may be empty.
        k: list length asked for, or 0.
        notes: remarks on what was named but could not be acted on.
        topic: for small talk, its topic.
        question: what is asked about the rows in `about`; if `about` is empty, it is not clear which item is meant.
    """

    kind: IntentKind
    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    about: tuple[int, ...] = ()
    filters: Filters = field(default_factory=Filters)
    drop: tuple[str, ...] = ()
    retracted: tuple[tuple[str, str], ...] = ()
    options: tuple[int, ...] = ()
    opinion: str = ""
    message: str = ""
    k: int = 0
    notes: tuple[str, ...] = ()
    topic: str = ""
    question: ItemQuestion = field(default_factory=ItemQuestion)

    @property
    def is_actionable(self) -> bool:
        """True when any part of the intent can be acted on."""
        named = self.liked or self.disliked or self.seen or self.about or self.drop or self.k or self.retracted
        return bool(named) or not self.filters.empty


@dataclass(frozen=True)
class ParserContext:
    """Tables that are prepared once per catalogue."""

    catalog: Catalog
    lexicon: Lexicon
    linker: EntityLinker
    years: tuple[int, ...]
    nouns: str
    numeric: NumericAttributes


@lru_cache(maxsize=4)
def parser_context(catalog: Catalog) -> ParserContext:
    """Return the parser's tables for a catalogue (cached)."""
    lexicon, numeric = Lexicon(catalog), numeric_attributes(catalog)
    linker, nouns = EntityLinker(catalog, lexicon), smalltalk.domain_nouns(catalog.domain)
    context = ParserContext(catalog, lexicon, linker, (), nouns, numeric)
    return replace(context, years=tuple(sorted(_item_years(context, range(len(catalog))))))


def parse_message(text: str, catalog: Catalog, session: Session, limits: Limits = Limits()) -> Intent:  # noqa: B008 (frozen)
    """Parse one message in the context of a session.

    Args:
        text: as typed; only the first `limits.message_chars` characters are parsed.
        catalog: the catalogue whose titles and attribute values are matched.
        session: its list on display resolves `the second one`, `newer` and `that`; it is not changed.
        limits: bounds the list length.
    """
    context = parser_context(catalog)
    text = clean_text(text, limits.message_chars)
    if not any(char.isalnum() for char in text):
        return Intent("empty")
    lower = text.casefold().replace("\u2019", "'")
    if len(lower) != len(text):  # case folding lengthens a few letters, but positions in the text must stay the same
        lower = text.lower() if len(text.lower()) == len(text) else text
    if cue_phrases.RESET.match(lower):
        return Intent("smalltalk", topic="reset")
    if cue_phrases.UNDO.match(lower):
        return Intent("undo")
    if smalltalk.is_forbidden(lower):
        return Intent("outside")
    picked = resolve_choice(lower, catalog, session.profile.options, context.lexicon.year)
    if picked >= 0:
        return _choice_intent(picked, session.profile.opinion)
    intent, rest, compared, ambiguous = _parse_mentions(context, text, lower, session)
    if (asked := _parse_question(context, intent, lower, rest, session)) is not None:
        return asked
    retracted, places = parse_retractions(context.lexicon, rest, session.profile.filters, context.nouns)
    intent, rest = replace(intent, retracted=tuple(dict.fromkeys(retracted))), _blank_out(rest, places)
    more = cue_phrases.MORE.search(rest) is not None
    intent, rest, unsupported = _parse_constraints(context, intent, text, rest, session, limits, compared, ambiguous)
    return _classify(intent, text, lower, rest, more, context, session, unsupported)


def _parse_question(context: ParserContext, intent: Intent, lower: str, rest: str, session: Session) -> Intent | None:
    """Return the intent of a question about items that are named or on display; None for anything else."""
    profile = session.profile
    question = item_question(rest, context.catalog)
    if not question or intent.liked or intent.disliked or intent.seen:
        return None
    about = intent.about
    if not about:
        if not asks_about_shown(lower) or not profile.rows:
            return None
        about = (profile.focus,) if profile.focus >= 0 else profile.rows if len(profile.rows) == 1 else ()
    return Intent("reference", about=about, question=question, notes=intent.notes)


def _choice_intent(row: int, opinion: str) -> Intent:
    """Return the intent once it is clear which item an earlier opinion was about."""
    if opinion == "dislike":
        return Intent("dislike", disliked=(row,))
    if opinion == "seen":
        return Intent("recommend", seen=(row,))
    if opinion == "about":
        return Intent("reference", about=(row,))
    return Intent("like", liked=(row,))


def stated_filters(text: str, catalog: Catalog) -> Filters:
    """Return the filters that a single message states outside a conversation."""
    return parse_message(text, catalog, Session("")).filters if text else Filters()


def _parse_mentions(
    context: ParserContext, text: str, lower: str, session: Session
) -> tuple[Intent, str, Range, Sequence[tuple[int, int]]]:
    """Parse the items named by title or by reference to the list, and the opinions on them.

    Returns:
        The intent, the text with these items blanked out, the range of years from `newer than` or `older than` an item,
        and the spans of titles that also name a kind of item.
    """
    mentions = context.linker.link(text)
    ambiguous = [
        (one.start, one.end)
        for one in mentions.found
        if context.lexicon.is_kind(word.key for word in split_words(text[one.start : one.end]))
    ]
    rest = _blank_out(lower, [(one.start, one.end) for one in mentions.found])
    pointed, notes = find_references(rest, session.profile.rows, session.profile.focus, context.nouns)
    pointed_at = [Mention(row, one.start, one.end) for one in pointed for row in one.rows]
    rest = _blank_out(rest, [(one.start, one.end) for one in pointed])
    said: dict[str, list[int]] = {"like": [], "dislike": [], "seen": [], "about": []}
    options: tuple[int, ...] = ()
    pending_opinion = ""
    compared: Range = (None, None)
    asking = cue_phrases.ASKING.search(rest) is not None or cue_phrases.WHY.search(rest) is not None
    asking = asking or asks_about_title(lower, item_question(rest, context.catalog))
    targets = sorted(
        [*((one, "like") for one in mentions.found), *((one, "about") for one in pointed_at)],
        key=lambda one: (one[0].start, one[0].end),
    )
    for group in coordinated_groups(lower, [target for target, _ in targets]):
        than = years_relative_to(lower[: group[0].start], _item_years(context, (one.row for one in group)))
        if than is not None:
            compared, place = than
            rest = _blank_out(rest, [place])
            continue
        if all(target.row < 0 and not target.options for target in group):
            continue  # names that match no item: there is nothing to have an opinion on
        opinion = opinion_on(lower, group[0].start, group[-1].end)
        for target in group:
            default_opinion = next(default for one, default in targets if one is target)
            meant = opinion or ("about" if asking else default_opinion)
            if cue_phrases.ASKED_DIRECTLY.search(lower[: target.start]):
                meant = "about"
            if target.row >= 0:
                said[meant].append(target.row)
            elif target.options:
                options, pending_opinion = target.options, meant
    notes = [*mentions.notes, *notes]
    return (
        replace(_opinion_intent(said), options=options, opinion=pending_opinion, notes=tuple(notes)),
        rest,
        compared,
        ambiguous,
    )


def _opinion_intent(said: dict[str, list[int]]) -> Intent:
    """Return the intent for opinions on items; a dislike overrides anything else said about the same item."""
    disliked = tuple(sorted(set(said["dislike"])))
    others = {name: [row for row in dict.fromkeys(rows) if row not in disliked] for name, rows in said.items()}
    liked, seen = tuple(sorted(others["like"])), tuple(sorted(others["seen"]))
    return Intent("recommend", liked, disliked, seen, tuple(others["about"]))


def _item_years(context: ParserContext, rows: Iterable[int]) -> list[int]:
    """Return the years of items; taken from a date if no attribute holds the year."""
    name = context.lexicon.year or next(iter(context.numeric.dates), None)
    if name is None:
        return []
    found = [context.catalog[row].attributes.get(name) for row in rows if row >= 0]
    return [int(year) // (1 if context.lexicon.year else 10_000) for year in found if isinstance(year, int | float)]


def _parse_constraints(
    context: ParserContext,
    intent: Intent,
    text: str,
    rest: str,
    session: Session,
    limits: Limits,
    compared: Range,
    ambiguous: Sequence[tuple[int, int]],
) -> tuple[Intent, str, tuple[str, ...]]:
    """Parse constraints and the list length.

    Returns:
        The intent with these, the text with them blanked out, and remarks on constraints that the catalogue cannot
        express.
    """
    drop, dropped = _parse_dropped(context, rest)
    rest = _blank_out(rest, dropped)
    fit = parse_suitability(rest, context.catalog)
    rest = _blank_out(rest, fit.places)
    alike, people_spans = people_like(rest, context.catalog, session.profile.focus)
    rest = _blank_out(rest, people_spans)
    ranges, places = parse_numeric_ranges(rest, context.numeric)
    rest = _blank_out(rest, places)
    words = split_words(text)
    titles = {n for n, word in enumerate(words) if any(a <= word.start and word.end <= b for a, b in ambiguous)}
    wanted = parse_attribute_constraints(context.lexicon, words, _consumed_words(words, rest), context.nouns, titles)
    excluded = [(words[first].start, words[last].end) for first, last in wanted.excluded]
    # `no classics` excludes the value Classic, if there is one, and no years; excluded values are replaced by "x", not
    # by spaces, so that the `no` before them is not taken to negate a year after them
    time_ranges, time_spans, year_notes, unsupported = _parse_time(
        context, _blank_out(rest, excluded, "x"), intent, session
    )
    ranges = {**ranges, **time_ranges}
    rest = _blank_out(rest, time_spans)
    k, places, count_notes = parse_list_length(rest, context.nouns, limits.k)
    rest = _blank_out(rest, places)
    if time_spans or places:
        wanted = parse_attribute_constraints(
            context.lexicon, words, _consumed_words(words, rest), context.nouns, titles
        )
    rest = _blank_out(rest, [(words[first].start, words[last].end) for first, last in wanted.spans])
    unsupported += [place for place in unmatched_amounts(rest, context.nouns) if place not in unsupported]
    rest = _blank_out(rest, unsupported)
    filters = wanted.filters.merge(Filters(ranges=ranges)).merge(fit.filters).merge(alike)
    filters = with_intensity_limits(filters, context.catalog)
    if compared != (None, None) and context.lexicon.year:
        filters = filters.merge(Filters(ranges={context.lexicon.year: compared}))
    if cue_phrases.FRESH.search(rest):
        drop = (*drop, *filters.any_of, *filters.all_of, *filters.ranges)
    notes = (*intent.notes, *year_notes, *count_notes)
    unknown = [(words[first].start, words[last].end) for first, last in wanted.unknown_excluded]
    said = unsupported_notes(text, unknown, sorted(unsupported), context.catalog)
    return replace(intent, filters=filters, drop=tuple(dict.fromkeys(drop)), k=k, notes=notes), rest, said


def _consumed_words(words: Sequence[Word], rest: str) -> set[int]:
    return {index for index, word in enumerate(words) if not rest[word.start : word.end].strip()}


def _parse_time(
    context: ParserContext, rest: str, intent: Intent, session: Session
) -> tuple[dict[str, Range], list[tuple[int, int]], list[str], list[tuple[int, int]]]:
    """Parse years.

    Returns:
        The range of the attribute that holds years, the parsed spans, remarks, and the spans of years if no attribute
        of the catalogue can hold them.
    """
    # `like Heat but newer` is newer than Heat, whatever is on display
    shown = _item_years(context, intent.liked) or _item_years(context, session.profile.rows)
    bound, spans, notes = parse_years(rest, shown, context.years)
    if context.lexicon.year:
        return ({} if bound is None else {context.lexicon.year: bound}), spans, notes, []
    if context.numeric.dates:
        return ({} if bound is None else {context.numeric.dates[0]: year_range_to_dates(bound)}), spans, notes, []
    return {}, [], [], spans


def _parse_dropped(context: ParserContext, rest: str) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """Parse which constraints are dropped: `any year`, `forget the filters`, `drop the comedy filter`."""
    names: list[str] = []
    spans = []
    for match in cue_phrases.DROP.finditer(rest):
        said = match.groupdict()
        kind = next((said[name] for name in ("kind", "any", "none", "matter", "careless") if said[name]), "").rstrip(
            "s"
        )
        what = said["what"] or ""
        meant = context.lexicon.find(split_words(what), set())
        if kind == "part" and not meant and not re.search(r"\byears?|decades?\b", what):
            continue
        spans.append(match.span())
        if meant:
            names += [hit.entry.attribute for hit in meant]
        elif said["when"] or said["either"] or kind in _TIMES or re.search(r"\b(?:years?|decades?)\b", what):
            names += [context.lexicon.year] if context.lexicon.year else []
        elif kind in context.catalog.attribute_names:
            names.append(kind)
        else:
            names.append("*")
    return tuple(names), spans


def _classify(
    intent: Intent,
    text: str,
    lower: str,
    rest: str,
    more: bool,
    context: ParserContext,
    session: Session,
    unsupported: tuple[str, ...],
) -> Intent:
    """Classify the intent, and extract the free description from the text that is left after parsing."""
    beside = (cue_phrases.MORE, cue_phrases.FRESH, cue_phrases.VERDICT)
    bare = _blank_out(rest, [match.span() for pattern in beside for match in pattern.finditer(rest)])
    description = smalltalk.free_description(bare, context.nouns)
    if cue_phrases.WHY.search(rest) and session.profile.shown:
        about = (*intent.about, *intent.liked)
        return replace(intent, kind="why", about=about, liked=(), filters=Filters(), drop=(), retracted=())
    if intent.about and not (intent.liked or intent.disliked or intent.seen):
        return replace(intent, kind="reference", filters=Filters(), drop=(), retracted=())
    if not intent.is_actionable and not more and not unsupported:
        topic = smalltalk.smalltalk_topic(lower)
        if topic:
            return replace(intent, kind="smalltalk", topic=topic)
        if not intent.notes and smalltalk.is_off_topic(lower, context.nouns):
            return replace(intent, kind="outside")
        if smalltalk.foreign_language(text) == "script":
            return replace(intent, kind="outside", topic="language", notes=())
    message = description if not intent.notes or intent.is_actionable else ""
    if message and smalltalk.foreign_language(text):
        intent = replace(intent, notes=(*intent.notes, _ENGLISH))
    kind: IntentKind = "more" if more else "recommend"
    if not message and intent.filters.empty and not more and not intent.k:
        kind = "like" if intent.liked else "dislike" if intent.disliked else kind
    return replace(intent, kind=kind, message=message, notes=(*intent.notes, *unsupported))


def _blank_out(text: str, spans: Sequence[tuple[int, int]], by: str = " ") -> str:
    """Replace spans by spaces (or `by`), so that all other words keep their positions."""
    for start, end in spans:
        text = text[:start] + by * (end - start) + text[end:]
    return text
