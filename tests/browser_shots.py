"""Draws the pictures of docs/: the page over the shipped model, in headless Chromium. Run by hand, from tests/."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

from browser_world import browsing, served
from PIL import Image

from llmrec.app.server.settings import load_settings
from llmrec.recommender import Recommender

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDE, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}


def keep(page: Any, name: str) -> None:
    """Write a picture with 128 colours, which these pages do not exceed by much."""
    page.wait_for_timeout(500)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    image.save(DOCS / f"{name}.png", optimize=True)
    print(name, (DOCS / f"{name}.png").stat().st_size)


def talk(page: Any, *messages: str) -> None:
    """Say each when the reply before is finished."""
    for count, message in enumerate(messages, start=1):
        page.fill("#box textarea", message)
        page.keyboard.press("Enter")
        page.wait_for_function(f"() => document.querySelectorAll('#chat .bot.message').length >= {count}")
        page.wait_for_selector("#box .submit-button", timeout=120_000)
        page.wait_for_selector("#offers .offer", timeout=120_000)


def draw(browser: Any, url: str) -> None:
    """Light, dark, the drawer, and a phone."""
    page = browser.new_context(viewport=WIDE, color_scheme="light").new_page()
    page.goto(url)
    page.wait_for_selector("#cards .card", timeout=120_000)
    keep(page, "chat-start")
    talk(page, "I loved Toy Story and Aladdin", "something older than 1970, no musicals")
    page.get_by_role("button", name="Light or dark").click()
    keep(page, "chat-dark")
    page.get_by_role("button", name="Light or dark").click()
    page.locator("#drawer > button").click()
    page.wait_for_selector(".trace table", timeout=120_000)
    keep(page, "chat-how")
    phone = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True, color_scheme="light").new_page()
    phone.goto(url)
    phone.wait_for_selector("#cards .card", timeout=120_000)
    talk(phone, "a quiet film about loneliness")
    keep(phone, "chat-phone")


def main() -> None:
    """Serve, look, write."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings(feedback=str(Path(scratch) / "feedback.sqlite"))
        with served(Recommender.from_pretrained(), settings) as world, browsing() as browser:
            draw(browser, world.url)


if __name__ == "__main__":
    main()
