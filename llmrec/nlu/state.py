"""Dialogue state: the profile, the turns and the session of one visitor.

Profiles are plain values, so that undo means to put an earlier one back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from llmrec.data.filters import Filters
from llmrec.data.interactions import History
from llmrec.errors import RequestError

if TYPE_CHECKING:
    from llmrec.data.requests import Recommendation


@dataclass(frozen=True)
class Limits:
    """Bounds of a conversation.

    Attributes:
        message_chars: longest message that is read.
        turns: longest conversation.
        k: longest list.
        default_k: list length when none was asked for.
        reply_tokens: longest generated part of a reply.
        reply_seconds: wall-clock time after which a reply is cut short.
    """

    message_chars: int = 2_000
    turns: int = 40
    k: int = 100
    default_k: int = 10
    reply_tokens: int = 96
    reply_seconds: float = 20.0


@dataclass(frozen=True)
class Profile:
    """All that recommendations depend on; everything but text is catalogue rows.

    Attributes:
        user: external id of the demo user being played, or empty for a new visitor.
        history: rows that the log holds for that user, oldest first.
        liked: rows liked here, oldest first.
        disliked: rows disliked here; never shown again.
        seen: rows the visitor said they know; they inform, and are not shown again.
        passed: rows shown and asked to be replaced; not shown again.
        filters: constraints that are active.
        wish: the last free description, or empty.
        k: list length asked for last, or 0.
        shown: the list on display.
        focus: the row talked about last, or -1.
        asked: whether the clarifying question has been put.
        options: rows of one name that the visitor was asked to choose from, in that order.
        opinion: what was said of these: `like`, `dislike`, `seen` or `about`.
    """

    user: str = ""
    history: tuple[int, ...] = ()
    liked: tuple[int, ...] = ()
    disliked: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    passed: tuple[int, ...] = ()
    filters: Filters = field(default_factory=Filters)
    wish: str = ""
    k: int = 0
    shown: tuple[Recommendation, ...] = ()
    focus: int = -1
    asked: bool = False
    options: tuple[int, ...] = ()
    opinion: str = ""

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows on display, in order."""
        return tuple(item.row for item in self.shown)

    @property
    def known(self) -> History:
        """Rows that say something about taste, oldest first, without what was disliked here; the log's opinions stay
        with them unless they are liked now.
        """
        gone = set(self.disliked)
        known = dict.fromkeys((*self.history, *self.seen, *self.liked))
        return History([row for row in known if row not in gone], History(self.history).disliked - {*self.liked})

    @property
    def hidden(self) -> tuple[int, ...]:
        """Rows that must not be shown."""
        return tuple(dict.fromkeys((*self.history, *self.liked, *self.disliked, *self.seen, *self.passed)))

    @property
    def blank(self) -> bool:
        """True when nothing at all is known about the visitor's taste or wishes."""
        return not self.known and not self.disliked and not self.wish and self.filters.empty

    def record_opinion(self, row: int, opinion: str) -> Profile:
        """Return the profile after an opinion: `like`, `dislike`, `seen`, or `forget` to take one back."""
        if opinion not in {"like", "dislike", "seen", "forget"}:
            raise RequestError(f"opinion {opinion!r}; use like, dislike, seen or forget")
        liked, disliked, seen = (_drop(rows, row) for rows in (self.liked, self.disliked, self.seen))
        return replace(
            self,
            liked=(*liked, row) if opinion == "like" else liked,
            disliked=(*disliked, row) if opinion == "dislike" else disliked,
            seen=(*seen, row) if opinion == "seen" else seen,
        )


@dataclass(frozen=True)
class Turn:
    """One exchange, and the profile as it was before."""

    user: str
    reply: str
    notices: tuple[str, ...]
    before: Profile


@dataclass
class Session:
    """One visitor's conversation; the server's copy is the only one that counts."""

    id: str
    profile: Profile = field(default_factory=Profile)
    turns: list[Turn] = field(default_factory=list)
    touched: float = field(default_factory=time.monotonic)
    epoch: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _busy: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def answering(self) -> Iterator[threading.Event]:
        """Hold the session for one reply; yields the event that asks that reply to stop.

        Raises:
            RequestError: another reply is still being written.
        """
        if not self._busy.acquire(blocking=False):
            raise RequestError("the last reply is still being written; press Stop first, then send again")
        # a new event for every reply: a late click on Stop must not cut the next one short
        self._stop = threading.Event()
        try:
            yield self._stop
        finally:
            self.touched = time.monotonic()
            self._busy.release()

    @property
    def busy(self) -> bool:
        """True while a reply is being written."""
        return self._busy.locked()

    def stop(self) -> None:
        """Ask the running reply, if any, to end after the word it is at."""
        self._stop.set()

    def undo(self) -> str:
        """Take back the last exchange with all that it changed; returns what the visitor had typed, or ''."""
        return self.rewind(len(self.turns) - 1)

    def rewind(self, turn: int) -> str:
        """Go back to before a turn (from 0); returns what was typed then, or '' without such a turn."""
        if self.busy or not 0 <= turn < len(self.turns):
            return ""
        cut = self.turns[turn]
        del self.turns[turn:]
        self.profile = cut.before
        return cut.user

    def clear(self) -> None:
        """Forget the conversation; keep who the visitor is and the opinions given on items."""
        old = self.profile
        self._restart()
        self.profile = Profile(
            user=old.user, history=old.history, liked=old.liked, disliked=old.disliked, seen=old.seen
        )

    def switch_user(self, user: str, history: tuple[int, ...]) -> None:
        """Start afresh as a user of the log (or as a new visitor, with an empty id and history)."""
        self._restart()
        self.profile = Profile(user=user, history=history)

    def _restart(self) -> None:
        # a reply still being written belongs to the old conversation: the epoch tells it not to enter this
        # one
        self.epoch += 1
        self.stop()
        self.turns.clear()


def _drop(rows: tuple[int, ...], row: int) -> tuple[int, ...]:
    return tuple(other for other in rows if other != row)
