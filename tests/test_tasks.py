"""The traffic says only what is true: targets are what was taken, claims are catalogue fields."""

from itertools import islice, pairwise

import numpy as np
import pytest
from conftest import make_catalog, make_interactions, make_model

from llmrec.data.catalog import Catalog, Item
from llmrec.data.interactions import leave_one_out
from llmrec.finetune.data import dialogues
from llmrec.finetune.data.context import TaskContext
from llmrec.finetune.data.tasks import TASKS, TEXT_TASKS
from llmrec.lm.rendering import ItemRef, Text, UserRef
from llmrec.nlu.wording import join_words
from llmrec.ranking.explanations import describe, tags


@pytest.fixture(scope="module")
def world() -> TaskContext:
    model, split = make_model(), leave_one_out(make_interactions())
    histories = [split.train.rows_of(u) for u in range(len(split.train.users))]
    passages = np.random.default_rng(0).integers(0, 200, (4, 12))
    return TaskContext(make_catalog(), histories, [model.encoder.trajectory(h) for h in histories], 10, 0.5, passages)


def examples(world, task, count=60):
    return list(islice(TASKS[task](world, np.random.default_rng(0)), count))


def items_of(message) -> list[int]:
    return [p.row for p in message.parts if isinstance(p, ItemRef)]


def words_of(message) -> str:
    return "".join(p.text for p in message.parts if isinstance(p, Text))


def followers(world) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for h in world.histories for a, b in pairwise(h)}


def test_next_items_are_those_that_followed(world):
    for task in ("wish_item", "ranking"):
        for asked, answered in examples(world, task):
            (target,) = items_of(answered)
            histories = [items_of(asked)] if task == "wish_item" else _runs(asked)
            assert any(h and (h[-1], target) in followers(world) for h in histories)
    for (message,) in examples(world, "user_item"):
        assert any(isinstance(p, UserRef) for p in message.parts)
        assert [p.loss for p in message.parts if isinstance(p, ItemRef)] == [True]


def test_candidates_are_different_items_and_hold_the_answer(world):
    for asked, answered in examples(world, "ranking"):
        (target,) = items_of(answered)
        for lists in _runs(asked):
            if target in lists and len(lists) >= 2 and len(set(lists)) == len(lists):
                break
        else:
            pytest.fail(f"no candidate list with item {target}")


def _runs(message) -> list[list[int]]:
    """Items that stand side by side."""
    runs: list[list[int]] = [[]]
    for part in message.parts:
        if isinstance(part, ItemRef):
            runs[-1].append(part.row)
        else:
            runs.append([])
    return runs


def test_liked_titles_are_the_ones_before_the_answer(world):
    titles = {world.catalog[r].title.lower(): r for r in range(12)}
    for asked, answered in examples(world, "liked_item"):
        said = words_of(asked).lower()
        named = [
            r for title, r in titles.items() if title + " " in said + " " or title + "," in said or title + "." in said
        ]
        (target,) = items_of(answered)
        assert any((r, target) in followers(world) for r in named), (said, target)


def test_searched_words_stand_in_the_item():
    items = [Item(f"i{i}", f"Title Number {i}", f"A long story about the thing {i} and more", {}) for i in range(6)]
    catalog = Catalog(items, domain="films")
    histories = [np.arange(6)]
    world = TaskContext(catalog, histories, [np.zeros((6, 8), np.float32)], 10, 0.5, np.zeros((1, 4), np.int64))
    sources = set()
    for asked, answered in examples(world, "search_item", 200):
        (row,) = items_of(answered)
        text = f"{catalog[row].title} {catalog[row].text}".lower()
        said = words_of(asked).lower()
        hits = [w for w in said.replace(".", "").replace(",", "").split() if w in text.split()]
        assert hits
        sources.add("story" in said or "long" in said)
    assert sources == {True, False}  # both titles and texts


