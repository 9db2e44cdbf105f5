"""The page in a real headless Chromium over the toy model: what a visitor does, sees, and is kept safe from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_world import Spoken, World, browsing, chromium, served, toy, watch
from fakes import FakeRecommender, films
from payloads import HOSTILE

from llmrec.app.server.settings import load_settings
from llmrec.data.catalog import Catalog, Item

if chromium() is None:
    pytest.skip("no chromium on this machine: install Debian's package of that name", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
expect = playwright.expect
FILMS = films()
GENRES = {FILMS.label(row): FILMS[row].attributes["genre"] for row in range(len(FILMS))}
SECONDS = 15_000
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_HOME", str(path))
        yield path


@pytest.fixture(scope="module")
def world(home: Path) -> Iterator[World]:
    with served(toy(), load_settings(feedback="off")) as one:
        yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as one:
        yield one


@pytest.fixture(scope="module")
def shared(browser: Any, world: World) -> Iterator[tuple[Any, Any]]:
    """One browser window's store and cache for all who need none of their own: a page is a visitor all the same."""
    context = browser.new_context(viewport={"width": 1360, "height": 900})
    yield context, watch(context, world)
    context.close()


@pytest.fixture
def visit(browser: Any, world: World, shared: tuple[Any, Any]) -> Iterator[Open]:
    """Opens the page as a new visitor; whatever is done, nothing may leave this machine, alert, or throw."""
    world.recommender.words, world.recommender.pause = ["They ", "fit ", "well."], 0.0
    opened = [shared]
    pages = []

    def open_page(at: World = world, **options: Any) -> Any:
        if options or at is not world:
            context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
            opened.append((context, watch(context, at)))
        else:
            context = shared[0]
        context.set_default_timeout(SECONDS)
        page = context.new_page()
        pages.append(page)
        page.goto(at.url)
        page.wait_for_selector("#cards .card")
        return page

    yield open_page
    for page in pages:
        page.close()
    for context, seen in opened:
        assert seen == {"dialogs": [], "away": [], "errors": []}
        if context is not shared[0]:
            context.close()


def say(page: Any, text: str) -> None:
    page.fill("#box textarea", text)
    page.keyboard.press("Enter")


def answers(page: Any, count: int) -> Any:
    """Wait until so many replies are there and the last is finished; returns the last."""
    replies = page.locator("#chat .bot.message")
    expect(replies).to_have_count(count, timeout=SECONDS)
    expect(page.locator("#box .submit-button")).to_be_visible(timeout=SECONDS)
    expect(page.locator("#chat .waiting")).to_have_count(0)
    return replies.last


def titles(page: Any) -> list[str]:
    names = page.locator("#cards .card .name").all_inner_texts()
    return [re.sub(r"\s*(\d{4})$", r" (\1)", name.replace("\n", " ")) for name in names]


def changed(page: Any, before: list[str]) -> list[str]:
    """Wait until the list is another one; returns it."""
    expect(page.locator("#cards .card .title").first).to_be_visible()
    page.wait_for_function(
        "old => [...document.querySelectorAll('#cards .card .title')].map(e => e.innerText).join('|') !== old",
        arg="|".join(re.sub(r" \(\d{4}\)$", "", title) for title in before),
    )
    return titles(page)


# ---- conversation


def test_the_first_answer_has_words_and_a_list_that_follows_them(visit: Open) -> None:
    page = visit()
    before = titles(page)
    say(page, "I loved Alien")
    reply = answers(page, 1)
    expect(page.locator("#chat .user.message")).to_have_text("I loved Alien")
    expect(reply).to_contain_text("you like Alien")
    expect(reply).to_contain_text("They fit well.")
    after = titles(page)
    assert len(after) == 10
    assert after != before
    assert set(after) <= set(GENRES)
    assert "Alien (1979)" not in after
    expect(page.locator("#profile .pill")).to_have_text(["Alien (1979) Take back"])
    expect(page.locator("#box textarea")).to_have_value("")


def test_a_like_changes_the_list_at_once_and_can_be_taken_back(visit: Open) -> None:
    page = visit()
    before = titles(page)
    page.locator("#cards .card .act.like").nth(1).click()
    after = changed(page, before)
    assert before[1] not in after
    pill = page.locator("#profile .pill")
    expect(pill).to_contain_text(before[1])
    expect(page.locator("#heading [role=status]")).to_contain_text("Noted, you like")
    pill.click()
    assert changed(page, after) == before
    expect(pill).to_have_count(0)


