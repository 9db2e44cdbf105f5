"""Progress reports of long tasks: counters that estimate the time left, and a printer that is never silent for long.

A loop reports its progress through the same callable that takes all other lines. Its progress lines are of the type
`Step`, a string: a terminal shows each one in place of the one before, and any other output prints it like an ordinary
line. A loop sends one every few seconds at most.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from rich.console import Console
from rich.status import Status
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

Say = Callable[[str], None]
T = TypeVar("T")

EVERY = 4.0  # seconds between two lines of one loop
QUIET = 4.5  # seconds of silence after which a `Screen` prints a line by itself
_TICK = 0.25  # seconds between two checks of the clock
_LONG = 90  # characters of the latest line that a sign of life repeats


class Step(str):
    """A progress line of a loop; on a terminal the next one replaces it."""


def silent(line: str) -> None:
    """Discard a line."""


def to_stderr(line: str) -> None:
    """Print a line on standard error."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A duration for people: `40 s`, `12 min`, `3.5 h`; at least `0 s`."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Counter:
    """Reports the progress of a loop and the time left at the rate so far, at most once in `EVERY` seconds.

    Args:
        say: takes the lines.
        what: names the loop.
        total: units of the whole loop.
        done: units already done when the counter starts, for a resumed run.
        unit: plural noun after the numbers.
    """

    def __init__(self, say: Say, what: str, total: float, done: float = 0, unit: str = "") -> None:
        self._say, self._what, self._total, self._unit = say, what, total, f" {unit}" if unit else ""
        self._first = self._done = done
        self._began = self._said = time.monotonic()

    def add(self, units: float = 1) -> None:
        """Count `units` more units as done."""
        self.at(self._done + units)

    def at(self, done: float, words: str = "") -> None:
        """Set the total of done units; `words` replaces "`done` of `total`" in the line."""
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
    """Iterate over items and report progress with a `Counter`; give `total` for items without a length."""
    many = total if total is not None else len(items) if isinstance(items, Sized) else 0
    counter = Counter(say, what, many, unit=unit)
    for item in items:
        yield item
        counter.add()


def progress_bar(console: Console | None = None, *columns: ProgressColumn, estimate_seconds: float = 30.0) -> Progress:
    """Return a progress bar with a count and the time left; it prints nothing where the output is not a terminal.

    Args:
        console: shows the bar; a console for standard error if None.
        columns: shown between the count and the time left.
        estimate_seconds: the speed is estimated over the last `estimate_seconds` seconds.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = console or Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=estimate_seconds,
    )


class Screen:
    """Prints lines on standard error with the seconds since its start, and a sign of life after some silence.

    On a terminal a `Step` is shown in place below the other lines; elsewhere it is printed like any other line. While
    the screen is open, a thread watches for silence. After `QUIET` seconds it prints that the work goes on, and repeats
    the latest line.

    Args:
        console: prints the lines; a console for standard error if None.
        mute: print nothing; set for all processes of a run except the first.
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
        """Print that the work goes on, if nothing was printed for `QUIET` seconds."""
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
        """Start the thread that watches for silence."""
        if not self._mute:
            self._thread = threading.Thread(target=self._watch, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop the thread and remove the line that is shown in place."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        if self._status is not None:
            self._status.stop()

    def _watch(self) -> None:
        while not self._closed.wait(_TICK):
            self.beat()
