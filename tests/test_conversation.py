"""Scripted dialogues: how they are written, what they mean, that the judge sees what is wrong, and the suite itself."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import FakeRecommender, films
from rich.console import Console
from test_stability import make_recommender

from llmrec.data.filters import Filters
from llmrec.data.interactions import Interactions, leave_one_out
from llmrec.eval.conversation import suite
from llmrec.eval.conversation.dialogues import LATER, OPENINGS, TURNS, write_dialogues
from llmrec.eval.conversation.judge import judge_turn
from llmrec.eval.conversation.phrasings import ASIDE, WORDINGS, is_held_out, phrasings_of
from llmrec.eval.conversation.simulation import ChatAnswer, PlayedTurn, play_dialogue
from llmrec.eval.conversation.user_state import Step, UserState
from llmrec.eval.conversation.writer import Dialogue, DialogueWorld, DialogueWriter
from llmrec.eval.grounding.requests import Constraint
from llmrec.eval.grounding.text import TextCheck
from llmrec.eval.report.build import run_report
from llmrec.eval.result_file import check_result
from llmrec.lm import prompts
from llmrec.nlu.state import Profile
from llmrec.recommender import Recommender

FILMS = films()
ROW = {item.title: row for row, item in enumerate(FILMS.items)}
CHECK = TextCheck(FILMS)
COMEDY, NO_WAR = Constraint("tag", "genre", "Comedy"), Constraint("not", "genre", "War")
LATE = Constraint("year", "year", low=1990)


def a_split():
    rng = np.random.default_rng(0)
    users = [f"u{user}" for user in range(12) for _ in range(6)]
    rows = np.concatenate([rng.choice(len(FILMS), 6, replace=False) for _ in range(12)]).tolist()
    return leave_one_out(Interactions.build(users, rows, list(range(len(rows))), [1.0] * len(rows)))


@pytest.fixture(scope="module")
def dialogues():
    return write_dialogues(FILMS, a_split(), 80, 0)


def plain(phrase):
    return " ".join(re.sub(r"\W+", " ", re.sub(r"\{\w+\}", "_", phrase.lower())).split())


def test_every_act_has_wordings_of_its_own_and_none_is_trained_on():
    trained = {plain(one) for name in prompts.template_names() for one in prompts.load_template(name).user} - {"_"}
    said = [(act, plain(one)) for act in WORDINGS for one in phrasings_of(act)]
    bare = {("which", "_")}  # a year alone, which is no template's
    assert not {(act, one) for act, one in said if one in trained} - bare
    assert {act: len(w) for act, w in WORDINGS.items() if len(set(map(plain, w))) < 5} == {"name_twice": 3}
    assert {*ASIDE} == {*WORDINGS} - {"name_twice"}
    assert len(set(said)) == len(said)
    assert [is_held_out("count", i) for i in range(len(phrasings_of("count")))] == [False] * 8 + [True] * 2
    assert ({*OPENINGS, *LATER} - {"undo"}) | {"which", "name_twice"} == {*WORDINGS}


def test_dialogues_are_seeded_and_of_two_to_six_turns(dialogues):
    assert dialogues == write_dialogues(FILMS, a_split(), 80, 0) != write_dialogues(FILMS, a_split(), 80, 1)
    assert write_dialogues(FILMS, a_split(), 10, 0) == dialogues[:10]
    others = [
        step for one in write_dialogues(FILMS, a_split(), 20, 0, aside=True) for step in one.steps if step.act in ASIDE
    ]
    assert others and all(is_held_out(step.act, step.wording) for step in others)
    assert not any(is_held_out(s.act, s.wording) for one in dialogues for s in one.steps if s.act != "undo")
    assert {len(one.steps) for one in dialogues} <= set(range(TURNS[0], TURNS[1] + 1))
    assert len({step.act for one in dialogues for step in one.steps}) > 20
    assert sum(one.user >= 0 for one in dialogues) == 20
    assert all((one.user >= 0) == bool(one.history) for one in dialogues)
    assert len({one.steps[0].text for one in dialogues}) > 60


def test_what_is_asked_for_can_be_met_and_is_said(dialogues):
    for dialogue in dialogues:
        state, kept = UserState(history=dialogue.history), []
        for step in dialogue.steps:
            if step.act == "undo":
                state = kept.pop()
                continue
            kept.append(state)
            state = state.after(replace(step, places=(), fresh=False), FILMS)
            assert state.fitting(FILMS).any(), dialogue
            for one in step.add:
                if one.kind == "year":
                    assert one.words.lower() in step.text.lower()


def test_a_state_follows_the_rules_of_a_conversation():
    shown = UserState(shown=(3, 5, 7))
    assert shown.after(Step("", "", opinion="dislike", places=(2,)), FILMS).disliked == (5,)
    assert shown.after(Step("", "", opinion="like", places=(1, -1)), FILMS).liked == (3, 7)
    turned = UserState(disliked=(4,)).after(Step("", "", opinion="like", rows=(4,)), FILMS)
    assert (turned.liked, turned.disliked) == ((4,), ())
    passed = shown.after(Step("", "", fresh=True), FILMS)
    assert passed.hidden == {3, 5, 7} and shown.hidden == frozenset()
    asked = UserState().after(Step("", "", add=(COMEDY, LATE)), FILMS)
    assert set(np.flatnonzero(asked.fitting(FILMS))) == {
        row for row, item in enumerate(FILMS.items) if COMEDY.holds(item) and item.attributes["year"] >= 1990
    }
    assert asked.after(Step("", "", lift=(COMEDY,)), FILMS).constraints == (LATE,)
    heat = UserState().after(Step("", "", opinion="like", rows=(ROW["Heat"],), side="newer"), FILMS)
    assert heat.constraints[0].low == 1996 and not heat.available(FILMS)[ROW["Heat"]]
    assert UserState(history=(1,), liked=(2,), seen=(3,)).hidden == {1, 2, 3}


def answer(rows=None, facts="Here are films.", words="", notices=(), **profile):
    return ChatAnswer(rows, ("",) * len(rows or ()), facts, words, tuple(notices), Profile(**profile), {}, bool(words))


def verdicts(step, given, before=UserState()):  # noqa: B008 (frozen)
    after = before.after(step, FILMS)
    after = after if given.rows is None else replace(after, shown=given.rows)
    return {one.metric: one for one in judge_turn(CHECK, PlayedTurn(step, before, after, given))}


def test_a_list_is_judged_by_the_fields_of_its_items():
    step = Step("want", "", add=(COMEDY,))
    fits = tuple(row for row, item in enumerate(FILMS.items) if COMEDY.holds(item))[:10]
    comedy = Filters(all_of={"genre": ("Comedy",)})
    good = verdicts(step, answer(fits, filters=comedy))
    assert good["satisfied"].value == good["filters_as_meant"].value == good["as_long_as_asked"].value == 1.0
    bad = verdicts(step, answer((*fits[:-1], ROW["Heat"]), filters=Filters()))
    assert bad["satisfied"].value == pytest.approx(1 - 1 / len(fits)) and "Heat" in bad["satisfied"].wrong
    assert bad["filters_as_meant"].value == 0.0
    assert verdicts(step, answer(None))["listed"].value == 0.0
    again = verdicts(step, answer(fits, filters=comedy), UserState(disliked=(fits[0],), history=(fits[1],)))
    assert again["excluded_shown_again"].value == 2.0


def test_what_cannot_be_met_must_be_said():
    musical_war = Step("add", "", add=(Constraint("tag", "genre", "Western"), Constraint("tag", "genre", "Musical")))
    silent = verdicts(musical_war, answer((1,)))
    assert silent["relaxed_said"].value == 0.0 and "satisfied" not in silent
    assert verdicts(musical_war, answer((1,), notices=["I relaxed Western."]))["relaxed_said"].value == 1.0


def test_references_hold_for_exactly_the_meant_items():
    before = UserState(shown=(3, 5, 7))
    step = Step("like_place", "", opinion="like", places=(2,))
    assert verdicts(step, answer((1,), liked=(5,)), before)["references_resolved"].value == 1.0
    for wrong in ((3,), (5, 7), ()):
        assert verdicts(step, answer((1,), liked=wrong), before)["references_resolved"].value == 0.0
    why = Step("why_place", "", opinion="why", places=(3,), answer="words")
    told = f"{FILMS.label(7)}: goes with {FILMS.label(3)}."
    assert verdicts(why, answer(None, told), before)["references_resolved"].value == 1.0
    for wrong in (f"{FILMS.label(3)}: a film.", f"{told}\n{FILMS.label(5)}: too.", "Because."):
        assert verdicts(why, answer(None, wrong), before)["references_resolved"].value == 0.0
    assert verdicts(why, answer((1,), told), before)["references_resolved"].value == 0.0
    newer = Step("newer", "", places=(1,), side="newer")
    year = FILMS[3].attributes["year"]
    right = answer((1,), filters=Filters(ranges={"year": (year + 1, None)}))
    assert verdicts(newer, right, before)["references_resolved"].value == 1.0
    assert verdicts(newer, answer((1,)), before)["references_resolved"].value == 0.0


def test_one_question_is_asked_where_one_is_due():
    step = Step("empty", "", answer="question")
    assert verdicts(step, answer((1,), "What do you like?"))["clarifying_asked"].value == 1.0
    assert verdicts(step, answer((1,), "What? Who?"))["clarifying_asked"].value == 0.0
    assert verdicts(step, answer((1,), "Here."))["clarifying_asked"].value == 0.0
    assert verdicts(Step("want", ""), answer((1,), "Is it?"))["asked_without_need"].value == 1.0


def test_titles_that_nobody_named_are_counted():
    heat, shown = ROW["Heat"], (ROW["Toy Story"],)
    step = Step("want", "something")
    off = verdicts(step, answer(shown, "Like Blade Runner.", words="Alien (1979) is good."))
    assert off["off_list_titles"].value == 2.0
    named = verdicts(Step("like", "I loved Heat", opinion="like", rows=(heat,)), answer(shown, "You like Heat (1995)."))
    assert named["off_list_titles"].value == 0.0
    offered = Step("unknown", "", named="Terminator 9", answer="unknown")
    note = "I have nothing called \u201cTerminator 9\u201d here; do you mean The Terminator (1984)?"
    found = verdicts(offered, answer(None, note))
    assert found["off_list_titles"].value == 0.0 and found["unknown_said"].value == 1.0
    assert verdicts(offered, answer(shown, "Here are films."))["unknown_said"].value == 0.0


def test_an_undo_puts_everything_back():
    before = UserState(liked=(4,), shown=(1, 2))
    right = replace(answer(None, "", liked=(4,)), profile=Profile(liked=(4,)))
    assert {
        v.metric: v.value
        for v in judge_turn(CHECK, PlayedTurn(Step("undo", ""), before, replace(before, shown=()), right))
    }["undone"] == 1.0
    wrong = replace(right, profile=Profile(liked=(4, 5)))
    assert {
        v.metric: v.value
        for v in judge_turn(CHECK, PlayedTurn(Step("undo", ""), before, replace(before, shown=()), wrong))
    }["undone"] == 0.0


def of_all(recommender, dialogues):
    played = []
    for one in dialogues:
        for place, turn in enumerate(play_dialogue(recommender, one, -1)):
            played.append(suite.JudgedTurn(one, place, turn, tuple(judge_turn(TextCheck(recommender.catalog), turn))))
    return played


def test_the_chat_keeps_what_was_said_and_a_deaf_one_does_not(dialogues, monkeypatch):
    played = of_all(FakeRecommender(FILMS, words=()), dialogues)
    told = suite.targets(played, {})
    assert told["excluded_shown_again"] == 0.0
    assert told["dialogue_constraints"] >= 0.95 and told["references_resolved"] >= 0.95
    assert suite._share(played, "crashed") == 0.0

    def deaf(text, *args):
        from llmrec.nlu.parser import Intent

        return Intent("recommend")

    monkeypatch.setattr("llmrec.dialogue.chat.parse_message", deaf)
    deaf_told = suite.targets(of_all(FakeRecommender(FILMS, words=()), dialogues), {})
    assert deaf_told["dialogue_constraints"] < 0.5 and deaf_told["references_resolved"] == 0.0
    assert deaf_told["excluded_shown_again"] > 20


def test_a_crash_is_a_verdict_and_spoils_the_dialogue():
    broken = FakeRecommender(FILMS)

    def fails(request):
        raise RuntimeError("no")

    broken.recommend = fails
    played = of_all(broken, [Dialogue(0, -1, (), (Step("want", "comedies", add=(COMEDY,)),))])
    assert played[0].value("crashed") == 1.0
    assert suite.targets(played, {})["dialogue_constraints"] == 0.0


def test_a_title_is_misspelt_only_where_no_other_is_near():
    world = DialogueWorld.of(FILMS)
    writer = DialogueWriter(world, np.random.default_rng(0), 0, UserState())
    typed = {row: {writer.title(row)[0] for _ in range(60)} for row in (ROW["Alien"], ROW["Groundhog Day"])}
    assert len(typed[ROW["Groundhog Day"]]) > 5
    assert typed[ROW["Alien"]] == {"Alien", "Alien (1979)"}


def test_the_suite_writes_a_result_in_the_form(monkeypatch, tmp_path):
    loaded = make_recommender()
    said = "Funny Tale 2 is a comedy film."
    monkeypatch.setattr(loaded, "talk", lambda *_, **__: iter([said]), raising=False)
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda *_: loaded))
    monkeypatch.setattr(suite, "_words_only", lambda *_: ({"words only": {"over_text_lookup": (2.0, 1.0, 3.0)}}, "so"))
    suite.run_conversation(None, None, tmp_path, 8)
    value = json.loads((tmp_path / "conversation-toy.json").read_text())
    check_result(value, "conversation-ml-100k")
    told = {one["name"]: one["value"] for one in value["targets"]}
    assert told["words_only_over_text_lookup"] == 2.0 and told["p95_items_seconds"] > 0
    rows = {row["name"]: row["metrics"] for row in value["rows"]}
    assert {"turns", "dialogues", "turns in words put aside", "first item list", "words only"} <= set(rows)
    lines = pq.read_table(tmp_path / "per_user" / "per-user-conversation-turns-toy.parquet").to_pylist()
    assert {line["dialogue"] for line in lines} == set(range(10)) and value["provenance"]["n"] == 10
    assert len([line for line in lines if line["dialogue"] < 8]) == value["protocol"]["turns"]
    values = pq.read_table(tmp_path / "per_user" / "per-user-conversation-toy.parquet").to_pylist()
    off = sum(one["value"] for one in values if one["metric"] == "off_list_titles" and one["dialogue"] < 8)
    assert told["off_list_titles"] == off > 0  # the words name Funny Tale 2 whether it is on the list or not
    run_report(tmp_path, console=Console(quiet=True))
    page = (tmp_path / "report.md").read_text()
    assert "## Conversation, toy" in page and "first item list" in page and "references" in page