def test_a_critique_excludes_what_the_next_item_has_not(world):
    catalog, rng = world.catalog, np.random.default_rng(0)
    excluded = 0
    for _ in range(300):
        shown, wanted = (int(r) for r in rng.choice(12, 2, replace=False))
        said = words_of(dialogues._critique(catalog, shown, wanted, rng)).lower()
        if any(p in said for p in ("no ", "nothing with", "less ", "but not")):
            excluded += 1
            gone = {t.lower() for t in tags(catalog, shown)} - {t.lower() for t in tags(catalog, wanted)}
            assert any(tag in said for tag in gone)
            assert not any(t.lower() in said for t in tags(catalog, wanted))
    assert excluded > 20


def test_conversations_have_one_to_four_turns_and_true_sentences(world):
    turns, clarified = set(), 0
    for messages in examples(world, "conversation", 100):
        assert [m.role for m in messages] == ["user", "assistant"] * (len(messages) // 2)
        asked_back = not items_of(messages[1])
        clarified += asked_back
        turns.add(len(messages) // 2 - asked_back)
        assert not asked_back or "?" in words_of(messages[1])
        for message in messages[3 if asked_back else 1 :: 2]:
            (row,) = items_of(message)
            said = words_of(message)
            assert not said or (world.catalog.label(row) in said and describe(world.catalog, row) in said)
    assert turns <= {1, 2, 3, 4} and len(turns) >= 2
    assert 5 <= clarified <= 35


def test_a_comparison_is_true_of_the_two_items(world):
    catalog, rng = world.catalog, np.random.default_rng(1)
    compared = 0
    for _ in range(300):
        shown, wanted = (int(r) for r in rng.choice(12, 2, replace=False))
        for more in dialogues._more(catalog, shown, wanted):
            years = [catalog[row].attributes["year"] for row in (shown, wanted)]
            if more in ("newer", "older"):
                assert (years[1] > years[0]) == (more == "newer") and years[0] != years[1]
            else:
                tag = more.removeprefix("more ")
                assert tag in {t.lower() for t in tags(catalog, wanted)} - {t.lower() for t in tags(catalog, shown)}
        said = words_of(dialogues._critique(catalog, shown, wanted, rng))
        compared += catalog[shown].title in said
    assert compared > 30


def test_explanations_claim_fields_of_the_two_items_they_name(world):
    for asked, answered in examples(world, "explanation"):
        (row,) = items_of(asked)
        said = words_of(answered)
        assert describe(world.catalog, row) in said
        liked = [r for r in range(12) if world.catalog.label(r) in words_of(asked)]
        assert len(liked) == 1 and describe(world.catalog, liked[0]) in said


def test_refusals_stand_under_the_frame_and_never_deny_a_title(world):
    for system, asked, answered in examples(world, "refusal"):
        assert system.role == "system" and "recommend" in words_of(system)
        assert any(p.loss for p in answered.parts)
        said = words_of(asked) + words_of(answered)
        assert not any(word in said for word in ("Tale", "Funny", "Scary")), "a title of the toy world is denied"
    assert {"replay"} == TEXT_TASKS


def test_words_about_a_list_answer_wishes_and_liked_titles_alike(world):
    wished = named = 0
    for _system, asked, answered in examples(world, "talk"):
        message, listed_items = words_of(asked).split("\nList:\n")
        others = [row for row in range(12) if world.catalog[row].title in message]
        named += bool(others) and not all(world.catalog.label(row) in listed_items for row in others)
        wished += not others
        assert listed_items.startswith("1. ") and any(p.loss for p in answered.parts)
        said = words_of(answered)
        for row in range(12):
            assert world.catalog.label(row) not in said or world.catalog.label(row) in listed_items
    assert wished > 20 and named > 5


def test_lists_in_words():
    assert (
        join_words(["a"]) == "a" and join_words(["a", "b"]) == "a and b" and join_words(["a", "b", "c"]) == "a, b and c"
    )
