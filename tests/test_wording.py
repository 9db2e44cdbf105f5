"""English that is shown or trained on: number, articles, capitals and verbs, over many nouns and values."""

import re
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.app.web.html import cards
from llmrec.data.catalog import Catalog, Item
from llmrec.data.filters import Filters
from llmrec.dialogue import responses
from llmrec.eval.conversation import phrasings
from llmrec.eval.stability import paraphrases
from llmrec.finetune.data.context import TaskContext
from llmrec.finetune.data.tasks import TASKS
from llmrec.lm.prompts import load_template
from llmrec.lm.rendering import Text
from llmrec.nlu import wording
from llmrec.nlu.state import Profile
from llmrec.ranking.explanations import describe, reason
from llmrec.recommender import Recommendation

# Written by hand: what a dictionary says.
SINGULARS = {
    "films": "film", "movies": "movie", "stories": "story", "boxes": "box", "dishes": "dish", "series": "series",
    "books": "book", "games": "game", "board games": "board game", "people": "person", "glasses": "glass",
    "watches": "watch", "heroes": "hero", "shoes": "shoe", "houses": "house", "buses": "bus", "viruses": "virus",
    "knives": "knife", "olives": "olive", "toys": "toy", "zombies": "zombie", "recipes": "recipe", "news": "news",
    "works of art": "work of art", "music": "piece of music", "RPGs": "RPG", "RPG": "RPG", "Films": "Film",
    "anime": "anime", "comics": "comic", "quizzes": "quiz", "studies": "study", "pies": "pie", "items": "item",
    "categories": "category", "courses": "course", "children": "child", "albums": "album", "gas": "gas",
}  # fmt: skip
ARTICLES = {
    "an": "RPG FPS MMO rpg mmo hour honest heir X-rated R-rated 8-bit 80s 18th 11 1850s umbrella unusual unintended "
    "uninhabited ugly urgent action item album old open-world SUV EU F1 HD LGBT NES MMORPG AI e-book indie eerie "
    "Élan utter usher umpire",
    "a": "user one-shot once university unique uniform union European euro UFO UK US USB ukulele utopia zombie "
    "comedy year yellow NASA LEGO PG-13 T-shirt 3D 7-inch 100 1990s 12th house hero use useful universal ubiquitous "
    "unanimous war B-movie TV DVD xylophone U-boat",
}
DOMAINS = {
    "films": "watch", "movies": "watch", "tv series": "watch", "games": "play", "board games": "play",
    "books": "read", "stories": "read", "songs": "listen", "music": "listen", "items": "try", "dishes": "try",
    "hotels": "try", "albums": "listen", "boxes": "try",
}  # fmt: skip
FOREIGN = {
    "watch": r"\b(watch\w*|seen|saw)\b",
    "play": r"\bplay\w*\b",
    "read": r"\bread\w*\b",
    "listen": r"\b(listen\w*|heard?)\b",
    "try": r"\b(took|tr(?:y|ies|ied))\b",
}
VALUES = (
    "RPG", "FPS", "MMO", "hour", "user", "one-shot", "university", "X-rated", "Zombies", "Sports", "Action", "action",
    "Adventure", "Comedy", "Comedies", "Children's", "French", "Board games", "Films", "Film", "Game", "Hit songs",
    "Unusual", "Honest", "80s", "Sci-Fi", "iPhone", "Books", "RPGs",
)  # fmt: skip
FIRST_WORDS = {word.lower(): article for article, words in ARTICLES.items() for word in words.split()}
FIRST_WORDS |= {
    "zombies": "a", "sports": "a", "adventure": "an", "comedies": "a", "children's": "a", "french": "a", "board": "a",
    "hit": "a", "sci-fi": "a", "iphone": "an", "film": "a", "movie": "a", "tv": "a", "game": "a", "book": "a",
    "story": "a", "song": "a", "piece": "a", "item": "an", "dish": "a", "hotel": "a", "album": "an", "box": "a",
    "second": "a", "good": "a", "fan": "a", "friend": "a", "few": "a", "films": "a", "games": "a", "books": "a",
    "rpgs": "an",
}  # fmt: skip


@pytest.mark.parametrize(("plural", "one"), SINGULARS.items())
def test_singulars(plural, one):
    assert wording.singular(plural) == one


@pytest.mark.parametrize(("article", "word"), [(a, word) for a, words in ARTICLES.items() for word in words.split()])
def test_articles_go_by_sound(article, word):
    assert wording.article(word) == article
    assert wording.with_article(f"{word} thing") == f"{article} {word} thing"


