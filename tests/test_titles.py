"""A title is found by any of the names that people have for it, with or without its article, case and accents."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.catalog import Catalog, Item
from llmrec.data.titles import display_title, title_variants
from llmrec.errors import RequestError
from llmrec.nlu.entity_linking import EntityLinker
from llmrec.nlu.lexicon import Lexicon

# raw title -> as it is shown, and every name it goes by
TITLES = {
    "City of Lost Children, The (Cité des enfants perdus, La)": (
        "The City of Lost Children (La Cité des enfants perdus)",
        ("The City of Lost Children", "La Cité des enfants perdus"),
    ),
    "Seven (a.k.a. Se7en)": ("Seven (a.k.a. Se7en)", ("Seven", "Se7en")),
    "Professional, The (a.k.a. Leon: The Professional) (Léon)": (
        "The Professional (a.k.a. Leon: The Professional) (Léon)",
        ("The Professional", "Leon: The Professional", "Léon"),
    ),
    "Lives of Others, The (a.k.a. Other People's Lives) (Leben der Anderen, Das)": (
        "The Lives of Others (a.k.a. Other People's Lives) (Das Leben der Anderen)",
        ("The Lives of Others", "Other People's Lives", "Das Leben der Anderen"),
    ),
    "Special Day, A (Giornata particolare, Una)": (
        "A Special Day (Una Giornata particolare)",
        ("A Special Day", "Una Giornata particolare"),
    ),
    "Wonderful Wave, The (AKA Great Wave, The) (Welle, Die)": (
        "The Wonderful Wave (AKA The Great Wave) (Die Welle)",
        ("The Wonderful Wave", "The Great Wave", "Die Welle"),
    ),
    "Golden Age, The (Âge d'Or, L')": ("The Golden Age (L'Âge d'Or)", ("The Golden Age", "L'Âge d'Or")),
    "Blue Angel, The (aka Lola, aka Rosa Rot) (Blaue Engel, Der)": (
        "The Blue Angel (aka Lola, aka Rosa Rot) (Der Blaue Engel)",
        ("The Blue Angel", "Lola", "Rosa Rot", "Der Blaue Engel"),
    ),
}
FOREIGN = re.findall(
    r"\S+",
    "Le La Les L' Un Une Il Lo Gli Uno Una El Los Las Unos Unas Der Die Das Den Dem Ein Eine Einen Einer Et En Ett Det "
    "De Het Een O Os As Um Uma Az The A An",
)
CATALOG = Catalog(
    [Item(str(n), shown, "", {"year": 1950 + n}) for n, (shown, _) in enumerate(TITLES.values())]
    + [Item("hard", "Hard Rain", "", {"year": 1998}), Item("seven", "Seven Samurai", "", {"year": 1954})],
    "films",
)
LINKER = EntityLinker(CATALOG, Lexicon(CATALOG))
NAMED = [(row, name) for row, (_, called) in enumerate(TITLES.values()) for name in called]
NAME = st.from_regex(r"[A-Z][a-zé]{4,8}( [A-Z][a-zö]{4,8}){0,2}", fullmatch=True)
ARTICLE = re.compile(rf"^(?:{'|'.join(one for one in FOREIGN if one != 'L')}) |^L'")


def bare(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def typed(row: int, name: str) -> list[str]:
    """Ways in which one name is typed."""
    article = ARTICLE.match(name)
    rest = name[article.end() :] if article else name
    forms = [name, rest]
    if article:
        last = article[0].strip()
        forms += [f"{rest}, {last}"]
    return [f"{form}{year}" for form in forms for year in ("", f" ({1950 + row})")]


@pytest.mark.parametrize(("raw", "shown"), [(raw, shown) for raw, (shown, _) in TITLES.items()])
def test_articles_come_first_in_every_part(raw, shown):
    assert display_title(raw) == shown == display_title(shown)
    assert title_variants(shown) == title_variants(raw) == TITLES[raw][1]
    row = list(TITLES).index(raw)
    for whole in (raw, shown, f"{raw} ({1950 + row})", shown.upper(), bare(shown).lower()):
        assert CATALOG.find(whole) == row


@pytest.mark.parametrize(("row", "name"), NAMED)
def test_every_name_finds_its_item(row, name):
    for form in typed(row, name):
        for said in (form, form.lower(), form.upper(), bare(form)):
            assert CATALOG.exact(said) == row, said


@pytest.mark.parametrize(("row", "name"), NAMED)
def test_every_name_is_heard_in_a_sentence(row, name):
    for said in (f"I loved {name}.", f'Something like "{name}", please', f"More like {name} ({1950 + row})"):
        assert [one.row for one in LINKER.link(said).found] == [row], said


@settings(max_examples=150, deadline=None)
@given(
    st.lists(NAME, min_size=3, max_size=3, unique=True),
    st.lists(st.sampled_from(["", *FOREIGN]), min_size=3, max_size=3),
    st.sampled_from(["", "a.k.a. ", "aka "]),
)
def test_three_names_with_articles_of_any_language(words, articles, aka):
    raws = [f"{word}, {article}" if article else word for word, article in zip(words, articles, strict=True)]
    whole = f"{raws[0]} ({aka}{raws[1]}) ({raws[2]})"
    catalog = Catalog([Item("1", display_title(whole), "", {"year": 1990}), Item("2", "Qx", "", {"year": 1990})])
    for word, article, raw in zip(words, articles, raws, strict=True):
        first = f"{article}{'' if article.endswith(chr(39)) else ' '}{word}" if article else word
        for said in (word, raw, first, first.lower(), bare(first).upper(), f"{first} (1990)", whole):
            assert catalog.exact(said) == 0, said


def test_a_name_of_one_is_no_half_of_another():
    assert CATALOG.find("Hard Rain") == len(TITLES)
    assert CATALOG.find("Seven Samurai") == len(TITLES) + 1
    with pytest.raises(RequestError):
        CATALOG.find("Rain Man Returns")


@pytest.mark.parametrize(
    "title", ["(500) Days of Summer", "Live and Let, Live", "A", "(Untitled)", "Blue (", "X ()", ""]
)
def test_what_has_one_name_keeps_it(title):
    assert display_title(title) == title and title_variants(title) == (title,)
