"""How soon a visitor sees the first card and the first word after Enter, with the shipped model, in headless Chromium.

Run by `make browser-speed`; needs the model's weights and data (fetched once by `make chat`). Prints its figures and
writes them to eval/results/browser-speed.json. Exit code 1 when the median misses 2 s for a card or 3 s for a word.
"""

from __future__ import annotations

import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from browser_world import browsing, served

from llmrec.app.server.settings import load_settings
from llmrec.eval.result_file import publish
from llmrec.recommender import Recommender

CARD_SECONDS, WORD_SECONDS = 2.0, 3.0
OUT = Path(__file__).resolve().parent.parent / "eval" / "results" / "browser-speed.json"
TALKS = [
    ["I loved Alien", "something older", "no horror please", "a comedy for the whole family", "something else"],
    ["I liked Fargo and Pulp Fiction", "from the nineties", "not so violent", "more like Heat (1995)", "thrillers"],
    ["a quiet film about loneliness", "in black and white", "Newer", "musicals", "I loved Casablanca"],
]
# times on the page's own clock, from the key to the first change that a visitor can see
TIMER = """() => {
  const list = () => [...document.querySelectorAll("#cards .card")].map((card) => card.innerText).join("\\n");
  const said = () => [...document.querySelectorAll("#chat .bot.message")].filter((e) => !e.querySelector(".waiting"));
  const before = { list: list(), said: said().length };
  const seen = window.seen = {};  // of this message alone: loops of earlier ones end when it is no longer theirs
  addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    const start = performance.now();
    const look = () => {
      const now = (performance.now() - start) / 1000;
      if (!("card" in seen) && list() && list() !== before.list) seen.card = now;
      if (!("word" in seen) && said().length > before.said) seen.word = now;
      if (window.seen === seen && now < 60 && !("card" in seen && "word" in seen)) requestAnimationFrame(look);
    };
    look();
  }, { once: true, capture: true });
}"""


def talk(page: Any, messages: list[str]) -> list[dict[str, float]]:
    """Say each message when the reply before is finished; returns seconds to card and word for each."""
    out = []
    for count, message in enumerate(messages, start=1):
        page.fill("#box textarea", message)
        page.evaluate(TIMER)
        page.keyboard.press("Enter")
        page.wait_for_function(f"() => document.querySelectorAll('#chat .bot.message').length >= {count}")
        page.wait_for_selector("#box .submit-button", timeout=60_000)
        page.wait_for_function("() => 'word' in window.seen", timeout=60_000)
        out.append(page.evaluate("window.seen"))
        card = f"{out[-1]['card']:6.2f} s card" if "card" in out[-1] else "the list stays"
        print(f"{card}  {out[-1]['word']:6.2f} s word  {message}")
    return out


def measure(url: str) -> tuple[list[float], list[dict[str, float]]]:
    """Return seconds from opening the page to its first card for each visitor, and the times of every message."""
    opened, times = [], []
    with browsing() as browser:
        for messages in TALKS:
            page = browser.new_context(viewport={"width": 1360, "height": 900}).new_page()
            started = time.perf_counter()
            page.goto(url)
            page.wait_for_selector("#cards .card", timeout=60_000)
            opened.append(time.perf_counter() - started)
            times += talk(page, messages)
    return opened, times


def row(values: list[float]) -> dict[str, tuple[float, float, float]]:
    """Median and slowest, with the range of what was seen."""
    low, high = min(values), max(values)
    return {"median_seconds": (statistics.median(values), low, high), "slowest_seconds": (high, low, high)}


def main() -> int:
    """Measure, print, write."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings(feedback=str(Path(scratch) / "feedback.sqlite"))
        with served(Recommender.from_pretrained(), settings) as world:
            opened, times = measure(world.url)
    rows = {
        "first card after opening the page": row(opened),
        "first card after Enter": row([one["card"] for one in times if "card" in one]),
        "first word after Enter": row([one["word"] for one in times]),
    }
    card, word = (rows[f"first {what} after Enter"]["median_seconds"][0] for what in ("card", "word"))
    protocol = {"browser": "headless Chromium", "visitors": len(TALKS), "messages": len(times), "interval": "range"}
    command = shlex.join(["make", "browser-speed"])
    targets = {"first_card_seconds": card, "first_word_seconds": word}
    publish(OUT, "ml-100k", protocol, rows, targets, 0, command, time.perf_counter() - started, len(times))
    return int(card > CARD_SECONDS or word > WORD_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