def test_capitals_stay_where_they_mean_something():
    kept = ["RPG", "X-rated", "iPhone", "French", "3D", "PG-13", "RPGs", "T-shirt", "Plan B"[-1]]
    assert [wording.lower_in_sentence(one) for one in kept] == kept
    assert wording.lower_in_sentence("Sci-Fi") == "sci-fi" and wording.lower_in_sentence("Film-Noir") == "film-noir"
    assert (
        wording.lower_in_sentence("Children's") == "children's"
        and wording.lower_in_sentence("ADVENTURE") == "adventure"
    )
    assert (
        wording.value_in_sentence("director", "Tom Hanks")
        == wording.value_in_sentence("lead_actors", "Tom Hanks")
        == "Tom Hanks"
    )
    assert wording.value_in_sentence("genre", "Nail Polish") == "nail polish"


def test_films_of_movielens_are_described_as_before():
    genres = ["Action", "Children's", "Comedy", "Film-Noir", "Sci-Fi", "Western", "unknown"]
    for genre in genres:
        assert wording.described_item([genre.lower()], "films", 3) == f"{wording.article(genre)} {genre.lower()} film"
    assert wording.described_item(["comedy", "romance", "war"], "films", 3) == "a comedy, romance and war film"
    assert wording.requested_item(["comedy"], "films", bare=True) == "a comedy"
    assert wording.requested_item(["comedy", "romance"], "films") == "a comedy romance film"


@pytest.mark.parametrize(
    ("values", "domain", "words"),
    [
        (["RPG"], "games", "an RPG game"),
        (["action", "Action", "adventure"], "games", "an action and adventure game"),
        (["Board games", "strategy"], "games", "a Board and strategy game"),
        (["game"], "games", "a game"),
        (["Comedies"], "films", "a Comedy film"),
        ([], "items", "an item"),
        (["jazz"], "music", "a jazz piece of music"),
    ],
)
def test_values_stand_once_before_the_noun(values, domain, words):
    assert wording.described_item(values, domain, 3) == words


def test_only_what_a_work_is_called_by_goes_without_the_noun():
    assert wording.requested_item(["RPG"], "games", bare=True) == "an RPG"
    for value in ("zombies", "action", "X-rated", "children's"):
        assert wording.requested_item([value], "games", bare=True).endswith(f" {value} game")


@given(st.text(max_size=30))
def test_no_word_makes_it_fail(words):
    assert wording.article(words) in {"a", "an"}
    assert isinstance(wording.singular(words), str) and isinstance(wording.lower_in_sentence(words), str)
    assert wording.domain_verbs(words).do and wording.described_item([words], words, 3)


def world(domain: str) -> TaskContext:
    """A catalogue with every awkward value, two of them an item, one item with all."""
    rng = np.random.default_rng(0)
    items = []
    for row in range(30):
        own = VALUES if row == 29 else tuple(rng.permutation(VALUES)[:2].tolist())
        items.append(Item(str(row), f"Tale{row}", "", {"genre": own, "mood": ("ACTION",), "year": 1980 + row}))
    histories = [rng.permutation(30)[:12] for _ in range(8)]
    vectors = [np.zeros((12, 4), np.float32) for _ in histories]
    return TaskContext(Catalog(items, domain), histories, vectors, 10, 0.5, np.zeros((1, 4), np.int64))


def traffic(made: TaskContext) -> list[str]:
    said = []
    for name, task in TASKS.items():
        if name == "replay":
            continue
        for example in islice(task(made, np.random.default_rng(1)), 60):
            said += ["".join(part.text for part in one.parts if isinstance(part, Text)) for one in example]
    return said


def shown(made: TaskContext) -> list[str]:
    """What the program writes itself, about one item and about several."""
    catalog, profile = made.catalog, Profile(shown=(Recommendation(0, 1.0, "llm", ""),), asked=True)
    said = [responses.clarifying_question(catalog, main) for main in ((), ("comedy", "war"))]
    said += [
        responses.smalltalk_reply("smalltalk", topic, catalog, ()) for topic in ("greeting", "about", "help", "reset")
    ]
    said += [responses.item_count(catalog, count) for count in (1, 2)]
    for count in (1, 3):
        items = [Recommendation(row, 1.0, "llm", "") for row in range(count)]
        said += responses.shortfall_notices(catalog, profile, items, (), 10)
    said += [responses.explain_items(catalog, profile, ()), responses.describe_items(catalog, profile, (0, 29))]
    said += [describe(catalog, row) for row in range(30)]
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    filters = Filters(all_of={"genre": VALUES[:6]}, ranges={"year": (1980, 2010)})
    said += [reason(catalog, row, tuple(range(5)), vectors, "action french", filters) for row in range(30)]
    said.append(cards.item_card(catalog, Recommendation(0, 1.0, "llm", ""), "year"))
    return said


