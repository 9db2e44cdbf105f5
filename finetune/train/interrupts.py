"""Handles Ctrl-C and termination: the current step finishes and a checkpoint is written before the program stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def catch_interrupts(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Catch the first SIGINT or SIGTERM and yield a function that tells whether one arrived.

    A second signal ends the program at once. Outside the main thread signals cannot be caught, and the function always
    returns False.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        came.set()
        say("stopping after this step; once more stops at once and loses what came after the last checkpoint")
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield came.is_set
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
