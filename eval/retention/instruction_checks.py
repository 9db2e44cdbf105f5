"""Checks by program whether a reply follows an instruction.

The kinds with a colon are those of IFEval (Zhou et al., 2023, arXiv:2311.07911), with its names and arguments, in the
strict reading. Two of its 25 kinds are missing because a small program cannot decide them: the language of a reply, and
a sentence count that agrees with its tokenizer's. For the same reason "in English" is not checked in the two kinds of
`change_case`. Kinds without a colon are our own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmrec.errors import DataError

_WORDS = re.compile(r"[^\W_]+(?:[-'\u2019][^\W_]+)*")


def passes_check(reply: str, kind: str, values: Mapping[str, Any]) -> bool:
    """True if a reply passes one check; an empty reply passes none.

    Raises:
        DataError: the kind does not exist, or does not take these values.
    """
    if kind not in CHECKS:
        raise DataError(f"no check {kind!r}; there are: {', '.join(CHECKS)}")
    if not reply.strip():
        return False
    try:
        return CHECKS[kind](reply, **values)
    except TypeError as error:
        raise DataError(f"check {kind!r} does not take {dict(values)!r}: {error}") from None


def _meets(count: int, relation: str, bound: int) -> bool:
    if relation not in {"less than", "at least"}:
        raise DataError(f"relation {relation!r} is neither 'less than' nor 'at least'")
    return count < bound if relation == "less than" else count >= bound


def _count(text: str, phrase: str) -> int:
    return len(re.findall(re.escape(phrase), text, re.IGNORECASE))


def _no_comma(reply: str) -> bool:
    return "," not in reply


def _number_words(reply: str, relation: str, num_words: int) -> bool:
    return _meets(len(re.findall(r"\w+", reply)), relation, num_words)


def _existence(reply: str, keywords: Sequence[str]) -> bool:
    return all(_count(reply, word) for word in keywords)


def _forbidden(reply: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", reply, re.IGNORECASE) for word in forbidden_words)


def _frequency(reply: str, keyword: str, relation: str, frequency: int) -> bool:
    return _meets(_count(reply, keyword), relation, frequency)


def _letters(reply: str, letter: str, let_relation: str, let_frequency: int) -> bool:
    return _meets(reply.lower().count(letter.lower()), let_relation, let_frequency)


def _highlighted(reply: str, num_highlights: int) -> bool:
    single = [one.strip("*") for one in re.findall(r"\*[^\n*]*\*", reply)]
    double = [one[2:-2] for one in re.findall(r"\*\*[^\n*]*\*\*", reply)]
    return sum(bool(one.strip()) for one in single + double) >= num_highlights


def _bullets(reply: str, num_bullets: int) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*]|-).*$", reply, re.MULTILINE)) == num_bullets


def _sections(reply: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter)}\s?\d+", reply)) >= num_sections


def _paragraphs(reply: str, num_paragraphs: int) -> bool:
    parts = [part.strip() for part in reply.split("***")]
    inner = parts[1:-1]
    return all(inner) and sum(map(bool, parts)) == num_paragraphs


def _first_word(reply: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = reply.split("\n\n")
    full = sum(bool(part.strip()) for part in parts)
    if full != num_paragraphs or nth_paragraph > full or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'\"").lower()
    return re.split(r"[.,?!'\"]", word)[0] == first_word.lower()


def _title(reply: str) -> bool:
    return any(one.strip("<> ") for one in re.findall(r"<<[^\n]+>>", reply))


def _json(reply: str) -> bool:
    body = re.sub(r"^```(?:json)?|```$", "", reply.strip(), flags=re.IGNORECASE)
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _constrained(reply: str) -> bool:
    return any(one in reply for one in ("My answer is yes.", "My answer is no.", "My answer is maybe."))


def _placeholders(reply: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", reply)) >= num_placeholders


def _postscript(reply: str, postscript_marker: str) -> bool:
    loose = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    return bool(re.search(loose.get(postscript_marker, re.escape(postscript_marker.lower())), reply.lower()))


def _capital_words(reply: str, capital_relation: str, capital_frequency: int) -> bool:
    return _meets(sum(word.isupper() for word in _WORDS.findall(reply)), capital_relation, capital_frequency)


def _two(reply: str) -> bool:
    parts = [part.strip() for part in reply.split("******")]
    full = [part for part in parts if part]
    return all(parts[1:-1]) and len(full) == 2 and full[0] != full[1]


def _repeat(reply: str, prompt_to_repeat: str) -> bool:
    return reply.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end(reply: str, end_phrase: str) -> bool:
    return reply.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(reply: str) -> bool:
    text = reply.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _start(reply: str, phrase: str) -> bool:
    return reply.strip().lower().startswith(phrase.lower())


def _any(reply: str, words: Sequence[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", reply, re.IGNORECASE) for word in words)


def _most_words(reply: str, words: int) -> bool:
    return len(_WORDS.findall(reply)) <= words


def _exact_words(reply: str, words: int) -> bool:
    return len(_WORDS.findall(reply)) == words


def _sentences(reply: str, sentences: int) -> bool:
    return len([part for part in re.split(r"(?<=[.!?])[\"')\]]*(?:\s+|$)", reply.strip()) if part]) == sentences


def _lines(reply: str, lines: int) -> bool:
    return sum(bool(line.strip()) for line in reply.splitlines()) == lines


def _numbered(reply: str, items: int) -> bool:
    return [int(n) for n in re.findall(r"^\s*(\d+)[.)]", reply, re.MULTILINE)] == list(range(1, items + 1))


def _commas(reply: str, items: int) -> bool:
    parts = re.split(r"\s*(?:,\s*(?:and|or)\s|,|\band\b)\s*", reply.strip().rstrip("."))
    return "\n" not in reply.strip() and len(parts) == items and all(parts)


def _one_of(reply: str, options: Sequence[str]) -> bool:
    said = reply.strip().strip("\"'*.!").lower()
    return said in {option.lower() for option in options}


def _pattern(reply: str, pattern: str) -> bool:
    return re.fullmatch(pattern, reply.strip(), re.DOTALL) is not None


CHECKS: Mapping[str, Callable[..., bool]] = {
    "punctuation:no_comma": _no_comma,
    "length_constraints:number_words": _number_words,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "keywords:existence": _existence,
    "keywords:forbidden_words": _forbidden,
    "keywords:frequency": _frequency,
    "keywords:letter_frequency": _letters,
    "detectable_format:number_highlighted_sections": _highlighted,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:title": _title,
    "detectable_format:json_format": _json,
    "detectable_format:constrained_response": _constrained,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "change_case:english_capital": str.isupper,
    "change_case:english_lowercase": str.islower,
    "change_case:capital_word_frequency": _capital_words,
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeat,
    "startend:end_checker": _end,
    "startend:quotation": _quotation,
    "starts_with": _start,
    "contains_any": _any,
    "at_most_words": _most_words,
    "exactly_words": _exact_words,
    "sentences": _sentences,
    "lines": _lines,
    "numbered_list": _numbered,
    "comma_list": _commas,
    "one_of": _one_of,
    "pattern": _pattern,
}
