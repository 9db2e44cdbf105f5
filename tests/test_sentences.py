"""The sentences and replies that training material is made of are well formed, distinct, and many."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

SLOTS = {"item", "genre", "genres", "person", "theme", "mood", "country", "demonym", "place", "brand", "value"}
SPANS = {"time", "count", "amount", "audience", "intensity", "pointer", "wish", "attribute"}
STANCES = {"like", "dislike", "seen", "not_seen", "want", "avoid", "ask", "drop", "mention"}
ACTS = {"recommend", "more", "reject", "accept", "smalltalk", "question", "clarify", "undo", "reset"}


def rows(name: str) -> list[dict[str, Any]]:
    """The objects of a file of the prompts."""
    lines = (files("llmrec.prompts") / name).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_mark_of_a_sentence_has_a_known_type_and_stance() -> None:
    for row in rows("understanding.jsonl"):
        assert set(row) == {"text", "acts", "context", "person"}
        assert row["acts"] and set(row["acts"]) <= ACTS
        for mark in re.findall(r"\{([^{}]*)\}", row["text"]):
            kind, stance, *words = mark.split("|")
            assert stance in STANCES, row
            assert (kind in SLOTS and not words) or (kind in SPANS and len(words) == 1 and words[0].strip()), row
        assert not set("{}") & set(re.sub(r"\{[^{}]*\}", "", row["text"]))


def test_there_are_three_thousand_sentences_of_sixty_people_and_none_twice() -> None:
    found = rows("understanding.jsonl")
    frames = {re.sub(r"\W+", " ", re.sub(r"\{(\w+)[^{}]*\}", r"\1", row["text"].lower())) for row in found}
    assert len(frames) == len(found) >= 3_000
    assert len({row["person"] for row in found}) >= 55


def test_a_reply_needs_exactly_the_slots_it_has() -> None:
    found = rows("replies.jsonl")
    assert len(found) >= 400
    for row in found:
        assert set(re.findall(r"\{(\w+)\}", row["assistant"])) == set(row["needs"]), row
