"""What the language model says is passed on only where the catalogue backs it."""

import pytest
from conftest import make_catalog

from llmrec.data.catalog import Catalog, Item
from llmrec.ranking.explanations import describe
from llmrec.ranking.grounding import GroundingChecker
from llmrec.recommender import grounded_sentences

CHECKER = GroundingChecker(make_catalog())
SHOWN = [0, 2, 1]  # Funny Tale 0 (1990) and 2 (1992), comedies; Scary Tale 1 (1981), horror


@pytest.mark.parametrize(
    "sentence",
    [
        "I would start with Funny Tale 0 (1990), a comedy from 1990.",
        "Funny Tale 0 (1990) and Funny Tale 2 (1992) are comedy films.",
        "Funny Tale 0 fits best, being a comedy from 1990; after that I would take Scary Tale 1 (1981).",
        "There is comedy and horror in this list.",
    ],
)
def test_what_is_true_is_said(sentence: str) -> None:
    assert CHECKER.grounded(sentence, SHOWN)


@pytest.mark.parametrize(
    "sentence",
    [
        "Funny Tale 4 (1994) fits best.",  # not on display
        "Funny Tale 0 (1991) fits best.",
        "Funny Tale 0 is a horror film.",
        "Funny Tale 0 (1990) and Funny Tale 2 (1992) are comedy films from 1990.",  # true of one of the two
        "Funny Tale 0 and Scary Tale 1 are comedy films.",
        "I do not have Funny Tale 0 (1990), but I can look for something like it.",
        "I can look for films from 1990.",
        "I'm sorry, I can't help with that.",
    ],
)
def test_what_is_not_is_dropped(sentence: str) -> None:
    assert not CHECKER.grounded(sentence, SHOWN)


# Marks inside titles, titles of one word, titles that contain another one: what catalogues of films are full of.
AWKWARD = [
    ("Mr. Holland's Opus", 1995, ("Drama",)),
    ("Hot Shots! Part Deux", 1993, ("Action", "Comedy")),
    ("Once Upon a Time... When We Were Colored", 1995, ("Drama",)),
    ("E.T. the Extra-Terrestrial", 1982, ("Children's", "Sci-Fi")),
    ("Shall We Dance?", 1996, ("Comedy",)),
    ("To Wong Foo, Thanks for Everything! Julie Newmar", 1995, ("Comedy",)),
    ("Robert A. Heinlein's The Puppet Masters", 1994, ("Horror",)),
    ("Airplane!", 1980, ("Comedy",)),
    ("Maybe, Maybe Not (Der Bewegte Mann)", 1994, ("Comedy",)),
    ("Alien", 1979, ("Horror", "Sci-Fi")),
    ("Alien: Resurrection", 1997, ("Action", "Sci-Fi")),
    ("Steal Big, Steal Little", 1995, ("Comedy",)),
    ("What's Love Got to Do with It", 1993, ("Drama",)),
]
MARKED = Catalog(
    [Item(str(n), title, "", {"year": year, "genre": tags}) for n, (title, year, tags) in enumerate(AWKWARD)], "films"
)
MARKS = GroundingChecker(MARKED)
ROWS = range(len(MARKED))


@pytest.mark.parametrize("row", ROWS)
def test_any_title_of_the_list_may_be_named(row: int) -> None:
    sentence = f"I would start with {MARKED.label(row)}, {describe(MARKED, row)}."
    assert MARKS.grounded(sentence, [row])
    assert "".join(grounded_sentences(iter(sentence), MARKS, [row])) == sentence  # letter by letter, as it is written


@pytest.mark.parametrize("row", ROWS)
def test_each_of_two_titles_keeps_its_own_claims(row: int) -> None:
    other = (row + 3) % len(MARKED)
    one, two = MARKED.label(row), MARKED.label(other)
    own, theirs = describe(MARKED, row), describe(MARKED, other)
    for sentence in (
        f"You may enjoy {one}, {own}, or {two}, {theirs}.",
        f"My first pick is {one}: {own}. {two} is a good second choice.",
        f"{one} is {own}, and {two} is {theirs}.",
    ):
        assert "".join(grounded_sentences(iter([sentence]), MARKS, [row, other])) == sentence
    if own != theirs:
        assert not MARKS.grounded(f"You may enjoy {one}, {theirs}, or {two}, {own}.", [row, other])
        assert not MARKS.grounded(f"{one} and {two} are films like {own}.", [row, other])


@pytest.mark.parametrize("row", ROWS)
def test_no_title_off_the_list_is_named(row: int) -> None:
    shown = [other for other in ROWS if other != row and MARKED[row].title not in MARKED[other].title]
    for sentence in (
        f"I would start with {MARKED.label(row)}.",
        f"You may enjoy {MARKED[row].title} tonight.",
        f'You may enjoy "{MARKED[row].title}" tonight.',
        f"You may enjoy {MARKED.label(shown[0])}, {describe(MARKED, shown[0])}, or {MARKED[row].title}.",
    ):
        assert not MARKS.grounded(sentence, shown), sentence


@pytest.mark.parametrize(
    "sentence",
    [
        "Alien, like Mr. Holland's Opus, is a drama film.",  # said of Alien
        "Mr. Holland's Opus, unlike Alien, is a horror film.",
        "For a horror film, try Alien or Airplane!",
        "Alien and Airplane! are horror films.",
        "Mr. Holland's Opus (1995) and not Alien is a horror film.",
    ],
)
def test_a_claim_about_one_title_does_not_hide_behind_another(sentence: str) -> None:
    assert not MARKS.grounded(sentence, [0, 7, 9])