@pytest.mark.parametrize(("kind", "section"), [("dislike", "Not for me"), ("seen", "Seen")])
def test_dislike_and_seen_act_at_once(visit: Open, kind: str, section: str) -> None:
    page = visit()
    before = titles(page)
    page.locator(f"#cards .card .act.{kind}").first.click()
    assert before[0] not in changed(page, before)
    expect(page.locator("#profile h3")).to_have_text([section])


def test_a_constraint_chip_narrows_the_list_and_its_pill_widens_it(visit: Open) -> None:
    page = visit()
    say(page, "I loved Toy Story")
    answers(page, 1)
    before = titles(page)
    chip = page.locator("#offers .offer", has_text=re.compile("^No "))
    genre = chip.inner_text().removeprefix("No ")
    assert any(genre in GENRES[title] for title in before)
    chip.click()
    answers(page, 2)
    narrowed = titles(page)
    assert narrowed
    assert not any(genre in GENRES[title] for title in narrowed)
    pill = page.locator("#profile .pill", has_text=f"no {genre}")
    pill.click()
    assert any(genre in GENRES[title] for title in changed(page, narrowed))
    expect(pill).to_have_count(0)


def test_more_like_this_and_search(visit: Open) -> None:
    page = visit()
    first = titles(page)[0]
    page.locator("#cards .card .act.more").first.click()
    answers(page, 1)
    expect(page.locator("#chat .user.message")).to_have_text(f"More like {first}")
    page.fill("#search textarea", "godf")
    result = page.locator("#results .pill")
    expect(result).to_contain_text("The Godfather (1972)", timeout=SECONDS)
    result.click()
    expect(page.locator("#profile .pill", has_text="The Godfather")).to_be_visible(timeout=SECONDS)
    expect(page.locator("#search textarea")).to_have_value("")


def test_stop_stops(visit: Open, world: World) -> None:
    world.recommender.words, world.recommender.pause = [f"word{i} " for i in range(600)], 0.05
    page = visit()
    say(page, "I loved Alien")
    expect(page.locator("#chat .bot.message").last).to_contain_text("word3", timeout=SECONDS)
    page.locator("#box .stop-button").click()
    reply = answers(page, 1).inner_text()
    assert "word599" not in reply
    page.wait_for_timeout(300)
    assert page.locator("#chat .bot.message").last.inner_text() == reply
    world.recommender.words, world.recommender.pause = ["Again."], 0.0
    say(page, "I loved Aliens too")
    expect(answers(page, 2)).to_contain_text("Again.")


def test_retry_never_repeats_and_undo_gives_the_words_back(visit: Open) -> None:
    page = visit()
    start = titles(page)
    say(page, "I loved Alien")
    answers(page, 1)
    first = titles(page)
    page.get_by_label("Retry").click()
    second = changed(page, first)
    answers(page, 1)
    assert not set(first) & set(second)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#chat .bot.message")).to_have_count(0)
    expect(page.locator("#box textarea")).to_have_value("I loved Alien")
    assert titles(page) == start


def test_an_edit_cuts_the_conversation_on_the_server(visit: Open, world: World) -> None:
    page = visit()
    for count, text in enumerate(["I loved Alien", "no horror", "older"], start=1):
        say(page, text)
        answers(page, count)
    page.locator("#chat .message-row").first.hover()
    page.get_by_label("Edit").first.click()
    page.locator("#chat textarea").fill("I loved Casablanca")
    page.get_by_label("Submit").click()
    expect(page.locator("#chat .user.message")).to_have_text(["I loved Casablanca"], timeout=SECONDS)
    answers(page, 1)
    expect(page.locator("#profile .pill")).to_have_text(["Casablanca (1942) Take back"])
    assert world.recommender.dialogues[-1] == [("user", "I loved Casablanca")]
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#chat .message")).to_have_count(0)


def test_two_visitors_at_once_do_not_meet(visit: Open) -> None:
    first, second = visit(), visit()
    say(first, "I loved Alien")
    say(second, "I loved Casablanca")
    answers(first, 1)
    answers(second, 1)
    expect(first.locator("#profile .pill")).to_contain_text(["Alien"])
    expect(second.locator("#profile .pill")).to_contain_text(["Casablanca"])
    assert titles(first) != titles(second)
    expect(first.locator("#chat")).not_to_contain_text("Casablanca (1942) Take")


