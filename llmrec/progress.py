"""Progress of long work: how far a loop is, for how long it will go on, and a printer that is never silent for long.

A loop says how far it is through the same callable that takes all other lines. Such a line is a `Step`, a string that
a terminal shows in place; anything else prints it like any line, and it comes every few seconds at most.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.status import Status
from rich.text import Text

Say = Callable[[str], None]
T = TypeVar("T")

EVERY = 4.0  # seconds between two lines of one loop
QUIET = 4.5  # seconds after which a `Screen` speaks up by itself
_TICK = 0.25  # seconds between two looks at the clock
_LONG = 90  # characters of a line that is named again


class Step(str):
    """A line that says how far a loop is; the next one takes its place where that can be shown."""


def silent(line: str) -> None:
    """Take a line and print nothing."""


def to_stderr(line: str) -> None:
    """Print a line on standard error, as it stands."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds in words: `40 s`, `12 min`, `3.5 h`; nothing lasts less than 0 s."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Counter:
    """Says how far a loop is, at most once in `EVERY` seconds, and when it will end at the rate so far.

    Args:
        say: takes the lines.
        what: names the loop.
        total: units of the whole loop.
        done: units that were done before, such as those of a run that is resumed.
        unit: plural noun behind the numbers.
    """

    def __init__(self, say: Say, what: str, total: float, done: float = 0, unit: str = "") -> None:
        self._say, self._what, self._total, self._unit = say, what, total, f" {unit}" if unit else ""
        self._first = self._done = done
        self._began = self._said = time.monotonic()

    def add(self, units: float = 1) -> None:
        """So many more units are done."""
        self.at(self._done + units)

    def at(self, done: float, words: str = "") -> None:
        """`done` units are done in all; `words` instead of "`done` of `total`"."""
        self._done, now = done, time.monotonic()
        if now - self._said < EVERY:
            return
        self._said = now
        words = words or f"{done:,.0f} of {self._total:,.0f}{self._unit}"
        self._say(Step(f"{self._what}: {words}{self._left(now)}"))

    def _left(self, now: float) -> str:
        made = self._done - self._first
        if made <= 0:
            return ""
        return f", {duration((self._total - self._done) * (now - self._began) / made)} left"


def counted(items: Iterable[T], what: str, say: Say, unit: str = "", total: int | None = None) -> Iterator[T]:
    """The items, with a `Counter` over them; `total` where the number of items is not known from them."""
    many = total if total is not None else len(items) if isinstance(items, Sized) else 0
    counter = Counter(say, what, many, unit=unit)
    for item in items:
        yield item
        counter.add()


class Screen:
    """Prints lines on standard error with the seconds since its start, and speaks up when nobody has for a while.

    On a terminal a `Step` is shown in place below the other lines. Elsewhere it is a line like any other. While the
    screen is open, a thread of its own says after `QUIET` seconds without a line that the work goes on, and on what.

    Args:
        console: prints; one for standard error if None.
        mute: print nothing at all, as all processes of a run but the first one do.
    """

    def __init__(self, console: Console | None = None, mute: bool = False) -> None:
        self._console = console or Console(stderr=True, soft_wrap=True)
        self._mute, self._lock, self._closed = mute, threading.Lock(), threading.Event()
        self._began = self._told = self._spoke = time.monotonic()
        self._latest = ""
        self._status: Status | None = None
        self._thread: threading.Thread | None = None

    def __call__(self, line: str) -> None:
        """Print a line, or show it in place."""
        if self._mute:
            return
        with self._lock:
            self._told = time.monotonic()
            self._latest = line if len(line) <= _LONG else f"{line[: _LONG - 1]}…"
            self._show(line, isinstance(line, Step))

    def beat(self) -> None:
        """Say that the work goes on, if nothing has been said for `QUIET` seconds."""
        with self._lock:
            now = time.monotonic()
            if not self._mute and now - self._spoke >= QUIET:
                since = f", {duration(now - self._told)} since: {self._latest}" if self._latest else ""
                self._show(f"still working{since}", True)

    def _show(self, line: str, passing: bool) -> None:
        self._spoke = time.monotonic()
        text = Text(f"[{self._spoke - self._began:6.0f} s] {line}")
        if not (passing and self._console.is_terminal):
            self._console.print(text, highlight=False)
        elif self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def __enter__(self) -> Self:
        """Open it."""
        if not self._mute:
            self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close it; what was shown in place is gone."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self._status is not None:
            self._status.stop()

    def _watch(self) -> None:
        while not self._closed.wait(_TICK):
            self.beat()