@pytest.mark.parametrize(("domain", "verb"), DOMAINS.items())
def test_whatever_the_catalogue_holds_the_english_is_right(domain, verb):
    made = world(domain)
    said = [*traffic(made), *shown(made)]
    text = "\n".join(re.sub(r"<[^>]+>", " ", one) for one in said)
    wrong = []
    for article, word in re.findall(r"\b([Aa]n?) ([\w'-]+)", text):
        expected = FIRST_WORDS.get(word.lower())
        if expected and expected != article.lower():
            wrong.append(f"{article} {word}")
    assert not wrong, set(wrong)
    asked = {word.lower() for _, word in re.findall(r"\b([Aa]n?) ([\w'-]+)", text)}
    assert len(asked & {*FIRST_WORDS}) > 15, "the check has nothing to check"
    assert not (twice := re.findall(r"\b(\w{3,})(?:,| and|) \1\b", text, re.IGNORECASE)), set(twice)
    assert not re.findall(r"\w+ and \w+ was\b|(?:^|[.!?] )My favourites are [^,.]+\.(?<! and )$", text)
    for kind, form in FOREIGN.items():
        if kind != verb and not (kind == "try" and verb != "try"):
            assert not (others := re.findall(form, text)), (kind, set(others))
    assert re.search(FOREIGN[verb], text), f"nobody {verb}s {domain}"


@pytest.mark.parametrize("domain", DOMAINS)
def test_number_agrees(domain):
    text = traffic(world(domain))
    for said in text:
        names = re.match(r"((?:tale\d+(?: \(\d+\))?(?:, | and |))+) (was|were) great", said, re.IGNORECASE)
        if names:
            assert (names[2] == "were") == (" and " in names[1]), said
        favourites = re.match(r"My favourites? (is|are) (.+)\.$", said)
        if favourites:
            assert (favourites[1] == "are") == (" and " in favourites[2]), said
    assert any(" were great" in said for said in text) and any(" was great" in said for said in text)


def test_a_reason_has_three_tags_at_most_and_none_twice():
    made = world("games")
    vectors = np.ones((30, 4), np.float32)
    filters = Filters(any_of={"genre": VALUES})
    for row in range(30):
        why = reason(made.catalog, row, (29, 3), vectors, " ".join(VALUES), filters)
        told = [one for one in re.split(r", both |, as you asked|; goes with \w+ \(\d+\)|, | and ", why) if one]
        assert len(told) <= 3 and len({one.casefold() for one in told}) == len(told), why


@pytest.mark.parametrize(("domain", "words"), [
    ("films", "Seen it"), ("games", "Played it"), ("books", "Read it"), ("songs", "Heard it"), ("soaps", "Tried it"),
])  # fmt: skip
def test_the_button_says_what_one_has_done(domain, words):
    catalog = Catalog([Item("1", "One", "", {})], domain)
    assert words in cards.item_card(catalog, Recommendation(0, 1.0, "llm", ""), None)


def test_phrases_with_verbs_of_films_are_of_films_only():
    phrases = [*load_template("talk").assistant, *load_template("next_item").user]
    assert sum(not wording.fits_domain(one, "films") for one in phrases) == 1  # "These are the films I took"
    assert not any("seen" in one for one in phrases if wording.fits_domain(one, "books"))
    for act in phrasings.WORDINGS:
        said = phrasings.phrasings_of(act)
        assert all(wording.fits_domain(one, "films") for one in said), "the films of the suite lose a wording"
        assert all(any(wording.fits_domain(one, domain) for one in said) for domain in DOMAINS), act


def test_requests_of_the_suites_take_the_right_article_and_verb():
    nouns = paraphrases.Nouns.of(Catalog([Item("1", "One", "", {})], "albums"))
    asked = [nouns.fill(one, wish="jazz", titles="One") for some in paraphrases.PHRASINGS.values() for one in some]
    assert "Recommend me an album." in asked and "What should I listen to next?" in asked
    assert nouns.of_value("RPG") == "RPG albums" and nouns.of_value("Hit albums") == "Hit albums".replace("H", "h")