def test_a_user_of_the_log_is_played(visit: Open) -> None:
    page = visit()
    before = titles(page)
    page.locator("#user input").click()
    page.get_by_role("option", name="User u1", exact=True).click()
    changed(page, before)
    expect(page.locator("#heading")).to_contain_text("For user u1")
    expect(page.locator("#profile .log")).to_contain_text("5 films in the log")


def test_the_drawer_tells_how_the_list_was_made(visit: Open) -> None:
    page = visit()
    say(page, "I loved Alien")
    answers(page, 1)
    shown = titles(page)
    page.locator("#drawer > button").click()
    expect(page.locator(".trace .prompt")).to_contain_text("Alien (1979)", timeout=SECONDS)
    tables = page.locator(".trace table")
    expect(tables).to_have_count(3)
    listed = tables.nth(1).locator("tbody tr td:first-child").all_inner_texts()
    assert listed == ["weight", *shown]
    expect(tables.nth(0).locator("tbody tr")).to_have_count(10)
    expect(tables.nth(2)).to_contain_text("language model")


# ---- history


def test_history_is_kept_only_when_asked_for(visit: Open) -> None:
    page = visit(locale="en-GB")  # a store of its own
    say(page, "I loved Alien")
    answers(page, 1)
    page.reload()
    page.wait_for_selector("#cards .card")
    expect(page.locator("#chat .message")).to_have_count(0)
    expect(page.locator("#profile .pill")).to_have_count(0)

    say(page, "I loved Casablanca")
    answers(page, 1)
    shown = titles(page)
    page.locator("#browser > button").click()
    page.get_by_label("Keep it in this browser").check()
    page.wait_for_function("() => (localStorage.getItem('llmrec-conversation') ?? '').length > 500")
    page.reload()
    expect(answers(page, 1)).to_contain_text("you like Casablanca")
    assert titles(page) == shown
    say(page, "no horror")
    answers(page, 2)
    expect(page.locator("#profile .pill")).to_have_count(2)

    page.locator("#browser > button").click()
    expect(page.get_by_label("Keep it in this browser")).to_be_checked()
    page.get_by_label("Keep it in this browser").uncheck()
    page.wait_for_function("() => (localStorage.getItem('llmrec-conversation') ?? '').length < 200")
    page.reload()
    page.wait_for_selector("#cards .card")
    expect(page.locator("#chat .message")).to_have_count(0)


def test_a_conversation_is_exported_and_imported(visit: Open, tmp_path: Path) -> None:
    page = visit()
    say(page, "I loved Alien")
    answers(page, 1)
    shown = titles(page)
    page.locator("#browser > button").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    path = tmp_path / "kept.json"
    download.value.save_as(path)
    assert json.loads(path.read_text())["conversation"][0]["you"] == "I loved Alien"
    other = visit()
    other.locator("#browser > button").click()
    with other.expect_file_chooser() as chooser:
        other.get_by_role("button", name="Import").click()
    chooser.value.set_files(path)
    expect(answers(other, 1)).to_contain_text("you like Alien")
    assert titles(other) == shown


# ---- looks


