"""Detects small talk, off-topic requests and foreign languages, and extracts the free description."""

from __future__ import annotations

import re
from functools import lru_cache

from llmrec.nlu.english import FILLER, FOREIGN, SMALL_BETWEEN
from llmrec.nlu.wording import singular

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?;\n]+(?:\s+|$)")
# A sentence that is not part of the wish: about oneself, or in the past tense. Plots are told in the present tense.
_ASIDE = re.compile(
    r"^\W*(?:by the way\b|(?:my|our|we|i|somebody|someone)\b|(?:the|a|an|this|that)\b.*\b(?:was|were|had|has|have)\b)"
)
_CUE = re.compile(
    r"\b(?:films?|movies?|something|anything|ones?|it|about|like\w*|lov\w+|enjoy\w*|want\w*|wish\w*|need\w*|prefer\w*"
    r"|recommend\w*|suggest\w*|find|show|give|watch\w*|read|play\w*|mood|feel\w*|felt|more|less|favou?rites?|taste)\b"
)


_TOPICS: tuple[tuple[str, str], ...] = (
    (
        "greeting",
        r"(?:hi|hello|hey|hiya|good (?:morning|evening|afternoon|day)|greetings|howdy|yo)"
        r"(?: there| again| everyone| bot)?",
    ),
    (
        "thanks",
        r"(?:ok(?:ay)? |no |many |cheers )*(?:thanks?|thank you|thx|cheers|that's (?:very |so )?(?:kind|nice"
        r"|good|sweet|great)(?: of you)?|great|perfect|awesome|nice|cool|lovely|good)"
        r"(?: (?:a lot|so much|very much|you|job|one|bot|again))*",
    ),
    ("bye", r"(?:good ?bye|bye|see you|see ya|good night|cya)(?: .{0,20})?"),
    (
        "mood",
        r"(?:hi |hello |hey )?(?:how are you|how's it going|what's up|how are things)(?: .{0,20})?",
    ),
    (
        "about",
        r"(?:who|what) are you|are you (?:a |an )?(?:bot|robot|human|ai|real|person|machine).{0,20}"
        r"|what(?:'s| is) your name",
    ),
    (
        "help",
        r"(?:help|help me|what can you do|how does (?:this|it) work|what do you do|how do i use (?:this|it))"
        r"(?: for me)?(?: here)?",
    ),
    ("ok", r"(?:ok|okay|yes|yeah|yep|no|nope|sure|fine|hm+|aha|i see|alright|right|lol|haha)"),
)  # fmt: skip

# Requests that are refused whatever else the message says.
_FORBIDDEN = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|prompts?|rules?|guidelines)\b"
    r"|\b(?:system|hidden|secret|initial) (?:prompt|message|instructions?)\b"
    r"|\b(?:you are now|pretend (?:to be|you)|act as (?:a|an|if|my)|developer mode|jailbreak)\b"
    r"|\b(?:write|generate|debug|fix|implement|give me|explain)\b.{0,30}\b(?:code|script|python|javascript"
    r"|sql|html|regex|program|essay|poem|haiku|email|e-mail|homework)\b"
    r"|^(?:\w+,? )?how (?:tall|deep|heavy|far away) (?:is|are|was)\b"
    r"|\b(?:api key|password)\b|\btranslate\b.{0,60}\b(?:to|into|in)\b|^\s*translate\b"
    r"|^[^a-z]*\d+\s*[-+*/x^\u00d7\u00f7]\s*\d+(?:\s*[-+*/x^\u00d7\u00f7]\s*\d+)*\s*[=?]*\s*$|\b(?:what is"
    r"|what's|calculate|compute|how much is)\s+\d[\d\s.]*(?:[-+*/x^\u00d7\u00f7]|times|plus|minus|divided by"
    r"|multiplied by)"
)  # fmt: skip
_GREETED = re.compile(r"^(?:(?:hi|hello|hey|well|okay|ok|so|hmm|please|oh)(?: there)? )+")
_POLITE = re.compile(r"(?: (?:please|thanks|thank you|if possible))+$")
_YEARS = re.compile(r"^\W*(?:1[89]|20)\d\d\W+(?:1[89]|20)\d\d\W*$")
_OUTSIDE = re.compile(
    r"\b(?:weather|forecast|temperature|rain|sunny|python|javascript|java|programming|code|sql|math|maths"
    r"|equation|integral|derivative|square root|"
    r"calculate|news|politics|president|prime minister|election|stocks?|bitcoin|crypto|invest|poem|essay"
    r"|joke|recipe|cook|restaurant|hotel|"
    r"flights?|medicine|symptoms?|doctor|diagnosis|lawyer|legal|homework|capital of|population of"
    r"|who invented|who won|how far|how tall|pizza|dinner|lunch|breakfast|"
    r"how old are|what time|what day|what date|meaning of life|your instructions|email|train to|bus to"
    r"|directions to|tax(?:es)?)\b"
)

