"""Draws docs/chat.gif: a conversation on the page over the shipped model, in headless Chromium (`make animation`).

Messages, replies and lists are those of the model. Typing and streaming are drawn at a fixed speed, and a wait is shown
for at most 0.3 s, so that the picture does not depend on how busy the machine is.
"""

from __future__ import annotations

import io
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from browser_world import browsing, served
from PIL import Image

from llmrec.app.server.settings import load_settings
from llmrec.recommender import Recommender

OUT = Path(__file__).resolve().parent.parent / "docs" / "chat.gif"
VIEW = {"width": 960, "height": 640}
MESSAGES = (
    "I loved Alien and Blade Runner",
    "not horror, and older than 1980",
    "why the second one?",
    "I did not like the second one",
)
STEP, KEYS = 100, 3  # milliseconds of a moving frame, and letters typed in one
LONGEST_WAIT = 300  # milliseconds
READ = (700, 1500, 1800, 1800, 2500)  # milliseconds the page stands still: at the start and after each reply
LARGEST = 3_000_000  # bytes


@dataclass
class Film:
    """Frames of a page with the milliseconds each is shown; a frame equal to the one before lengthens it."""

    page: Any
    frames: list[Image.Image] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)

    def shoot(self, milliseconds: int) -> None:
        """Show the page as it is now for so long."""
        image = Image.open(io.BytesIO(self.page.screenshot(caret="initial"))).convert("RGB")
        if self.frames and image == self.frames[-1]:
            self.durations[-1] += milliseconds
        else:
            self.frames.append(image)
            self.durations.append(milliseconds)

    def say(self, message: str, count: int, read: int) -> None:
        """Type a message, send it, follow the reply to its end, and leave time to read it."""
        box = self.page.locator("#box textarea")
        for end in range(KEYS, len(message) + KEYS, KEYS):
            box.fill(message[:end])
            self.shoot(STEP)
        self.shoot(300)
        box.press("Enter")
        done = f"document.querySelectorAll('#chat .bot.message').length >= {count}"
        sent = len(self.frames)
        while not (self.page.evaluate(done) and self.page.locator("#box .submit-button").is_visible()):
            self.shoot(STEP)
        self.durations[sent:] = [min(each, LONGEST_WAIT) for each in self.durations[sent:]]
        self.page.wait_for_selector("#offers .offer")
        self.page.wait_for_timeout(500)
        self.shoot(read)

    def write(self, path: Path) -> None:
        """Write an endless GIF whose frames share one palette, so that only what changes is stored."""
        strip = Image.new("RGB", (self.frames[0].width, self.frames[0].height * 2))
        strip.paste(self.frames[len(self.frames) // 3], (0, 0))
        strip.paste(self.frames[-1], (0, self.frames[0].height))
        palette = strip.quantize(128, dither=Image.Dither.NONE)
        first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        first.save(path, save_all=True, append_images=rest, duration=self.durations, loop=0, optimize=True)


def main() -> int:
    """Serve, talk, write; exit code 1 when the file is larger than a README should carry."""
    with tempfile.TemporaryDirectory() as scratch:
        settings = load_settings(feedback=str(Path(scratch) / "feedback.sqlite"))
        with served(Recommender.from_pretrained(), settings) as world, browsing() as browser:
            context = browser.new_context(viewport=VIEW, color_scheme="light", reduced_motion="reduce")
            page = context.new_page()
            page.goto(world.url)
            page.wait_for_selector("#cards .card", timeout=120_000)
            page.wait_for_timeout(1000)
            film = Film(page)
            film.shoot(READ[0])
            for count, (message, read) in enumerate(zip(MESSAGES, READ[1:], strict=True), start=1):
                film.say(message, count, read)
            film.write(OUT)
    size = OUT.stat().st_size
    print(f"{OUT.name}: {len(film.frames)} frames, {sum(film.durations) / 1000:.1f} s, {size} bytes")
    return int(size > LARGEST)


if __name__ == "__main__":
    sys.exit(main())
