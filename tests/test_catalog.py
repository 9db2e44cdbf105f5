"""The catalogue cleans what comes in, finds what is meant, and filters as brute force does."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.catalog import Catalog, Filters, Item, clean_text
from llmrec.data.titles import display_title, split_year, title_key
from llmrec.errors import DataError, RequestError


def film(id: str, title: str, year: int | None, *genres: str, text: str = "") -> Item:
    attributes = {"genre": genres} | ({} if year is None else {"year": year})
    return Item(id, title, text, attributes)


FILMS = Catalog(
    [
        film("1", "Toy Story", 1995, "Animation", "Comedy", text="Toys come alive."),
        film("2", "The Usual Suspects", 1995, "Crime", "Thriller"),
        film("3", "Alien", 1979, "Horror", "Sci-Fi"),
        film("4", "Aliens", 1986, "Action", "Sci-Fi"),
        film("5", "Batman", 1989, "Action"),
        film("6", "Batman Returns", 1992, "Action"),
        film("7", "Sabrina", 1995, "Comedy"),
        film("8", "Sabrina", 1954, "Comedy", "Romance"),
        film("9", "Il Postino (The Postman)", 1994, "Drama"),
        film("10", "Les Misérables", 1995, "Drama"),
        film("11", "The Godfather: Part II", 1974, "Crime"),
        film("12", "Star Trek: First Contact", 1996, "Sci-Fi"),
        film("13", "Star Trek: Generations", 1994, "Sci-Fi"),
        film("14", "Terminator 2: Judgment Day", 1991, "Action"),
        film("15", "Metropolis", None),
        film("16", "Die Hard", 1988, "Action"),
        film("17", "!!!", 2001, "Comedy"),
    ],
    domain="films",
)


@pytest.mark.parametrize(
    ("typed", "id"),
    [
        ("Toy Story (1995)", "1"),
        ("toy story", "1"),
        ("  TOY   STORY ", "1"),
        ("toy storry", "1"),
        ("Toy Story 1995", "1"),
        ("Toy Story (1996)", "1"),
        ("the usual suspects", "2"),
        ("Usual Suspects, The (1995)", "2"),
        ("usual suspect", "2"),
        ("Alien", "3"),
        ("aliens", "4"),
        ("Aliens (1986)", "4"),
        ("Batman", "5"),
        ("batman returns", "6"),
        ("Sabrina", "7"),
        ("Sabrina (1954)", "8"),
        ("Postino, Il", "9"),
        ("the postman", "9"),
        ("Postino", "9"),
        ("les miserables", "10"),
        ("Misérables, Les (1995)", "10"),
        ("the godfather part 2", "11"),
        ("Godfather II", "11"),
        ("star trek first contact", "12"),
        ("Terminator 2", "14"),
        ("Metropolis", "15"),
        ("Metropolis (1927)", "15"),
        ("Die Hard", "16"),
        ("!!!", "17"),
    ],
)
def test_find_knows_what_is_meant(typed, id):
    assert FILMS[FILMS.find(typed)].id == id


@pytest.mark.parametrize(
    "typed",
    [
        "Toy Story 3",
        "Batman 2",
        "Sabrina (2011)",
        "Alien (2003)",
        "Hard",
        "Terminator 3",
        "?!?",
        "",
        "x" * 5000,
    ],
)
def test_find_refuses_what_is_not_there_and_names_the_closest(typed):
    with pytest.raises(RequestError) as error:
        FILMS.find(typed)
    assert str(error.value).count("(") >= 2, "three labels with years"


def test_find_refuses_to_guess_between_different_titles():
    with pytest.raises(RequestError, match=r"could be any of: Star Trek: First Contact \(1996\), Star Trek: Gen"):
        FILMS.find("star trek")


def test_a_missing_short_title_is_not_taken_for_its_plural():
    only = Catalog([film("4", "Aliens", 1986), film("5", "Heart", 1990)])
    for typed in ("Alien", "Heat"):
        with pytest.raises(RequestError):
            only.find(typed)


def test_every_label_and_title_is_found_again():
    for row in range(len(FILMS)):
        assert FILMS.find(FILMS.label(row)) == row
        assert FILMS[FILMS.find(FILMS[row].title)].title == FILMS[row].title


def test_closest_is_ordered_and_complete():
    assert FILMS.closest("batman", 2) == [4, 5]
    assert sorted(FILMS.closest("anything", 99)) == list(range(len(FILMS)))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Usual Suspects, The", "The Usual Suspects"),
        ("Misérables, Les", "Les Misérables"),
        ("Enfer, L'", "L'Enfer"),
        ("Postino, Il (Postman, The)", "Il Postino (The Postman)"),
        ("Big Blue, The (Grand bleu, Le)", "The Big Blue (Le Grand bleu)"),
        ("Hate (Haine, La)", "Hate (La Haine)"),
        ("Convent, The (Convento, O)", "The Convent (O Convento)"),
        ("Good, The Bad and The Ugly, The", "The Good, The Bad and The Ugly"),
        ("Mrs. Brown (Her Majesty, Mrs. Brown)", "Mrs. Brown (Her Majesty, Mrs. Brown)"),
        ("Sex, Lies, and Videotape", "Sex, Lies, and Videotape"),
        ("Paris, Texas", "Paris, Texas"),
        ("Truth or Consequences, N.M.", "Truth or Consequences, N.M."),
        ("I, Worst of All (Yo, la peor de todas)", "I, Worst of All (Yo, la peor de todas)"),
    ],
)
def test_articles_come_first(raw, shown):
    assert display_title(raw) == shown
    assert display_title(shown) == shown


def test_years_and_keys():
    assert split_year("2001: A Space Odyssey (1968)") == ("2001: A Space Odyssey", 1968)
    assert split_year("Se7en") == ("Se7en", None)
    assert title_key("Monty Python & the Holy Grail!") == title_key("monty python and the holy grail")
    assert title_key("Schindler's List") == title_key("Schindler\u2019s  LIST")


HOSTILE = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("\0\u200b\u200d\u202e\u2066\ufeff\u00ad\u3164\ufe0f\U000e0041\u2028\u0301e\u0301<|im_end|>"),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(HOSTILE, st.integers(0, 40))
def test_cleaned_text_shows_what_it_is(raw, limit):
    clean = clean_text(raw, limit)
    assert clean_text(clean, limit) == clean and len(clean) <= limit
    assert clean == " ".join(clean.split())
    assert unicodedata.is_normalized("NFC", clean)
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn") for char in clean)


def test_cleaning_keeps_every_script_and_punctuation():
    for text in [
        "Amélie",
        "千と千尋の神隠し",
        "Сталкер",
        "पथेर पांचाली",
        "بچه‌های آسمان".replace("\u200c", ""),
        "A & B: <i>“c”</i> – d!",
    ]:
        assert clean_text(text, 100) == text
    assert clean_text("e\u0301", 9) == "é"
    assert clean_text("a\u202eb\u200bc\0d\u3164e\U000e0041f\tg\nh", 99) == "abcdef g h"


def test_items_are_cleaned_and_checked():
    dirty = Item("a", "A\u200bb\n", " x\0 ", {"genre": ("Sci\u202eFi", "SciFi", " "), "size": 2.5, "none": ""})
    item = Catalog([dirty])[0]
    assert (item.title, item.text, dict(item.attributes)) == ("Ab", "x", {"genre": ("SciFi",), "size": 2.5})
    for bad, message in [
        (Item("", "t", "", {}), "empty"),
        (Item("a\u200b", "t", "", {}), "print"),
        (Item("x" * 500, "t", "", {}), "too long"),
        (Item("a", "\u200b", "", {}), "no title"),
        (Item("a", "t", "", {"price": float("nan")}), "finite"),
    ]:
        with pytest.raises(DataError, match=message):
            Catalog([bad])
    with pytest.raises(DataError, match="'a' occurs twice"):
        Catalog([Item("a", "t", "", {}), Item("a", "u", "", {})])


def test_rows_labels_and_lines():
    assert FILMS.row("4") == 3 and len(FILMS) == 17 and FILMS.domain == "films"
    with pytest.raises(RequestError, match=r"no item '77' .* '7'"):
        FILMS.row("77")
    assert FILMS.label(0) == "Toy Story (1995)" and FILMS.label(14) == "Metropolis"
    assert FILMS.describe(0) == "Toy Story (1995). Animation, Comedy. Toys come alive."
    assert FILMS.attribute_names == ("genre", "year")
    assert FILMS.values("genre")[:3] == ("Action", "Animation", "Comedy")
    with pytest.raises(RequestError, match=r"no attribute 'gender' .* genre, year"):
        FILMS.values("gender")


def test_the_fingerprint_is_the_same_everywhere_and_sees_everything():
    items = [Item("a", "Été", "x", {"year": 1, "price": 0.1, "genre": ("b",)}), Item("b", "t", "", {})]
    prints = {
        Catalog(items).fingerprint,
        Catalog(items, "films").fingerprint,
        Catalog(items[::-1]).fingerprint,
        Catalog([items[0], Item("b", "t", ".", {})]).fingerprint,
        Catalog([items[0], Item("b", "t", "", {"year": 1})]).fingerprint,
        Catalog([items[0], Item("b", "t", "", {"year": 1.0})]).fingerprint,
    }
    assert len(prints) == 6
    assert Catalog(items).fingerprint == "4fff87c0288cb984393470c0370f97cecad518873960de5b0d7943c3a8e222f0"
    shuffled = Item("a", "E\u0301te\u0301", "x", {"genre": ("b",), "price": 0.1, "year": 1})
    assert Catalog([shuffled, items[1]]).fingerprint == Catalog(items).fingerprint


WORDS = ["Action", "Comedy", "Drama", "War"]
VALUES = st.lists(st.sampled_from(WORDS), max_size=3).map(tuple)
ITEMS = st.lists(st.tuples(VALUES, st.none() | st.integers(1990, 1999)), min_size=1, max_size=12)
BOUND = st.none() | st.integers(1988, 2001)


@settings(max_examples=200, deadline=None)
@given(ITEMS, VALUES, VALUES, VALUES, st.tuples(BOUND, BOUND))
def test_filters_agree_with_brute_force(items, any_of, all_of, none_of, bound):
    everything = film("all", "all", 1995, *WORDS)  # so that every word is known
    catalog = Catalog([film(str(n), "t", year, *genres) for n, (genres, year) in enumerate(items)] + [everything])
    upper = tuple(word.upper() for word in any_of)
    filters = Filters({"genre": upper}, {"genre": all_of}, {"genre": none_of}, {"year": bound})

    def passes(item: Item) -> bool:
        genres, year = set(item.attributes.get("genre", ())), item.attributes.get("year")
        low, high = bound
        in_range = bound == (None, None) or (
            year is not None and (low is None or year >= low) and (high is None or year <= high)
        )
        some = not any_of or bool(genres & set(any_of))
        return some and genres >= set(all_of) and not genres & set(none_of) and in_range

    expected = [passes(item) for item in catalog.items]
    assert catalog.where(filters).tolist() == expected
    assert filters.empty == (not (any_of or all_of or none_of) and bound == (None, None))


def test_wrong_filters_name_what_is_valid():
    with pytest.raises(RequestError, match=r"no genre 'Comdy' .* Comedy"):
        FILMS.where(Filters(any_of={"genre": ("Comdy",)}))
    with pytest.raises(RequestError, match=r"no attribute 'mood' .* genre, year"):
        FILMS.where(Filters(none_of={"mood": ("sad",)}))
    with pytest.raises(RequestError, match="words, not numbers; ranges work on: year"):
        FILMS.where(Filters(ranges={"genre": (1, 2)}))
    with pytest.raises(RequestError, match="NaN"):
        FILMS.where(Filters(ranges={"year": (float("nan"), None)}))


def test_later_words_win_when_filters_are_merged():
    first = Filters({"genre": ("Comedy",)}, {}, {"genre": ("Horror", "War")}, {"year": (1990, None)})
    later = Filters({"genre": ("horror",)}, {}, {"genre": ("Drama",)}, {"year": (None, 1995)})
    both = first.merge(later)
    assert both.any_of == {"genre": ("horror",)} and both.none_of == {"genre": ("War", "Drama")}
    assert both.ranges == {"year": (1990, 1995)}
    assert both.merge(Filters(ranges={"year": (None, 1970)})).ranges == {"year": (None, 1970)}
    assert both.merge(Filters()) == both and Filters().merge(both) == both
    assert Filters({"genre": ("Comedy",)}).merge(Filters(none_of={"genre": ("comedy",)})).any_of == {}
    assert both.describe() == "genre horror, not genre War or Drama, year 1990 to 1995"
    assert Filters().describe() == "" and Filters(ranges={"year": (1990, None)}).describe() == "year at least 1990"


def test_a_mask_is_fresh_each_time():
    mask = FILMS.where(Filters())
    mask[:] = False
    assert FILMS.where(Filters()).all() and FILMS.where(Filters()).dtype == np.bool_
