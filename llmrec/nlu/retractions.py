"""Parses retractions: `horror is fine after all`, `it needn't be a comedy`, `drop the drama part`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmrec.data.filters import Filters
from llmrec.nlu.lexicon import Lexicon, Word, split_words

_NOT_NEEDED = r"(?:must|necessity|necessary|need(?:ed)?|required|requirement|important|essential)"
_FINE = re.compile(
    r"^(?: (?:{nouns}|ones|stuff|things))*,? (?:(?:is|are|would be|can be|might be|could be)|(?:'s"
    r"|'re))(?: (?:also|actually|really"
    r"|totally|perfectly|quite|now|all))*(?: (?:fine|ok(?:ay)?|allowed|right|alright|acceptable|welcome"
    r"|permitted|possible|back in))\b"
    r"|^(?: (?:{nouns}|ones|stuff|things))*,? (?:don't|do not|doesn't|does not|no longer) (?:bother|matter|disturb)\b"
)
_UNNEEDED = re.compile(
    rf"^(?: (?:{{nouns}}|ones|stuff|things))*,? (?:(?:is|are)(?: (?:no longer|not|no more))|isn't"
    rf"|aren't)(?: (?:a|an|so|that|really))*"
    rf" {_NOT_NEEDED}\b|^(?: (?:{{nouns}}))* (?:doesn't|does not|don't) (?:have to|need to) be\b"
    r"|^ (?:requirement|filter|condition|constraint|part|restriction|criterion|bit|wish)\b"
)
_ALLOWED = re.compile(
    r"\b(?:(?:don't|do not|no longer|wouldn't) mind|(?:include|allow|permit|accept)(?: in)?|bring(?: back)?"
    r"|(?:put|add|let|take)(?: back)?(?: in)?"
    r"|lift the ban on|(?:i'm |i am )?(?:ok|okay|fine|all right|cool|happy) with)(?: (?:the|some|a|an|any|also"
    r"|again|now|back))*\s*$"
)
_NO_LONGER = re.compile(
    r"\b(?:(?:doesn't|does not|don't|do not|needn't|need not|no longer (?:has|have|needs?)?)(?: (?:really"
    r"|necessarily))?"
    r"(?: (?:have|has|need|needs))?(?: (?:it|them|this|that))?(?: to)?(?: be)?|not necessarily"
    r"|(?:no longer|don't|do not|needn't) (?:need|require|insist on)(?: (?:it|them|this"
    r"|that))?(?: to)?(?: be)?)(?: (?:a|an|any"
    r"|the|just|only|purely))*\s*$"
)
_AGAIN = re.compile(
    r"(?:\s+(?:films?|movies?|books?|ones))?(?:\s+(?:any ?more|again|after all|now|either|back(?: in)?|then))+\b"
)
_OBLIGED = re.compile(r"\b(?:have|has|need|needs|needn't|necessarily|to be|require|insist)\b")
_DROPPED = re.compile(r"\b(?:forget|drop|scrap|lift|remove|ignore|never mind)(?: about)?(?: (?:the|my|that))*\s*$")


def parse_retractions(
    lexicon: Lexicon, text: str, held: Filters, nouns: str
) -> tuple[list[tuple[str, str]], list[tuple[int, int]]]:
    """Find attribute values that are no longer required, or no longer excluded.

    Only values of active constraints can be retracted.

    Args:
        lexicon: the lexicon of the catalogue.
        text: lower case, with titles blanked out.
        held: the constraints that are active.
        nouns: alternatives of a regular expression for the domain's nouns.

    Returns:
        (attribute, value) pairs, and the character spans of the retractions.
    """
    wanted, kept_out = _pairs(held, ("any_of", "all_of")), _pairs(held, ("none_of",))
    fine, unneeded = (re.compile(p.pattern.replace("{nouns}", nouns)) for p in (_FINE, _UNNEEDED))
    found: list[tuple[str, str]] = []
    spans: list[tuple[int, int]] = []
    words: list[Word] = split_words(text)
    for hit in lexicon.find(words, set(), include_uncertain=True):
        start, end = words[hit.first].start, words[hit.last].end
        before, after = text[:start], text[end:]
        pairs = [(hit.entry.attribute, value) for value in hit.entry.values]
        out = [pair for pair in pairs if pair in kept_out]
        asked = [pair for pair in pairs if pair in wanted]
        allowed, loose = _ALLOWED.search(before), _NO_LONGER.search(before)
        later, gone = fine.match(after), unneeded.match(after)
        loose = loose if loose and (_OBLIGED.search(loose.group()) or "no longer" in loose.group()) else None
        dropped = _DROPPED.search(before) if gone else None
        if out and (allowed or later):
            found += out
        elif asked and (loose or gone):
            found += asked
        else:
            continue
        first = min([match.start() for match in (allowed, loose, dropped) if match], default=start)
        last = end + max((match.end() for match in (later, gone) if match), default=0)
        tail = _AGAIN.match(text, last)
        spans.append((first, tail.end() if tail else last))
    return found, spans


def _pairs(held: Filters, parts: Sequence[str]) -> set[tuple[str, str]]:
    return {(name, value) for part in parts for name, values in getattr(held, part).items() for value in values}
