"""Reading a turn: what is liked, disliked, asked for, excluded, pointed at, or not for this program.

Rules over words, no model: the same text always means the same, and a constraint that was understood is
enforced by the filters, not hoped for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from llmrec import smalltalk
from llmrec.catalog import Catalog, clean_text
from llmrec.filters import Filters, Range
from llmrec.lexicon import Lexicon, words_of
from llmrec.mentions import Mention, TitleSpotter
from llmrec.opinions import opinion_on
from llmrec.references import pointers
from llmrec.session import Limits, Session
from llmrec.wants import values_wanted
from llmrec.years import count_wanted, years_wanted

Kind = Literal["recommend", "like", "dislike", "more", "reference", "why", "smalltalk", "outside", "empty"]

_WHY = re.compile(
    r"^(?:but |and |so )?(?:why|how come|explain|for what reason)\b(?! not)|\bwhy (?:that|this|these|those"
    r"|did you|do you|the|#)|"
    r"\b(?:did you (?:pick|choose|recommend|suggest)|reasons? (?:for|behind))\b"
)
_MORE = re.compile(
    r"\b(?:something else|anything else|what else|some others?|others|another(?: one)?|^more\b(?! like"
    r"| recent)|"
    r"(?:some|any|one|few|show me|give me|show|even|\d) more\b(?! like| recent| than)"
    r"|(?<!no )more(?=\s*(?:$|[.,!?]|please))|next(?: ones?)?|different(?: ones?)?|"
    r"none of (?:these|those|them)|new ones|try again|not (?:these|those))\b"
)
_FRESH = re.compile(r"\b(?:instead|rather|actually|now|switch|change|what about|how about|in the mood for|let's try)\b")
_DROP = re.compile(
    r"\b(?:forget|drop|remove|clear|ignore|reset|lift|no more)\b(?: about)?(?: the| my| all| any| those"
    r"| these)*\s*(?P<what>[\w' -]{0,40}?)\s*"
    r"\b(?P<kind>filters?|constraints?|limits?|years?|decades?|genres?)\b|\bany (?P<any>years?|decades?"
    r"|genres?|time|period)\b|"
    r"\bno (?P<none>filters?|constraints?)\b"
)
_RESET = re.compile(r"^(?:please )?(?:start (?:over|again|afresh)|reset|forget everything|new conversation)[.! ]*$")
_ASKING = re.compile(
    r"\b(?:tell me (?:more )?about|more about|describe|what is|what's|what was|who (?:is|was|made|directed"
    r"|wrote|starred|stars|plays)|"
    r"when (?:was|did|is)|how long|do you (?:have|know)|have you got|what about|is there)\b"
)
_VERDICT = re.compile(r"\b(?:is|was|were|are) (?:(?:too|so|very|a bit|rather|quite|really) )+\w+(?: for me)?")
_ASKED_DIRECTLY = re.compile(
    r"^(?:do you (?:like|know|have|recommend)|have you (?:got|seen)|did you (?:like|see)"
    r"|would you recommend|is|was)\s+(?:the )?[\"\u201c]?$"
)


@dataclass(frozen=True)
class Intent:
    """What a turn means.

    Attributes:
        kind: what sort of answer it asks for.
        liked: rows named with approval, in order of appearance.
        disliked: rows named with disapproval.
        seen: rows said to be known already.
        about: rows asked about.
        filters: constraints named in this turn.
        drop: attributes whose wishes are to be forgotten first; `*` for all.
        message: the text for the recommender when it holds a free description, else empty.
        k: list length asked for, or 0.
        notes: remarks on what was named but could not be acted on.
        topic: for small talk, what it is about.
    """

    kind: Kind
    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    about: tuple[int, ...] = ()
    filters: Filters = field(default_factory=Filters)
    drop: tuple[str, ...] = ()
    message: str = ""
    k: int = 0
    notes: tuple[str, ...] = ()
    topic: str = ""

    @property
    def says_something(self) -> bool:
        """True when anything in it can be acted on."""
        named = self.liked or self.disliked or self.seen or self.about or self.drop or self.k
        return bool(named) or not self.filters.empty


@dataclass(frozen=True)
class _Reader:
    """What is prepared once for a catalogue."""

    catalog: Catalog
    lexicon: Lexicon
    spotter: TitleSpotter
    years: tuple[int, ...]
    nouns: str


@lru_cache(maxsize=4)
def reader(catalog: Catalog) -> _Reader:
    """Prepare (once) the tables for reading turns about a catalogue."""
    lexicon = Lexicon(catalog)
    values = [item.attributes.get(lexicon.year) for item in catalog.items] if lexicon.year else []
    years = tuple(sorted(int(value) for value in values if isinstance(value, int | float)))
    return _Reader(catalog, lexicon, TitleSpotter(catalog, lexicon), years, smalltalk.nouns(catalog.domain))


def read(text: str, catalog: Catalog, session: Session, limits: Limits = Limits()) -> Intent:  # noqa: B008 (frozen)
    """Read one message in the light of the session.

    Args:
        text: as typed; at most `limits.message_chars` characters are looked at.
        catalog: what titles and attribute values are matched against.
        session: its list on display gives `the second one`, `newer` and `that` their meaning; not changed.
        limits: bounds the list length.
    """
    tools = reader(catalog)
    text = clean_text(text, limits.message_chars)
    if not any(char.isalnum() for char in text):
        return Intent("empty")
    lower = text.casefold().replace("\u2019", "'")
    if len(lower) != len(text):  # a few letters change length when folded; places in the text must stay right
        lower = text.lower() if len(text.lower()) == len(text) else text
    if _RESET.match(lower):
        return Intent("smalltalk", topic="reset")
    if smalltalk.forbidden(lower):
        return Intent("outside")
    intent, rest = _named(tools, text, lower, session)
    more = _MORE.search(rest) is not None
    intent, rest = _wanted(tools, intent, text, rest, session, limits)
    return _judge(intent, text, lower, rest, more, tools, session)


def stated(text: str, catalog: Catalog) -> Filters:
    """The constraints that one message states on its own, outside any conversation."""
    return read(text, catalog, Session("")).filters if text else Filters()


def _named(tools: _Reader, text: str, lower: str, session: Session) -> tuple[Intent, str]:
    """Read items, by title and by place; returns the text with them blanked out."""
    mentions = tools.spotter.spot(text)
    rest = _blank(lower, [(one.start, one.end) for one in mentions.found])
    pointed, notes = pointers(rest, session.profile.rows, session.profile.focus, tools.nouns)
    pointed_at = [Mention(row, one.start, one.end) for one in pointed for row in one.rows]
    rest = _blank(rest, [(one.start, one.end) for one in pointed])
    said: dict[str, list[int]] = {"like": [], "dislike": [], "seen": [], "about": []}
    asking = _ASKING.search(rest) is not None or _WHY.search(rest) is not None
    for target, silent in [
        *((one, "like") for one in mentions.found),
        *((one, "about") for one in pointed_at),
    ]:
        opinion = opinion_on(lower, target.start, target.end) or ("about" if asking else silent)
        if _ASKED_DIRECTLY.search(lower[: target.start]):
            opinion = "about"
        if target.row >= 0:
            said[opinion].append(target.row)
    disliked = tuple(dict.fromkeys(said["dislike"]))
    others = {name: tuple(dict.fromkeys(row for row in rows if row not in disliked)) for name, rows in said.items()}
    intent = Intent(
        "recommend",
        others["like"],
        disliked,
        others["seen"],
        others["about"],
        notes=(*mentions.notes, *notes),
    )
    return intent, rest


def _wanted(
    tools: _Reader, intent: Intent, text: str, rest: str, session: Session, limits: Limits
) -> tuple[Intent, str]:
    """Read constraints and the list length; returns the text with them blanked out."""
    drop, dropped = _dropped(tools, rest)
    rest = _blank(rest, dropped)
    bound: Range | None = None
    year_notes: list[str] = []
    if tools.lexicon.year:
        years = [tools.catalog[row].attributes.get(tools.lexicon.year) for row in session.profile.rows]
        shown = [int(year) for year in years if isinstance(year, int | float)]
        bound, spans, year_notes = years_wanted(rest, shown, tools.years)
        rest = _blank(rest, spans)
    k, places, count_notes = count_wanted(rest, tools.nouns, limits.k)
    rest = _blank(rest, places)
    words = words_of(text)
    taken = {index for index, word in enumerate(words) if not rest[word.start : word.end].strip()}
    filters, hits = values_wanted(tools.lexicon, words, taken)
    rest = _blank(rest, [(words[hit.first].start, words[hit.last].end) for hit in hits])
    if bound is not None and tools.lexicon.year:
        filters = filters.merge(Filters(ranges={tools.lexicon.year: bound}))
    if _FRESH.search(rest):
        drop = (*drop, *filters.any_of, *filters.all_of, *filters.ranges)
    notes = (*intent.notes, *year_notes, *count_notes)
    return replace(intent, filters=filters, drop=tuple(dict.fromkeys(drop)), k=k, notes=notes), rest


def _dropped(tools: _Reader, rest: str) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """Read `any year`, `forget the filters`, `drop the comedy filter`."""
    names: list[str] = []
    spans = []
    for match in _DROP.finditer(rest):
        spans.append(match.span())
        kind = (match["kind"] or match["any"] or match["none"] or "").rstrip("s")
        meant = tools.lexicon.find(words_of(match["what"] or ""), set())
        if meant:
            names += [hit.meaning.attribute for hit in meant]
        elif kind in {"year", "decade", "time", "period"}:
            names += [tools.lexicon.year] if tools.lexicon.year else []
        elif kind in tools.catalog.attribute_names:
            names.append(kind)
        else:
            names.append("*")
    return tuple(names), spans


def _judge(intent: Intent, text: str, lower: str, rest: str, more: bool, tools: _Reader, session: Session) -> Intent:
    """Settle the kind, and whether a free description is left once everything understood is taken out."""
    beside = (_MORE, _FRESH, _VERDICT)
    bare = _blank(rest, [match.span() for pattern in beside for match in pattern.finditer(rest)])
    content = smalltalk.content(bare, tools.nouns)
    if _WHY.search(rest) and session.profile.shown:
        return replace(intent, kind="why", about=(*intent.about, *intent.liked), liked=(), filters=Filters(), drop=())
    if intent.about and not (intent.liked or intent.disliked):
        return replace(intent, kind="reference", filters=Filters(), drop=())
    if not intent.says_something and not more:
        topic = smalltalk.topic(lower)
        if topic:
            return replace(intent, kind="smalltalk", topic=topic)
        if not intent.notes and smalltalk.outside(lower, tools.nouns):
            return replace(intent, kind="outside")
    message = text if content and (not intent.notes or intent.says_something) else ""
    kind: Kind = "more" if more and not message else "recommend"
    if not message and intent.filters.empty and not more and not intent.k:
        kind = "like" if intent.liked else "dislike" if intent.disliked else kind
    return replace(intent, kind=kind, message=message)


def _blank(text: str, spans: list[tuple[int, int]]) -> str:
    """Replace what was understood by spaces, so that every other word keeps its place."""
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text