def test_a_phone_shows_everything_without_scrolling_sideways(visit: Open) -> None:
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    say(page, "I loved Alien")
    answers(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#box").bounding_box()
    assert box["y"] + box["height"] <= 844
    assert page.locator("#cards .card").first.bounding_box()["y"] < 844
    for act in page.locator("#cards .card").first.locator("button").all():
        assert act.bounding_box()["height"] >= 32
    page.locator("#cards .card .act.like").first.click()
    expect(page.locator("#profile .pill")).to_have_count(2, timeout=SECONDS)


CONTRAST = """() => {
  const parse = (c) => (c.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const lum = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0.99) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || e.closest("svg, .hid, script, style") || !e.checkVisibility()) continue;
    if (getComputedStyle(e).opacity !== "1") continue;
    const [a, b] = [lum(parse(getComputedStyle(e).color)), lum(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    seen += 1;
    if (ratio < 4.5) poor.push([walk.currentNode.data.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return { seen, poor };
}"""


def test_light_and_dark_are_readable_and_the_choice_stays(visit: Open) -> None:
    page = visit(color_scheme="light")
    say(page, "I loved Alien, no horror")
    answers(page, 1)
    page.locator("#browser > button").click()
    page.locator("#drawer > button").click()
    expect(page.locator(".trace table")).to_have_count(3, timeout=SECONDS)
    for dark in (False, True):
        assert ("dark" in (page.locator("body").get_attribute("class") or "")) is dark
        page.wait_for_timeout(400)  # colours fade
        found = page.evaluate(CONTRAST)
        assert found["seen"] > 80
        assert found["poor"] == []
        page.get_by_role("button", name="Light or dark").click()
    page.get_by_role("button", name="Light or dark").click()
    page.reload()
    page.wait_for_selector("#cards .card")
    page.wait_for_function("() => document.body.classList.contains('dark')")


def test_the_system_decides_while_nobody_has_chosen(visit: Open) -> None:
    page = visit(color_scheme="dark")
    page.wait_for_function("() => document.body.classList.contains('dark')")


def test_everything_is_done_with_keys(visit: Open, world: World) -> None:
    world.recommender.words, world.recommender.pause = [f"word{i} " for i in range(600)], 0.05
    page = visit()
    page.locator("#masthead").click()
    page.evaluate("document.activeElement?.blur()")
    page.keyboard.press("/")
    page.keyboard.type("I loved Alien")
    page.keyboard.press("Enter")
    expect(page.locator("#chat .bot.message").last).to_contain_text("word3", timeout=SECONDS)
    page.keyboard.press("Escape")
    answers(page, 1)
    before = titles(page)
    page.locator("#cards .act.like").first.focus()
    page.keyboard.press("Enter")
    changed(page, before)
    page.wait_for_function("() => document.activeElement?.closest('#cards, #profile') !== null")
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('button, input, textarea')].filter(e => e.checkVisibility()"
        " && !(e.innerText || e.ariaLabel || e.title || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


# ---- safety (promise 13)


def test_sixty_payloads_stay_text(browser: Any, visit: Open, home: Path) -> None:
    items = [
        Item(f"p{row}", payload, payload, {"genre": (payload[:90], "Comedy"), "year": 1990 + row % 10})
        for row, payload in enumerate(HOSTILE)
    ]
    hostile = FakeRecommender(Catalog(items, "films"), words=HOSTILE)
    with served(hostile, load_settings(feedback="off", reply_tokens=96)) as world:
        page = visit(world)
        shapes = page.evaluate("() => [...new Set([...document.querySelectorAll('*')].map(e => e.localName))]")
        for count, payload in enumerate(HOSTILE[:4], start=1):
            say(page, payload)
            answers(page, count)
            assert payload in page.locator("#chat .user.message").last.inner_text()
        page.get_by_role("button", name="New conversation").click()  # and with it what those seemed to ask for
        expect(page.locator("#chat .message")).to_have_count(0)
        say(page, "give me 60 films")
        answers(page, 1)
        expect(page.locator("#cards .card")).to_have_count(20)
        # one of sixty may be gone: what the payloads seemed to say about a film is an opinion, which a visitor keeps
        expect(page.locator("#cards .more-item").nth(38)).to_be_attached()
        page.locator("#cards .act.like").first.click()
        page.locator("#cards .act.dislike").nth(3).click()
        # those two, beside what the payloads may have seemed to say
        expect(page.locator("#profile .pill").nth(1)).to_be_attached(timeout=SECONDS)
        expect(page.get_by_text("Not for you:").first).to_be_attached(timeout=SECONDS)  # both answers are there
        page.fill("#search textarea", "alert")
        expect(page.locator("#results .pill").first).to_be_visible(timeout=SECONDS)
        assert "<script>alert(1)</script>" in page.locator("body").inner_text()
        found = page.evaluate("() => [...new Set([...document.querySelectorAll('*')].map(e => e.localName))]")
        new = set(found) - set(shapes)
        drawn = {"path", "polygon", "rect", "circle", "line", "polyline", "g", "svg", "defs"}
        assert new <= drawn | {"p", "textarea", "h3"}
        assert page.locator("#chat h1, #chat h2, #chat h3, #cards h1, #cards h2, #chat b").count() == 0
        assert (
            page.locator("#cards img, #cards script, #cards style, #chat img, #chat script, #chat iframe").count() == 0
        )
        links = page.evaluate(
            "() => [...document.querySelectorAll('a[href], form, iframe, object')].map(e => e.outerHTML)"
        )
        assert not [link for link in links if "evil" in link or "javascript" in link]
        assert page.evaluate("() => getComputedStyle(document.querySelector('#cards')).display") != "none"


def test_the_toy_model_is_the_whole_pipeline(world: World) -> None:
    assert isinstance(world.recommender, Spoken)
    assert world.recommender.scorer.trie.n == len(FILMS)
