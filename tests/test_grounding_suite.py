"""Generated demands, the suite's checks of items and texts, the base model's lists, and the suite on a toy world."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_catalog, make_model
from fakes import films
from test_stability import N, make_recommender

from llmrec.data.catalog import Catalog, Item
from llmrec.data.interactions import Interactions, leave_one_out
from llmrec.eval.chat_client import Reply
from llmrec.eval.grounding import base_model, measures, requests, suite
from llmrec.eval.grounding.requests import Constraint, Demand
from llmrec.eval.grounding.text import TextCheck
from llmrec.eval.ranked_lists import target_users
from llmrec.eval.result_file import check_result
from llmrec.nlu.state import Profile
from llmrec.recommender import Recommendation, Recommender

FILMS = films()
ROW = {item.title: row for row, item in enumerate(FILMS.items)}
COMEDY, NO_WAR = Constraint("tag", "genre", "Comedy"), Constraint("not", "genre", "War")
NINETIES = Constraint("year", "year", low=1990, high=1999)


def a_split(catalog):
    rng = np.random.default_rng(0)
    users = [f"u{user}" for user in range(12) for _ in range(6)]
    rows = np.concatenate([rng.choice(len(catalog), 6, replace=False) for _ in range(12)]).tolist()
    return leave_one_out(Interactions.build(users, rows, list(range(len(rows))), [1.0] * len(rows)))


SPLIT = a_split(FILMS)


def demands(level, seed=0, catalog=FILMS, split=SPLIT):
    return requests.draw_demands(catalog, split, target_users(split, "test"), level, seed)


def reply(rows=(), facts="", words="", reasons=None):
    reasons = reasons or [""] * len(rows)
    items = tuple(Recommendation(row, 0.0, "", why) for row, why in zip(rows, reasons, strict=True))
    return Reply(items, facts, words, (), Profile())


def test_a_constraint_is_checked_on_the_catalogues_fields():
    toy, star_wars = FILMS[ROW["Toy Story"]], FILMS[ROW["Star Wars"]]
    assert COMEDY.holds(toy) and not COMEDY.holds(star_wars)
    assert NO_WAR.holds(toy) and not NO_WAR.holds(star_wars)
    assert NINETIES.holds(toy) and not NINETIES.holds(star_wars)
    bare = Item("x", "X", "", {})
    assert NO_WAR.holds(bare) and not COMEDY.holds(bare) and not NINETIES.holds(bare)
    assert Constraint("tag", "brand", "Acme").holds(Item("y", "Y", "", {"brand": "Acme"}))


@pytest.mark.parametrize("level", requests.LEVELS)
def test_every_demand_can_be_met_and_says_what_it_demands(level):
    found = demands(level)
    assert found == demands(level) != demands(level, seed=1)
    assert len(found) >= 10
    for one in found:
        fitting = [r for r, i in enumerate(FILMS.items) if one.satisfied(i) and r not in one.history and r != one.like]
        assert len(fitting) == one.fits > 0
        assert len(one.constraints) == level
        for constraint in one.constraints:
            if constraint.kind == "year":
                assert constraint.words in one.text
                assert np.mean([constraint.holds(item) for item in FILMS.items]) <= 0.8
            elif constraint.kind == "not":
                assert constraint.value.casefold() in one.text
    assert any(one.like >= 0 and FILMS[one.like].title in one.text for one in found)
    assert len({one.text for one in found}) > len(found) / 2


def test_words_of_a_range_say_whether_the_ends_count():
    ranges = {
        c.words: c for level in (1, 2, 3) for seed in range(8) for d in demands(level, seed) for c in d.constraints
    }
    ranges.pop("", None)
    assert len(ranges) > 20
    for words, one in ranges.items():
        years = [int(word) for word in words.split() if word.isdigit()]
        if words.startswith(("made before", "older")):
            assert (one.low, one.high) == (-np.inf, years[0] - 1)
        elif words.startswith(("released after", "newer")):
            assert (one.low, one.high) == (years[0] + 1, np.inf)
        elif words.endswith("or later"):
            assert (one.low, one.high) == (years[0], np.inf)
        elif len(years) == 2:
            assert (one.low, one.high) == tuple(years)
        else:
            assert one.high - one.low == 9 and one.low % 10 == 0


def test_a_catalogue_without_years_or_tags_gets_the_demands_it_can_meet():
    tools = Catalog([Item(str(n), f"Tool {n}", "", {"kind": ("Saw", "Axe")[n % 2 :][:1]}) for n in range(30)], "tools")
    split = a_split(tools)
    assert {c.kind for d in demands(1, 0, tools, split) for c in d.constraints} == {"tag", "not"}
    assert demands(3, 0, tools, split) == []  # two values: no shape of three
    bare = Catalog([Item(str(n), f"Thing {n}", "", {}) for n in range(30)])
    assert demands(1, 0, bare, a_split(bare)) == []


def test_titles_are_found_as_a_reader_would():
    check = TextCheck(FILMS)

    def rows(text):
        return [sorted(one.rows) for one in check.mentions(text)]

    assert rows("I suggest Toy Story (1995), and then Blade Runner.") == [[ROW["Toy Story"]], [ROW["Blade Runner"]]]
    assert rows("Have a look at Heat. It is tense.") == [[ROW["Heat"]]]
    assert rows("Turn up the heat. Heat is what you need, and a toy story.") == []
    assert rows('Watch "Heat" or Psycho (1960).') == [[ROW["Heat"]], [ROW["Psycho"]]]
    assert rows("Terminator 2: Judgment Day beats The Terminator") == [
        [ROW["Terminator 2: Judgment Day"]], [ROW["The Terminator"]],
    ]  # fmt: skip
    assert rows("Sabrina (1954) is old.")[0] == [r for r, i in enumerate(FILMS.items) if i.title == "Sabrina"]
    assert rows("Four Weddings and a Funeral; Singin' in the Rain; Schindler\u2019s List") == [
        [ROW["Four Weddings and a Funeral"]], [ROW["Singin' in the Rain"]], [ROW["Schindler's List"]],
    ]  # fmt: skip
    assert rows('Try The Phantom Menace (1999) and "Rogue One".') == [[], []]
    assert rows("It is a horror film from 1980.") == []


def test_off_list_and_unknown_titles_are_told_apart():
    check = TextCheck(FILMS)
    shown = [ROW["Toy Story"], ROW["Aladdin"]]
    found = check.findings("Toy Story (1995) is fun, Blade Runner too, and so is Sharknado (2013).", shown)
    assert found.off_list == ("Blade Runner", "Sharknado") and found.off_catalogue == ("Sharknado",)
    assert check.findings("Blade Runner is known to you.", shown, [ROW["Blade Runner"]]).off_list == ()
    assert check.findings("Both are a delight.", shown).titles == 0


def test_claims_are_held_against_the_item_they_are_about():
    check = TextCheck(FILMS)
    shown = [ROW["Toy Story"], ROW["The Shining"], ROW["Star Wars"]]

    def wrong(text):
        return check.findings(text, shown).contradicted

    assert wrong("Toy Story (1995) is an animation, children's and comedy film from 1995.") == ()
    assert wrong("The Shining is a comedy from 1980.") == ("comedy of The Shining (1980)",)
    assert wrong("The Shining (1981) is scary.") == ("1981 of The Shining (1980)",)
    assert wrong("Toy Story is a comedy. It is no horror film.") == ()
    assert wrong("The Shining is not a horror film.") == ("horror of The Shining (1980)",)
    assert wrong("A fine comedy is Toy Story, while The Shining is horror.") == ()
    assert wrong("There is a western among them.") != () and wrong("There are comedies among them.") == ()
    assert wrong("Star Wars is a war film, and a sci-fi adventure.") == ()
    assert check.findings("Toy Story is a comedy from 1995.", shown).claims == 2


def test_reasons_must_hold_for_both_items():
    known = (ROW["Goodfellas"],)
    demand = Demand(0, known, "", (COMEDY,))
    check = TextCheck(FILMS)

    def wrong(reason):
        return measures.wrong_reasons(check, demand, reply([ROW["Fargo"]], reasons=[reason]))

    assert wrong("Crime, year 1996, as you asked; goes with Goodfellas (1990), both Crime, Drama") == []
    assert wrong("Comedy, as you asked") == ["Comedy of Fargo (1996)"]
    assert wrong("goes with Goodfellas (1990), both Thriller") == ["Thriller of Goodfellas (1990)"]
    assert wrong("goes with Psycho (1960)") == ["Psycho"]


def test_a_list_is_measured_against_its_demand():
    catalog = FILMS
    demand = Demand(0, (ROW["Aladdin"],), "", (COMEDY, NINETIES), ROW["Sense and Sensibility"], fits=6)
    good, bad = ROW["Toy Story"], ROW["Alien"]
    values = measures.list_values(catalog, demand, [good, bad])
    assert values["satisfied"] == 0.5 and values["all_satisfied"] == 0.0 and values["exists"] == 1.0
    assert values["as_many_as_fit"] == pytest.approx(2 / 6) and values["repeated_or_known"] == 0.0
    assert values["shares_a_value_with_the_named"] == 0.0  # drama and romance, which neither is
    assert measures.list_values(catalog, demand, [good, ROW["Aladdin"]])["repeated_or_known"] == 1.0
    assert measures.list_values(catalog, demand, [len(catalog)])["exists"] == 0.0
    empty = measures.list_values(catalog, demand, [])
    assert empty["satisfied"] == empty["answered"] == 0.0 and "exists" not in empty


def test_words_are_measured_when_there_are_some():
    check, demand = TextCheck(FILMS), Demand(0, (ROW["Aladdin"],), "", (COMEDY,))
    silent = measures.text_values(check, demand, reply([ROW["Toy Story"]], "Here is 1 film, close to Aladdin."))
    assert silent == {"off_list_titles_in_the_first_sentence": 0.0, "wrong_claims_in_reasons": 0.0}
    spoken = reply([ROW["Toy Story"]], "Here, unlike Psycho (1960).", "Toy Story is a war film, as is Blade Runner.")
    found = measures.text_values(check, demand, spoken)
    assert found["off_list_titles_in_the_first_sentence"] == 1.0
    assert found["titles_in_words"] == 2 and found["off_list_titles"] == 1 and found["off_catalogue_titles"] == 0
    assert found["claims_in_words"] == found["contradicted_claims"] == 1


def test_the_base_models_titles_are_read_and_looked_up():
    lines = ['1. "The Godfather" (1972)', "2) **Toy Story** - by Pixar", "- Blade Runer", "4. Sharknado (2013)"]
    text = "\n".join(["Sure!", *lines, "5. Toy Story"])
    titles = base_model.parse_title_list(text)
    assert titles == ("The Godfather (1972)", "Toy Story", "Blade Runer", "Sharknado (2013)")
    rows = base_model.link_titles(FILMS, titles).rows
    assert rows == (ROW["The Godfather"], ROW["Toy Story"], ROW["Blade Runner"], -1)
    assert base_model.link_titles(FILMS, ("Godfather", "Heat (1950)", "Sabrina (1995)")).rows == (
        ROW["The Godfather"], -1, max(r for r, i in enumerate(FILMS.items) if i.title == "Sabrina"),
    )  # fmt: skip
    assert base_model.parse_title_list("I cannot help with that.") == ()


def test_what_does_not_exist_satisfies_nothing():
    demand = Demand(7, (ROW["Aladdin"],), "", (COMEDY,))
    listed = base_model.LinkedTitles(("Toy Story", "Aladdin", "X", "Y"), (ROW["Toy Story"], ROW["Aladdin"], -1, -1))
    values = {one.metric: one.value for one in measures.base_values(FILMS, 1, demand, listed)}
    assert values["satisfied"] == 0.25 and values["exists"] == 0.5 and values["known"] == 0.25
    nothing = measures.base_values(FILMS, 1, demand, base_model.LinkedTitles((), ()))
    assert {one.metric: one.value for one in nothing}["satisfied"] == 0.0


def test_targets_are_means_over_requests_and_a_count():
    def value(level, metric, number, user=0):
        return suite.GroundingValue("chat", level, user, metric, number)

    values = [
        value(1, "satisfied", 1.0), value(1, "satisfied", 0.5, 1), value(2, "satisfied", 0.0), value(1, "exists", 1.0),
        value(1, "off_list_titles", 2.0), value(2, "off_list_titles", 1.0),
    ]  # fmt: skip
    told = {one.name: one.value for one in suite.targets(values)}
    assert told["constraints1"] == 0.75 and told["constraints2"] == 0.0 and told["constraints3"] is None
    assert told["existing_share"] == 1.0 and told["off_list_titles"] == 3.0
    names = [row.name for row in suite.estimates(values, 0)]
    assert names == ["chat", "chat, 1", "chat, 2"]


def test_the_suite_writes_a_result_in_the_form(monkeypatch, tmp_path):
    loaded = make_recommender()
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda *_: loaded))
    monkeypatch.setattr(suite, "open_base_model", lambda *_: make_model(N))
    monkeypatch.setattr(base_model, "TOKENS", 4)
    said = "Funny Tale 2 is a comedy film."
    monkeypatch.setattr(loaded, "talk", lambda *_, **__: iter([said]), raising=False)
    monkeypatch.setattr(suite, "open_evaluated_model", lambda *_: (loaded, leave_one_out(loaded.interactions)))
    suite.run_grounding(None, None, tmp_path, 6)
    value = json.loads((tmp_path / "grounding-toy.json").read_text())
    check_result(value, "grounding-ml-100k")
    rows = {row["name"]: row["metrics"] for row in value["rows"]}
    assert {"chat", "chat, 1", "base", "list without words", "random unseen item", "semantic IDs"} <= set(rows)
    assert rows["semantic IDs"]["duplicates"]["mean"] == 0.0
    assert rows["chat"]["exists"]["mean"] == 1.0 and value["protocol"]["replies_in_words"] > 0
    told = {one["name"]: one["value"] for one in value["targets"]}
    assert told["existing_share"] == 1.0 and told["constraints1"] is not None
    lines = pq.read_table(tmp_path / "per_user" / "per-user-grounding-replies-toy.parquet").to_pylist()
    off = sum("off list" in one["wrong"] for one in lines)
    assert told["off_list_titles"] == off
    for one in lines:
        assert ("breaks" in one["wrong"]) <= (one["system"] == "chat")


def test_the_toy_catalogue_gives_demands():
    split = leave_one_out(make_recommender().interactions)
    found = requests.draw_demands(make_catalog(N), split, target_users(split, "test", 6, 0), 1, 0)
    assert found and all(one.fits > 0 for one in found)


@pytest.mark.parametrize(
    "title",
    ["Hot Shots! Part Deux", "Once Upon a Time... When We Were Colored", "Shall We Dance? Again", "A Night. The Day"],
)
def test_a_mark_inside_a_title_does_not_cut_it_in_two(title):
    catalog = Catalog([*FILMS.items, Item("marked", title, "", {"year": 1993})], "films")
    check, row = TextCheck(catalog), len(FILMS)
    told = f"goes with {title} (1993), both Comedy"
    assert check.findings(told, [0], [row]).off_list == ()
    assert check.findings(told, [0]).off_list == (title,)
    assert check.findings("I like the Alien. Heat is on.", [ROW["Alien"], ROW["Heat"]]).off_list == ()
