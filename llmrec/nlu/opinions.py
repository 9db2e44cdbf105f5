"""Classifies the opinion on an item named in a sentence: liked, disliked, already known, or none."""

from __future__ import annotations

import re

_LIKE = re.compile(
    r"(?<!would )(?<!'d )\b(?:like|love)(?! to\b)\b"
    r"|\b(?:likes|liked|loves|loved|enjoy|enjoys|enjoyed|adore[ds]?|fan of|favou?rites?"
    r"|similar to|such as|in the (?:vein|style|spirit|mould|mold|manner) of|(?:along )?the lines of"
    r"|resembl(?:es?|ing)|akin to"
    r"|comparable (?:to|with)|reminds me of|reminiscent of|into|more of|fond of|keen on|partial to"
    r"|(?:blown away|impressed|moved|thrilled|charmed) by|crazy about|obsessed with|hooked on|big on|soft spot for"
    r"|(?:could|can) (?:watch|read|play|hear)|rewatch(?:ed)?|(?:can't|cannot) get enough of|never tire of"
    r"|grew up (?:on|with)"
    r"|^yes,?|raved? about|swear by|in love with)\b"
)
_DISLIKE = re.compile(
    r"\b(?:(?:did ?n[o']?t|do ?n[o']?t|don'?t|didn'?t|does ?n'?t|never|not|was ?n'?t|no longer|neither"
    r"|nor)(?: (?:really|much|particularly|even|that|i|do|did))* "
    r"(?:like|liked|love|loved|enjoy|enjoyed|care for|into|want|a fan of|fond of|keen on)|dislike[ds]?"
    r"|hate[ds]?|ca ?n'?t stand|couldn'?t stand|"
    r"cannot stand|detest(?:ed)?|loathe[ds]?|bored by|nothing like|unlike|less like|not like"
    r"|disappointed (?:by|with|in)|never want to (?:see|watch|read|hear|play)|(?:take|leave) off|leave out"
    r"|remove|get rid of"
    r"|throw out|ditch|lose|dump|chuck|scrap|delete|nix|veto|regret(?:ted)? (?:watching|seeing|reading|playing"
    r"|sitting through)"
    r"|walked out (?:of|on)|(?:couldn't|could not) (?:finish|get through|bear)|can't bear"
    r"|fell asleep (?:during|in|at)"
    r"|gave up on|sit(?:ting)? through|allergic to"
    r"|throw out|kick out|cross (?:out|off)|skip|drop|no more|"
    r"sick of|tired of|not|no|without|except|anything but)(?=\s|$)"
)
_SEEN = re.compile(r"\b(?:seen|watched|saw|read|played|i (?:already )?know(?! (?:more|about))|finished|own)\b")
_GOOD = (
    "good|great|amazing|awesome|fun|brilliant|wonderful|fantastic|excellent|lovely|perfect|fine|nice|cool|superb|"
    "(?:a |one of )?my favou?rites?|an? (?:big |old |all-time )?favou?rites?|the best|beautiful|interesting|hilarious|"
    "marvell?ous|delightful|charming|promising|intriguing|tempting|(?:right )?up my (?:street|alley)|to my taste|"
    "my (?:kind|sort|type|cup) of|(?:just |exactly )?what i (?:want|need|like)|"
    "an? (?:gem|classic|masterpiece|treat|delight)|"
    "terrific|worth|appealing|superb|gripping"
)
_BAD = (
    "bad|boring|awful|terrible|dull|horrible|too \\w+|not (?:good|great|for me|my \\w+)|disappointing|"
    "overrated|rubbish|the worst|weak|stupid|unbearable|unwatchable|tedious|tiresome|not to my taste|"
    "out of the question|"
    "an? (?:big |real |complete |huge |total )?(?:disappointment|let-?down|bore|mess|waste|disaster)"
)
_AFTER = re.compile(
    r"^(?:\.\.\.|!)?[\"\u201d\s]*(?:\(\d{4}\)\s*)?[,:\u2013-]?\s*(?:(?:and|but|which|it|that"
    r"|they|both|i think|i thought"
    r"|i found|to me)\s+)*"
    r"(?:(?:is|was|were|are|(?:it|that)'s|looks?|sounds?|seems?|seemed)\s+|(?<=: )|(?<=- )"
    r"|(?<=\u2013 ))(?:(?:really|so|very|quite|just"
    r"|absolutely|pretty"
    r"|a bit)\s+)*"
    rf"(?:(?P<bad>{_BAD})|(?P<good>{_GOOD}))\b"
)
# `Heat bored me`, `number 2 does nothing for me`, `Heat blew me away`
_EFFECT = re.compile(
    r"^(?:\.\.\.|!)?[\"\u201d\s]*(?:\(\d{4}\)\s*)?,?\s*(?:it |that )?(?:(?:really|just|totally|absolutely|always)\s+)*"
    r"(?:(?P<bad>bor(?:ed|es?) me|(?:has|have|needs?) to go|must go|can go|let me down|sucked|sucks|stinks|stank"
    r"|puts? me off|fell flat|dragged|wasn't any good|no thanks?|not for me|annoy(?:ed|s) me|disappoint(?:ed"
    r"|s) me|put me to sleep|left me cold"
    r"|(?:did|does) nothing for me|(?:didn't|doesn't|did not|does not) (?:do (?:it|anything) for|appeal to"
    r"|interest|grab) me"
    r"|(?:isn't|wasn't|ain't|aren't|weren't) (?:good|great|for me|my \w+))"
    r"|(?P<good>rocks|rocked|rules|works for me|hit the spot|never gets old|holds up|stuck with me"
    r"|blew me away|blows me away|moved me|move[sd]? me|made me (?:laugh|cry|smile)|delight(?:ed|s) me"
    r"|impress(?:ed|es) me|appeals to me|interests me|caught my eye))\b"
)
# `I watched A, B and C and loved them`
_VERDICT_LATER = re.compile(
    r"\b(?:and|but|,)\s+(?:i |we )?(?:(?:really|absolutely|quite|just) )*(?:(?P<good>loved|liked|enjoyed|adored)"
    r"|(?P<bad>hated|disliked|loathed|didn't (?:really )?(?:like|enjoy|love)|did not (?:like|enjoy)|couldn't stand))"
    r"\s+(?:it|them|both|each|every|all|that|those)\b"
)
_AFTER_SEEN = re.compile(
    r"^[\"\u201d\s]*[,:]?\s*(?:(?:which|that|but|and)\s+)*(?:i(?:'ve| have)? )?(?:already )?(?:seen|watched"
    r"|saw|know)\b"
)
_TAKEN = re.compile(r"\b(?:take|leave|throw|kick|cross|strike)\s*$")
_CLAUSE = re.compile(r"[.!?;\n]\s|\bbut\b|\bthough\b|\bhowever\b|\balthough\b|\bwhile\b")