# general knowledge questions and errands: `how do I boil an egg`, `can you order me a taxi`, `who is the pope`
_ERRAND = re.compile(
    r"^(?:(?:please|hey|hi|hello|well|okay|ok|so|hmm|oh),? )*(?:"
    r"(?:can|could|would|will) you (?:please )?(?:order|book|buy|call|cook|play|sing|send|set|open|turn|pay"
    r"|drive|clean|fix|solve"
    r"|teach|remind|wake|phone|text|print|draw|paint|lend|marry)\b"
    r"|how (?:do|can|should|could) (?:i|you|we|one) (?!use|work|choose|decide|like|pick|know|find|get (?:new"
    r"|more|other))"
    r"|how (?:to|many|much|tall|big|far|deep|fast|heavy|high|hot|cold|expensive)\b|do you (?:like|love|enjoy"
    r"|hate|eat|drink|sleep|dream|believe)\b|(?:who|where) (?:is|are|was|were|won|will|did|does|do|can|has)\b"
    r"|(?:what is|what's|what are) the (?!best|most|next|first|newest|latest|one|other|second|third|last|good"
    r"|reason)\w+ (?:of|for|in|on)\b"
    r"|when (?:is|was|will|did|does) (?!it|that|this|the)\w+)"
)


@lru_cache(maxsize=16)
def domain_nouns(domain: str) -> str:
    """Return regular-expression alternatives for the catalogue's noun: `films` -> film, films, movie, ..."""
    words = {domain.casefold(), singular(domain).casefold()}
    if words & {"film", "movie"}:
        words |= {"film", "films", "movie", "movies", "flick", "flicks"}
    return "|".join(sorted(map(re.escape, words), key=lambda word: (-len(word), word)))


def content_words(rest: str, noun: str) -> list[str]:
    """Return the words that describe something: all but request words, the domain's nouns and numbers."""
    own = set(noun.split("|"))
    return [word for word in _WORD.findall(rest) if word not in FILLER and word not in own and not word.isdigit()]


def free_description(rest: str, noun: str) -> str:
    """Return the free description in the text that was not parsed: content words and the small words between them.

    Request words and asides ("my train was late") are left out, so that the same wish in other words gives the same
    description.

    >>> free_description("could you find me something quiet that i'd enjoy about loneliness, please?", "film|films")
    'quiet about loneliness'
    """
    sentences = [one for one in _SENTENCE_END.split(rest) if one.strip()]
    asides = [_ASIDE.match(one) is not None and not _CUE.search(one) for one in sentences]
    if all(asides):
        asides = [False] * len(asides)
    own = set(noun.split("|"))
    parts: list[str] = []
    for sentence, aside in zip(sentences, asides, strict=True):
        words = [] if aside else _WORD.findall(sentence)
        telling = [place for place, word in enumerate(words) if content_words(word, noun)]
        between = words[telling[0] : telling[-1] + 1] if telling else []
        parts += [w for w in between if w in SMALL_BETWEEN or (w not in FILLER and w not in own)]
    return " ".join(parts)


def smalltalk_topic(lower: str) -> str:
    """Return the kind of small talk (greeting, thanks, bye, mood, about, help, ok), or '' for other texts."""
    bare = re.sub(r"[^\w' ]+", " ", lower)
    bare = " ".join(bare.split())
    greeted = _GREETED.sub("", bare)
    for said in (bare, greeted, _POLITE.sub("", greeted)):
        for name, pattern in _TOPICS:
            if re.fullmatch(pattern, said):
                return name
    return ""


def is_forbidden(lower: str) -> bool:
    """True for requests that are always refused: instructions to override the program, writing code, arithmetic."""
    return _FORBIDDEN.search(lower) is not None and not _YEARS.match(lower)


def is_off_topic(lower: str, noun: str) -> bool:
    """True for requests about other topics, unless the domain's noun occurs (`a film on the weather`)."""
    if re.search(rf"\b(?:{noun}|watch|recommend\w*|suggest\w*)\b", lower):
        return False
    return _OUTSIDE.search(lower) is not None or _ERRAND.match(lower) is not None


def foreign_language(text: str) -> str:
    """Return `script` for text in mostly non-Latin letters, `words` for another European language, else ''.

    A text counts as another European language if at least two of its words are common words of one, and more than are
    English filler words.
    """
    letters = [char for char in text if char.isalpha()]
    latin = sum(char < "\u0250" or "\u1e00" <= char <= "\u1eff" for char in letters)
    if letters and latin * 2 < len(letters):
        return "script"
    words = _WORD.findall(text.casefold())
    other = sum(word in FOREIGN for word in words)
    return "words" if other >= 2 and other > sum(word in FILLER for word in words) else ""
