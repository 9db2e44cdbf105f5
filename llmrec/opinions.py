"""What a sentence says about an item named in it: liked, disliked, known, or nothing."""

from __future__ import annotations

import re

_LIKE = re.compile(
    r"\b(?:like|likes|liked|love|loves|loved|enjoy|enjoys|enjoyed|adore|adored|fan of|favou?rites?"
    r"|similar to|such as|in the vein of|"
    r"reminds me of|into|more of)\b"
)
_DISLIKE = re.compile(
    r"\b(?:(?:did ?n[o']?t|do ?n[o']?t|don'?t|didn'?t|does ?n'?t|never|not|was ?n'?t|no longer|neither"
    r"|nor)(?: (?:really|much|particularly|even|that|i|do|did))* "
    r"(?:like|liked|love|loved|enjoy|enjoyed|care for|into|want|a fan of|fond of|keen on)|dislike[ds]?"
    r"|hate[ds]?|ca ?n'?t stand|couldn'?t stand|"
    r"cannot stand|detest(?:ed)?|loathe[ds]?|bored by|nothing like|unlike|less like|not like"
    r"|disappointed (?:by|with)|no more|"
    r"sick of|tired of|not|no|without|except|anything but)(?=\s|$)"
)
_SEEN = re.compile(r"\b(?:seen|watched|saw|read|played|i (?:already )?know|finished|own)\b")
_GOOD = (
    "good|great|amazing|awesome|fun|brilliant|wonderful|fantastic|excellent|lovely|perfect|fine|nice|cool|superb|"
    "my favou?rite|the best|beautiful|interesting|hilarious"
)
_BAD = (
    "bad|boring|awful|terrible|dull|horrible|too \\w+|not (?:good|great|for me|my \\w+)|disappointing|"
    "overrated|rubbish|the worst|weak|stupid"
)
_AFTER = re.compile(
    r"^[\"\u201d\s]*(?:\(\d{4}\)\s*)?,?\s*(?:(?:and|but|which|it|that|they|both|i think|i thought|to me)\s+)*"
    r"(?:is|was|were|are|looks?|sounds?|seems?|seemed)\s+(?:(?:really|so|very|quite|just|absolutely|pretty"
    r"|a bit)\s+)*"
    rf"(?:(?P<bad>{_BAD})|(?P<good>{_GOOD}))\b"
)
_AFTER_SEEN = re.compile(
    r"^[\"\u201d\s]*,?\s*(?:(?:which|that|but|and)\s+)*(?:i(?:'ve| have)? )?(?:already )?(?:seen|watched"
    r"|saw|know)\b"
)
_CLAUSE = re.compile(r"[.!?;\n]\s|\bbut\b|\bthough\b|\bhowever\b|\balthough\b|\bwhile\b")


def opinion_on(text: str, start: int, end: int) -> str:
    """Return `like`, `dislike`, `seen`, or '' for the item named at text[start:end] (lower case).

    The nearest cue before it in its clause decides (`I loved A but not B`), then what is said after it
    (`A was boring`).
    """
    opening = 0
    for mark in _CLAUSE.finditer(text, 0, start):
        opening = mark.end()
    cue = _last_cue(text[opening:start])
    after = text[end:]
    later = _AFTER.match(after)
    if later and cue in {"", "seen"}:
        return "dislike" if later["bad"] else "like"
    if not cue and _AFTER_SEEN.match(after):
        return "seen"
    if not cue and opening and text[:opening].rstrip().endswith("but"):
        return _last_cue(text[opening:start])
    return cue


def _last_cue(before: str) -> str:
    best, place = "", -1
    for name, pattern in (("dislike", _DISLIKE), ("like", _LIKE), ("seen", _SEEN)):
        for match in pattern.finditer(before):
            # "did not like" ends where "like" ends: the longer, negative reading was looked at first and
            # stays
            if match.end() > place:
                best, place = name, match.end()
    return best