def opinion_on(text: str, start: int, end: int) -> str:
    """Return `like`, `dislike`, `seen`, or '' for the item named at text[start:end] (lower case).

    The nearest cue of liking or disliking before the item in its clause decides (`I loved A but not B`); without one,
    what follows the item does (`A was boring`).
    """
    opening = 0
    for mark in _CLAUSE.finditer(text, 0, start):
        opening = mark.end()
    cue = _last_cue(text[opening:start])
    after = text[end:]
    if _TAKEN.search(text[opening:start]) and re.match(r"\s*(?:off|out|away)\b", after):
        return "dislike"
    if cue in {"", "seen"}:
        clause = re.split(
            r"[.!?;\n]\s|\bbut (?!i\b|we\b|(?:really )?(?:loved|liked|enjoyed|hated|disliked))", after, maxsplit=1
        )[0]
        later = _AFTER.match(after) or _EFFECT.match(after) or _VERDICT_LATER.search(clause)
        if later:
            return "dislike" if later["bad"] else "like"
    if not cue and _AFTER_SEEN.match(after):
        return "seen"
    if not cue and opening and text[:opening].rstrip().endswith("but"):
        return _last_cue(text[opening:start])
    return cue


def ends_with_opinion(text: str) -> bool:
    """True when a text (lower case) ends with an opinion that a name may follow: `I didn't care for the `."""
    bare = re.sub(r"(?:\s+(?:the|a|an|film|movie|book))*[\s\"\u201c]*$", "", text)
    return any(match.end() == len(bare) for cue in (_LIKE, _DISLIKE, _SEEN) for match in cue.finditer(bare))


def is_verdict(after: str) -> bool:
    """True when what follows a name is a verdict on it: `was boring`, `blew me away`."""
    return _AFTER.match(after) is not None or _EFFECT.match(after) is not None


def _last_cue(before: str) -> str:
    best, place = "", -1
    for name, pattern in (("dislike", _DISLIKE), ("like", _LIKE), ("seen", _SEEN)):
        for match in pattern.finditer(before):
            # "did not like" ends where "like" ends; the negative pattern is tried first, so its match is kept
            if match.end() > place:
                best, place = name, match.end()
    return best
