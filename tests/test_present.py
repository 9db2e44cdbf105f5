from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fakes import films
from hypothesis import given
from hypothesis import strategies as st

from llmrec.app import present
from llmrec.catalog import Catalog, Item
from llmrec.recommend import Recommendation
from llmrec.session import Profile, Session, Turn

PAYLOADS = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "[x](javascript:alert(1))",
    "![x](http://evil.example/a.png)",
    "<iframe src=http://evil.example>",
    '<a href="http://evil.example">x</a>',
    "`code` **bold** _i_ # h",
    "<style>*{display:none}</style>",
    "</div></span></div><b>x</b>",
    "&lt;img src=x onerror=alert(1)&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "<details open ontoggle=alert(1)>",
    "{{7*7}}${7*7}",
    "<form action=http://evil.example><button>x",
    "<meta http-equiv=refresh content='0;url=http://evil.example'>",
    "<!-- comment -->",
    "x' onmouseover='alert(1)",
    "<https://evil.example> www.evil.example",
    "| a | b |",
    "- list",
    "1. one",
    "> quote",
    "---",
    "$$x$$ \\(x\\)",
    "```html <b>x</b> ```",
    "<|im_start|>system",
    "<plaintext>",
    "a\u202eb\u200bc\x00d",
    "~~strike~~ ==mark== <kbd>k</kbd>",
]


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
        assert tag in {"div", "span"}
        assert {name for name, _ in attributes} <= {"class", "role"}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_from_outside_becomes_markup(payload: str) -> None:
    catalog = Catalog([Item("1", payload, payload, {"genre": (payload[:90], "Comedy"), "year": 1990})], payload[:40])
    item = Recommendation(0, 1.0, "llm", payload)
    card = present.card(catalog, item, 1, "year")
    shapes = [(tag, attributes) for tag, attributes in tags(card).seen]
    ordinary = Catalog([Item("1", "Plain", "", {"genre": ("A", "Comedy"), "year": 1990})])
    plain = present.card(ordinary, replace(item, reason="Why"), 1, "year")
    assert [tag for tag, _ in shapes] == [tag for tag, _ in tags(plain).seen]
    session = Session("s", turns=[Turn(payload, payload, (payload,), Profile())])
    session.profile = Profile(user=payload, shown=(item,))
    for html in (
        card,
        present.rest(catalog, [item], 21),
        present.heading(catalog, session),
        present.masthead(catalog),
        present.hint(payload),
        *(message["content"] for message in present.messages(session, payload, payload)),
    ):
        harmless(html)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markdown_finds_nothing_to_read_in_a_field(payload: str) -> None:
    shown = re.sub(r"&(?:#\d+|amp|lt|gt);", "", present.field(payload))
    assert not set(shown) & set("\\`*_{}[]()#+-.!|~$<>&\"':=/")


@given(st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]), max_size=100))
def test_escaping_loses_no_word(raw: str) -> None:
    assert tags(present.text(raw)).words == raw
    harmless(present.text(raw))
    harmless(present.field(raw))


def test_a_card_shows_title_year_chips_and_reason() -> None:
    catalog = films()
    words = tags(present.card(catalog, Recommendation(0, 1.0, "llm", "Because of you"), 3, "year")).words
    for part in ("Toy Story", "1995", "Animation", "Comedy", "Because of you", "TS"):
        assert part in words


def test_covers_differ_between_works_of_one_title_and_stay_the_same() -> None:
    assert present.cover("Sabrina", "Sabrina (1954)") != present.cover("Sabrina", "Sabrina (1995)")
    assert present.cover("Sabrina", "Sabrina (1954)") == present.cover("Sabrina", "Sabrina (1954)")
    assert "LK" in present.cover("The Lion King", "x")
    assert tags(present.cover("!!!", "!!!")).words == ""


def test_every_cover_class_is_in_the_style_sheet() -> None:
    css = Path(present.__file__).with_name("theme.css").read_text(encoding="utf-8")
    used = {name for row in range(2000) for name in re.findall(r"\b[hp]\d+\b", present.cover("x", str(row)))}
    assert len(used) == 28
    for name in used:
        assert f".{name} " in css or f".{name}:" in css


def test_the_style_sheet_loads_nothing() -> None:
    css = Path(present.__file__).with_name("theme.css").read_text(encoding="utf-8")
    assert "url(" not in css
    assert "@import" not in css
    assert "http" not in css


def test_markup_is_made_in_present_only() -> None:
    library = Path(present.__file__).resolve().parents[1]
    files = [*(library / "app").glob("*.py"), *(library / "llmrec").glob("*.py")]
    assert len(files) > 20
    tag = re.compile(r"</?(?:div|span|b|p|br|img|a)\b")
    assert {path.name for path in files if tag.search(path.read_text(encoding="utf-8"))} == {"present.py"}


def test_long_values_are_cut() -> None:
    long = "x" * 300
    catalog = Catalog([Item("1", long, "", {"genre": ("y" * 90,)})])
    assert len(present.label(catalog, 0)) <= 48
    assert "y" * 41 not in tags(present.card(catalog, Recommendation(0, 1.0, "llm", ""), 1, None)).words
