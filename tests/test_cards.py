from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from fakes import films
from hypothesis import given
from hypothesis import strategies as st
from payloads import HOSTILE
from source_tree import ROOT

from llmrec.app.web.html import cards, side_panel, trace
from llmrec.data.catalog import Catalog, Item
from llmrec.data.filters import Filters
from llmrec.dialogue.trace import DecodedItem, PromptSegment, ScoredItem, Trace
from llmrec.nlu.state import Profile, Session, Turn
from llmrec.recommender import Recommendation

PAYLOADS = HOSTILE
TAGS = {"div", "span", "h1", "h2", "h3", "ol", "li", "button", "svg", "circle", "rect", "polygon", "path", "text"}
SHAPES = {"width", "height", "x", "y", "cx", "cy", "r", "points", "d"}
BUTTON = {"type", "name", "value"}
TABLE = {"table", "thead", "tbody", "tr", "th", "td", "pre"}


TRACE = Trace(
    (
        PromptSegment("mark", "", -1, 1),
        PromptSegment("words", "<b>x</b>", -1, 2),
        PromptSegment("item", "1-2", 0, 2),
        PromptSegment("user", "", -1, 2),
    ),
    (DecodedItem(0, (1, 2), -1.5, False),),
    (ScoredItem(0, -2.0, {"llm": -1.5}),),
    {"llm": 1.0},
    {"fusion": 0.001},
    1,
    1,
)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def tags(html: str) -> Tags:
    parser = Tags()
    parser.feed(html)
    parser.close()
    return parser


def harmless(html: str) -> None:
    for tag, attributes in tags(html).seen:
        assert tag in TAGS | TABLE
        assert {name for name, _ in attributes} <= {"class", "role", *SHAPES, *BUTTON}
        for name, value in attributes:
            assert re.fullmatch(r"[\w :,.-]+", value or ""), (name, value)
            assert name != "name" or value in {"act", "ask", "page"}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_from_outside_becomes_markup(payload: str) -> None:
    catalog = Catalog([Item("1", payload, payload, {"genre": (payload[:90], "Comedy"), "year": 1990})], payload[:40])
    item = Recommendation(0, 1.0, "llm", payload)
    card = cards.item_card(catalog, item, "year")
    shapes = [(tag, attributes) for tag, attributes in tags(card).seen]
    ordinary = Catalog([Item("1", "Plain", "Text", {"genre": ("A", "Comedy"), "year": 1990})])
    plain = cards.item_card(ordinary, replace(item, reason="Why"), "year")
    drawn = {"svg", "circle", "rect", "polygon", "path", "text"}
    kinds = [[tag for tag, _ in seen if tag not in drawn] for seen in (shapes, tags(plain).seen)]
    assert kinds[0] == kinds[1]
    session = Session("s", turns=[Turn(payload, payload, (payload,), Profile())])
    wish = Filters(any_of={"genre": (payload[:90],)}, none_of={"genre": (payload[:90],)})
    session.profile = Profile(user=payload, shown=(item,), liked=(0,), filters=wish, wish=payload)
    for html in (
        card,
        cards.remaining_items(catalog, [item], 21),
        cards.list_heading(catalog, session),
        cards.masthead(catalog),
        cards.welcome(catalog),
        cards.list_heading(catalog, session, payload),
        cards.suggestion_chips([("say:0", payload)]),
        cards.exported_conversation(payload),
        side_panel.profile_panel(catalog, session.profile),
        side_panel.search_results(catalog, [0], True),
        trace.trace_drawer(catalog, TRACE, [(payload, 1.0)]),
        cards.muted_line(payload),
        *(message["content"] for message in cards.chat_messages(session, payload, payload)),
    ):
        harmless(html)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markdown_finds_nothing_to_read_in_a_field(payload: str) -> None:
    shown = re.sub(r"&(?:#\d+|amp|lt|gt);", "", cards.escaped(payload))
    assert not set(shown) & set("\\`*_{}[]()#+-.!|~$<>&\"':=/")


@given(st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), max_size=100))
def test_escaping_loses_no_word(raw: str) -> None:
    assert tags(cards.escape_html(raw)).words == raw
    harmless(cards.escape_html(raw))
    harmless(cards.escaped(raw))


def test_a_card_shows_title_year_chips_and_reason() -> None:
    catalog = films()
    words = tags(cards.item_card(catalog, Recommendation(0, 1.0, "llm", "Because of you"), "year")).words
    for part in (
        "Toy Story",
        "1995",
        "Animation",
        "Comedy",
        "Because of you",
        "TS",
        "language model",
        "More like this",
    ):
        assert part in words


def test_covers_differ_between_works_of_one_title_and_stay_the_same() -> None:
    assert cards.cover("Sabrina", "Sabrina (1954)") != cards.cover("Sabrina", "Sabrina (1995)")
    assert cards.cover("Sabrina", "Sabrina (1954)") == cards.cover("Sabrina", "Sabrina (1954)")
    assert "LK" in cards.cover("The Lion King", "x")
    assert tags(cards.cover("!!!", "!!!")).words == ""


def test_every_cover_class_is_in_the_style_sheet() -> None:
    css = (ROOT / "app" / "web" / "theme.css").read_text(encoding="utf-8")
    drawn = "".join(cards.cover("x", str(row)) for row in range(2000))
    used = {name for names in re.findall(r'class="([^"]+)"', drawn) for name in names.split()}
    assert len(used) == 24 + len({"cover", "initials", "ink", "faint", "line"})
    for name in used:
        assert f".{name} " in css


def test_the_style_sheet_loads_nothing() -> None:
    css = (ROOT / "app" / "web" / "theme.css").read_text(encoding="utf-8")
    assert "url(" not in css
    assert "@import" not in css
    assert "http" not in css


def test_markup_is_made_in_present_only() -> None:
    files = [path for top in ("app", "llmrec") for path in (ROOT / top).rglob("*.py")]
    assert len(files) > 20
    tag = re.compile(r"</?(?:div|span|b|p|br|img|a)\b")
    found = {path.relative_to(ROOT).as_posix() for path in files if tag.search(path.read_text(encoding="utf-8"))}
    assert "app/web/html/cards.py" in found
    assert all(name.startswith("app/web/html/") for name in found)


def test_a_button_value_holds_nothing_from_outside() -> None:
    for value in ("like:<b>", 'like:1" onclick="x', "like", "Like:1", "like:1 2", ""):
        with pytest.raises(ValueError, match="button value"):
            cards.button("act", value, "x", "act")


def test_long_values_are_cut() -> None:
    long = "x" * 300
    catalog = Catalog([Item("1", long, "", {"genre": ("y" * 90,)})])
    assert len(cards.short_title(catalog, 0)) <= 48
    assert "y" * 41 not in tags(cards.item_card(catalog, Recommendation(0, 1.0, "llm", ""), None)).words
