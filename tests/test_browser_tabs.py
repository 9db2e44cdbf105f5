"""The tabs beside the chat in a real headless Chromium: they fill, fit the window, and nothing leaves the machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_world import World, browsing, chromium, served, toy, watch

from llmrec.app.server.settings import load_settings

if chromium() is None:
    pytest.skip("no chromium on this machine: install Debian's package of that name", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
expect = playwright.expect
PICTURES = os.environ.get("LLMREC_TEST_PICTURES")  # a folder for screenshots, to look at


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("requests")
    rows = [{"request_id": n, "items": [f"f{n + 1}"], "target": f"f{n + 2}"} for n in range(6)]
    (folder / "week.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    journal = home / "model"
    journal.mkdir()
    lines = [{"step": n, "tokens": 1000 * n, "seconds": n, "item": 5.0 / (n + 1), "kl": 0.1 * n} for n in range(30)]
    (journal / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_HOME", str(home))
        with served(toy(), load_settings(feedback="off", batch_dir=folder, model=journal)) as one:
            yield one


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as one:
        yield one


def opened(browser: Any, world: World, tab: str, **options: Any) -> tuple[Any, dict[str, list[str]]]:
    context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
    context.set_default_timeout(15_000)
    seen = watch(context, world)
    page = context.new_page()
    page.goto(world.url)
    page.get_by_role("tab", name=tab).click()
    return page, seen


def done(page: Any, seen: dict[str, list[str]], name: str) -> None:
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"), full_page=True)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    page.context.close()
    assert seen == {"dialogs": [], "away": [], "errors": []}
    assert wide <= 1, f"{name} is {wide} pixels wider than the window"


@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}])
def test_compare_fills_four_columns(browser: Any, world: World, options: dict[str, Any]) -> None:
    page, seen = opened(browser, world, "Compare", **options)
    page.get_by_label("Wish").fill("a comedy")
    page.locator("#compare-liked textarea").fill("Toy Story\nAladdin")
    page.get_by_role("button", name="Compare", exact=True).click()
    ways = page.locator("#compare-out .way")
    expect(ways).to_have_count(4)
    # eight comedies are left; the others do not know of the constraint
    for place, count in enumerate((8, 10, 10)):
        expect(ways.nth(place).locator("li")).to_have_count(count)
    # the toy model has no base of its own on record: its column says so, and the others stand
    expect(ways.nth(3)).to_contain_text("does not say which base model")
    expect(ways.nth(0)).not_to_contain_text("does not meet the request")
    done(page, seen, f"compare-{len(options)}")


def test_compare_says_what_is_wrong(browser: Any, world: World) -> None:
    page, seen = opened(browser, world, "Compare")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.locator(".toast-body").first).to_contain_text("the request is empty")
    done(page, seen, "compare-wrong")


@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 390, "height": 844}}])
def test_batch_ranks_a_file_of_the_folder(browser: Any, world: World, options: dict[str, Any]) -> None:
    page, seen = opened(browser, world, "Batch", **options)
    page.get_by_role("button", name="Rank", exact=True).click()
    out = page.locator("#batch-out")
    expect(out.locator("tbody tr")).to_have_count(6)
    expect(out.locator(".tile")).to_have_count(7)
    expect(out.locator(".plot")).to_have_count(2)
    assert page.locator("input[type=file]").count() == 0
    done(page, seen, f"batch-{len(options)}")


@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}])
def test_model_shows_map_curves_and_tables(browser: Any, world: World, options: dict[str, Any]) -> None:
    page, seen = opened(browser, world, "Model", **options)
    dots = page.locator("svg.sid-map circle")
    expect(dots).to_have_count(32)
    assert dots.first.locator("title").text_content() == "Toy Story (1995)"
    box, dot = page.locator("svg.sid-map").bounding_box(), dots.nth(5).bounding_box()
    assert box["x"] <= dot["x"] <= box["x"] + box["width"]
    for part in ("Learning curves", "Evaluation"):
        page.get_by_role("button", name=part).click()
    expect(page.locator("svg.curve")).to_have_count(2)
    expect(page.get_by_text("accuracy-ml-100k: ml-100k")).to_be_visible()
    done(page, seen, f"model-{len(options)}")
