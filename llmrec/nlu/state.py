"""Dialogue state: the profile, the turns and the session of one visitor.

Profiles are immutable values, so undo restores an earlier one.
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
        message_chars: most characters of a message.
        turns: most turns of a conversation.
        k: most items of a list.
        default_k: list length when none was asked for.
        reply_tokens: most tokens of the generated part of a reply.
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
    """All that recommendations depend on; items are given as catalogue rows.

    Attributes:
        user: external id of the demo user being played, or empty for a new visitor.
        history: rows that the log holds for that user, oldest first.
        liked: rows liked in this conversation, oldest first.
        disliked: rows disliked in this conversation; never shown again.
        seen: rows the visitor said they know; they count as history, and are not shown again.
        passed: rows that were shown and that the visitor asked to replace; not shown again.
        filters: constraints that are active.
        wish: the last free description, or empty.
        k: list length asked for last, or 0.
        shown: the list on display.
        focus: the row talked about last, or -1.
        asked: whether the clarifying question has been put.
        options: rows with the same name that the visitor was asked to choose from, in that order.
        opinion: what was said about the options: `like`, `dislike`, `seen` or `about`.
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
        """Rows that say something about taste, oldest first, without those disliked in this conversation.

        Rows that the log marks as disliked stay marked unless they are liked in this conversation.
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
        """True when nothing is known about the visitor's taste or wishes."""
        return not self.known and not self.disliked and not self.wish and self.filters.empty

    def record_opinion(self, row: int, opinion: str) -> Profile:
        """Return the profile with an opinion added: `like`, `dislike`, `seen`, or `forget` to remove the opinion."""
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
    """One exchange, and the profile before it."""

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
        """Ask the running reply, if any, to end after the current word."""
        self._stop.set()

    def undo(self) -> str:
        """Take back the last exchange and all its changes; returns what the visitor had typed, or ''."""
        return self.rewind(len(self.turns) - 1)

    def rewind(self, turn: int) -> str:
        """Return to the state before a turn (counted from 0); returns what was typed then, or '' if no such turn."""
        if self.busy or not 0 <= turn < len(self.turns):
            return ""
        cut = self.turns[turn]
        del self.turns[turn:]
        self.profile = cut.before
        return cut.user

    def clear(self) -> None:
        """Forget the conversation, but keep the visitor's identity and their opinions on items."""
        old = self.profile
        self._restart()
        self.profile = Profile(
            user=old.user, history=old.history, liked=old.liked, disliked=old.disliked, seen=old.seen
        )

    def switch_user(self, user: str, history: tuple[int, ...]) -> None:
        """Restart as a user of the log (or as a new visitor, with an empty id and history)."""
        self._restart()
        self.profile = Profile(user=user, history=history)

    def _restart(self) -> None:
        # a reply still being written belongs to the old conversation: the new epoch keeps it out of this one
        self.epoch += 1
        self.stop()
        self.turns.clear()


def _drop(rows: tuple[int, ...], row: int) -> tuple[int, ...]:
    return tuple(other for other in rows if other != row)
