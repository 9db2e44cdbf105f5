"""Questions about items are answered from the catalogue, in a sentence, or honestly not at all."""

from __future__ import annotations

import pytest
from fakes import films
from noted import noted_films

from llmrec.data.catalog import Catalog, Item
from llmrec.dialogue.item_answers import answer_question
from llmrec.nlu.attribute_phrases import clause, statement
from llmrec.nlu.item_questions import item_question
from llmrec.nlu.parser import parse_message
from llmrec.nlu.state import Session

CATALOG = noted_films()
TOY, ALIEN, BLADE, PSYCHO = (CATALOG.find(title) for title in ("Toy Story", "Alien", "Blade Runner", "Psycho"))


@pytest.mark.parametrize(
    ("asked", "row", "said"),
    [
        ("who directed it?", ALIEN, "Alien (1979) was directed by Ridley Scott."),
        ("who's in number 2?", ALIEN, "Alien (1979) stars Sigourney Weaver and Tom Skerritt."),
        ("what is it about?", TOY, "Toy Story (1995): A toy cowboy fears that"),
        ("how long is it?", TOY, "Toy Story (1995) runs for 81 minutes."),
        ("is it scary?", ALIEN, "Alien (1979) is very frightening."),
        ("is that one violent?", TOY, "Toy Story (1995) has no violence."),
        ("is it ok for my 6 year old?", TOY, "suitable for small children and anybody older."),
        ("can my kids watch it?", ALIEN, "is for adults."),
        ("where is it set?", BLADE, "is set in Los Angeles."),
        ("is it based on a book?", BLADE, "is based on a novel."),
        ("which country is it from?", ALIEN, "comes from the USA and the UK."),
        ("is it part of a series?", ALIEN, "belongs to the Alien series."),
        ("when does it take place?", ALIEN, "is set in the far future."),
        ("when was it made?", ALIEN, "is from 1979."),
        ("what genre is it?", PSYCHO, "genre Horror, Romance and Thriller."),
        ("who directed it?", PSYCHO, "The catalogue does not give the director of Psycho (1960)."),
        ("what's the plot?", PSYCHO, "The catalogue does not give the story of Psycho (1960)."),
    ],
)
def test_a_question_is_answered_in_a_sentence(asked: str, row: int, said: str) -> None:
    answer = answer_question(CATALOG, [row], item_question(asked, CATALOG))
    assert said in answer and answer.endswith((".", "!"))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("is it on netflix?", "where it can be seen"),
        ("how much does it cost?", "what it costs"),
        ("did it win any oscars?", "which prizes it won"),
        ("what's its imdb rating?", "how others rated it"),
    ],
)
def test_what_no_catalogue_holds_is_said_plainly(asked: str, said: str) -> None:
    assert said in answer_question(CATALOG, [TOY], item_question(asked, CATALOG))


def test_a_catalogue_without_the_field_says_so() -> None:
    question = item_question("who directed it?", films())
    assert answer_question(films(), [TOY], question) == "This catalogue says nothing about director."


def test_no_question_is_no_question() -> None:
    assert not item_question("show me comedies from the nineties", CATALOG)


@pytest.mark.parametrize("row", range(len(CATALOG)))
def test_every_attribute_of_every_item_can_be_said(row: int) -> None:
    for name, value in CATALOG[row].attributes.items():
        for said in (clause(name, value), statement(name, value)):
            assert said and "{" not in said and "  " not in said


def test_a_request_for_advice_is_no_question_about_the_titles_it_names() -> None:
    said = parse_message("Based on Alien and Psycho, what do you suggest?", CATALOG, Session("s"))
    assert set(said.liked) == {ALIEN, PSYCHO} and not said.about


def test_a_common_word_is_no_surname() -> None:
    people = Catalog(
        [
            Item("1", "One", "", {"actor": ("Edna Best", "Sigourney Weaver"), "genre": ("Drama",)}),
            Item("2", "Two", "", {"actor": ("Tom Hanks",), "genre": ("Comedy",)}),
        ],
        "films",
    )
    assert parse_message("Which of these films suits me best?", people, Session("s")).filters.empty
    wanted = parse_message("with weaver please", people, Session("s")).filters
    assert wanted.any_of | wanted.all_of == {"actor": ("Sigourney Weaver",)}
