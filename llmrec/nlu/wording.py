"""English wording of words from data: singular and plural, articles, capitals, and verbs for the kind of item."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_FIRST = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SINGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth",
    "mice": "mouse", "geese": "goose", "quizzes": "quiz", "lenses": "lens", "gases": "gas", "buses": "bus",
    "analyses": "analysis", "crises": "crisis", "theses": "thesis", "hypotheses": "hypothesis", "bases": "base",
    "knives": "knife", "wives": "wife", "lives": "life", "leaves": "leaf", "loaves": "loaf", "shelves": "shelf",
    "wolves": "wolf", "elves": "elf", "selves": "self", "halves": "half", "calves": "calf", "scarves": "scarf",
    "thieves": "thief", "bookshelves": "bookshelf", "shoes": "shoe", "toes": "toe", "canoes": "canoe",
    "caches": "cache", "headaches": "headache", "niches": "niche", "axes": "axe", "excuses": "excuse",
    "fuses": "fuse", "muses": "muse",
}  # fmt: skip
# Plurals in -ies whose singular ends in -ie.
_IE = _words(
    """
    movies cookies selfies zombies brownies smoothies hoodies rookies calories pies ties newbies indies hippies
    collies prairies genies birdies goalies groupies hankies junkies oldies goodies talkies veggies
    """
)
_SAME = _words(
    """
    series species news anime manga sheep fish deer aircraft politics graphics mathematics economics physics
    electronics cosmetics athletics gymnastics robotics sports arts jeans shorts trousers tennis chess headquarters
    means
    """
)
# Uncountable nouns; one item is "a piece of" them.
_MASS = _words(
    """
    music software clothing furniture jewellery jewelry equipment art literature poetry
    """
)

# Letters whose names begin with a vowel sound.
_VOWEL_LETTERS = frozenset("aefhilmnorsx")
_SPELT = _words(
    """
    rpg fps mmo mmorpg rts nes suv faq sos led hiv lgbt lgbtq ngo html hd hdr mp3 sf usb usa uk us ufo eu ai ar
    """
)
_SILENT_H = ("hour", "honest", "honour", "honor", "heir")
# Beginnings of words that start with a vowel letter but a consonant sound (`you`); `one` is checked separately.
_YOU = (
    "eu", "ew", "ubi", "ufo", "uga", "uk", "uly", "unan", "unary", "uni", "ura", "ure", "uri", "uro", "uru", "usa",
    "use", "usi", "usu", "ute", "uti", "uto",
)  # fmt: skip
_NOT_YOU = ("unid", "unim", "unin")

# Names of languages, nations and days, which keep their capital.
_NAMES = _words(
    """
    african american anglo arab arabic argentine asian australian austrian belgian bengali bollywood brazilian british
    bulgarian canadian cantonese celtic chilean chinese christian christmas christmastime colombian croatian cuban
    czech danish dutch easter egyptian english estonian european filipino finnish french gaelic german greek halloween
    hanukkah hebrew hindi hindu hollywood hungarian icelandic indian indonesian iranian iraqi irish islamic israeli
    italian jamaican japanese jewish kenyan korean kurdish latin latino lebanese lithuanian malay mandarin mexican
    mongolian moroccan muslim nigerian nordic norwegian persian peruvian portuguese romanian russian
    scandinavian scottish serbian shakespearean slavic slovak spanish swedish swiss taiwanese tamil telugu thai
    thanksgiving turkish ukrainian urdu victorian vietnamese welsh yiddish
    """
)
# Attributes whose values are names.
_NAMED = re.compile(
    r"(?:^|[_\W])(?:directors?|cast|actors?|actress(?:es)?|stars?|authors?|writers?|artists?|bands?|singers?"
    r"|composers?|brands?|makers?|manufacturers?|developers?|publishers?|studios?|labels?|designers?|creators?"
    r"|people|characters?|countr(?:y|ies)|languages?|franchises?|cit(?:y|ies)|places?)$",
    re.IGNORECASE,
)

# Kinds whose name can stand for a single work: "a comedy", but not "an action".
_KINDS = _words(
    """
    adventure animation anthology biography blockbuster comedy cookbook documentary drama epic fantasy film-noir game
    memoir musical mystery novel opera parody platformer prequel puzzle remake romance satire sequel shooter
    simulation simulator spoof thriller tragedy western whodunit rpg fps mmo mmorpg rts moba
    """
)


@dataclass(frozen=True)
class Verbs:
    """The verb for using an item of one kind.

    Attributes:
        do: the infinitive, "watch".
        does: the third person, "watches".
        did: the past tense, "watched".
        done: the participle for a known item, "seen".
    """

    do: str
    does: str
    did: str
    done: str


_WATCH = Verbs("watch", "watches", "watched", "seen")
_READ = Verbs("read", "reads", "read", "read")
_PLAY = Verbs("play", "plays", "played", "played")
_HEAR = Verbs("listen to", "listens to", "listened to", "heard")
_TRY = Verbs("try", "tries", "tried", "tried")
_BY_NOUN = {
    noun: kind
    for kind, nouns in {
        _WATCH: "film movie show series video documentary anime episode cartoon play clip",
        _READ: "book novel story comic manga article paper poem magazine essay news text fanfic literature poetry "
        "biography memoir",
        _PLAY: "game videogame",
        _HEAR: "song track album music podcast audiobook record playlist artist band symphony single",
    }.items()
    for noun in nouns.split()
}
# The verb forms of each kind of item that may occur in a phrase.
_FORMS = {
    _WATCH: re.compile(r"\b(?:watch(?:es|ed|ing)?|seen|saw)\b", re.IGNORECASE),
    _READ: re.compile(r"\b(?:read(?:s|ing)?)\b", re.IGNORECASE),
    _PLAY: re.compile(r"\b(?:play(?:s|ed|ing)?)\b", re.IGNORECASE),
    _HEAR: re.compile(r"\b(?:listen(?:s|ed|ing)?|hear(?:s|d|ing)?)\b", re.IGNORECASE),
    _TRY: re.compile(r"\btook\b", re.IGNORECASE),
}


def singular(noun: str) -> str:
    """Return the singular of a plural noun phrase: `board games` -> `board game`.

    The last word is made singular, or the one before `of`. Uncountable nouns become pieces: `piece of music`.
    """
    head, of, rest = noun.partition(" of ")
    if of:
        return f"{singular(head)}{of}{rest}"
    before, space, word = noun.rpartition(" ")
    if word.casefold() in _MASS:
        return f"piece of {noun}"
    return f"{before}{space}{_one(word)}"


def _one(word: str) -> str:
    low = word.casefold()
    if low in _SINGULAR:
        found = _SINGULAR[low]
        return found.upper() if word.isupper() else found.capitalize() if word[:1].isupper() else found
    if low in _SAME or (word.isupper() and len(word) <= 4):
        return word
    if low.endswith("ies") and low not in _IE and len(word) > 4:
        return f"{word[:-3]}{'Y' if word.isupper() else 'y'}"
    es = low.endswith(("ches", "shes", "sses", "xes", "zzes", "oes"))
    if es or (low.endswith("uses") and not low.endswith(("ouses", "auses"))):
        return word[:-2]
    whole = len(word) <= 3 or low.endswith(("ss", "us", "is"))
    return word[:-1] if low.endswith("s") and not whole else word


def is_plural(words: str) -> bool:
    """Return whether the last word is a plural."""
    word = words.rpartition(" ")[2]
    return _one(word) != word


def with_count(count: int, domain: str, before: str = "") -> str:
    """Return `1 film`, `10 films`; with `before`, `1 other film`."""
    many = f"pieces of {domain}" if domain.casefold() in _MASS else domain
    return f"{count:,} {f'{before} ' if before else ''}{singular(domain) if count == 1 else many}"


def article(words: str) -> str:
    """Return the indefinite article that the words take when spoken: `an hour`, `a user`, `an RPG`, `a one-shot`."""
    found = _FIRST.search(words)
    if not found:
        return "a"
    word = found[0]
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    low = "".join(char for char in decomposed if not unicodedata.combining(char))
    if low[0].isdigit():
        return "an" if _eight_or_eleven(re.match(r"\d+", low)[0]) else "a"  # type: ignore[index]
    if _spelt(word, low):
        return "an" if low[0] in _VOWEL_LETTERS else "a"
    if low.startswith(_SILENT_H):
        return "an"
    if low in {"one", "ones", "once"} or (low.startswith(_YOU) and not low.startswith(_NOT_YOU)):
        return "a"
    return "an" if low[0] in "aeiou" else "a"


def _eight_or_eleven(digits: str) -> bool:
    """True for numbers that are pronounced with an initial vowel: eight..., eleven..., eighteen..."""
    return digits[0] == "8" or (digits[:2] in {"11", "18"} and len(digits) in {2, 4, 5})


def _spelt(word: str, low: str) -> bool:
    """True for words that are pronounced letter by letter: single letters, `RPG`, `DVDs`; not `NASA`."""
    bare = word[:-1] if re.fullmatch(r"[^\W\d_a-z]{2,}s", word) else word
    if len(low) == 1 or low in _SPELT or low.removesuffix("s") in _SPELT:
        return True
    if not any(char in "aeiouy" for char in low):
        return True
    return bare.isupper() and len(bare) <= 5 and not (bare[0] not in "AEIOU" and bare[1] in "AEIOUY")


def with_article(words: str) -> str:
    """Return the words with their indefinite article."""
    return f"{article(words)} {words}"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Return `a`, `a and b`, `a, b and c`."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def unique_words(words: Iterable[str]) -> list[str]:
    """Return the words in order, without repetitions that differ in case only."""
    return list({word.casefold(): word for word in reversed(list(words))}.values())[::-1]


def end_sentence(words: str) -> str:
    """Return the words with a full stop, unless they already end with a punctuation mark."""
    return words if words.endswith((".", "!", "?", "\u2026")) else f"{words}."


def lower_in_sentence(value: str) -> str:
    """Return a value as written inside a sentence: in lower case, except acronyms and names (`RPG`, `French`)."""
    if value.isupper() and sum(map(str.isalpha, value)) > 5:
        return value.lower()
    return _WORD.sub(lambda match: match[0] if _keeps_case(match) else match[0].lower(), value)


def _keeps_case(match: re.Match[str]) -> bool:
    word, rest = match[0], match.string[match.end() :]
    if len(word) == 1:
        return word != "A" or rest.startswith("-")
    return any(char.isupper() for char in word[1:]) or word.casefold() in _NAMES


def value_in_sentence(attribute: str, value: str) -> str:
    """Return an attribute value as written inside a sentence; names of people and makers are not changed."""
    return value if _NAMED.search(attribute) else lower_in_sentence(value)


def requested_item(values: Sequence[str], domain: str, bare: bool = False) -> str:
    """Return the noun with the values before it and an article: `a comedy romance film`; without values, `a film`.

    With `bare`, the noun is left out if the last value can stand for it: `a comedy`, but `an action film`.
    """
    words = before_noun(values, domain)
    if bare and words and words[-1].rpartition(" ")[2].casefold() in _KINDS:
        return with_article(" ".join(words))
    return with_article(" ".join([*words, singular(domain)]))


def described_item(values: Sequence[str], domain: str, most: int, adjective: str = "") -> str:
    """Return the noun with at most `most` joined values before it and an article: `an action and RPG game`."""
    return with_article(f"{adjective} {join_words(before_noun(values, domain)[:most])} {singular(domain)}".strip())


def before_noun(values: Iterable[str], domain: str) -> list[str]:
    """Return the distinct values in the form they take before the noun.

    A value that ends with the noun loses it (`Board games` -> `Board`); plural kinds become singular (`comedies` ->
    `comedy`).
    """
    endings = [f" {noun.casefold()}" for noun in (domain, singular(domain))]
    words = []
    for value in values:
        ending = next((one for one in endings if f" {value}".casefold().endswith(one)), "")
        word = f" {value}"[: -len(ending)].strip() if ending else value
        one = singular(word) if word else ""
        words.append(one if one.rpartition(" ")[2].casefold() in _KINDS else word)
    return unique_words(word for word in words if word)


def domain_verbs(domain: str) -> Verbs:
    """Return the verb for items of this domain; `try` for an unknown noun."""
    noun = singular(domain).casefold()
    head = noun.partition(" of ")[2] if noun.startswith("piece of ") else noun.partition(" of ")[0]
    return _BY_NOUN.get(head.rpartition(" ")[2], _TRY)


def fits_domain(words: str, domain: str) -> bool:
    """Return whether words contain no verb of another kind of item: `If you have seen it` fits films only."""
    own = domain_verbs(domain)
    return not any(form.search(words) for kind, form in _FORMS.items() if kind != own)


def already_known(domain: str) -> str:
    """Return the phrase of somebody who already knows an item: `Seen it`, `Played it`."""
    return f"{domain_verbs(domain).done.capitalize()} it"
