"""Logs shown lists and reactions to their items in an append-only SQLite file.

Entries hold item ids and a pseudonym for each visitor. Pseudonyms change at every start of the server, so a file
reveals neither who a visitor was nor what the same person did on another day. Messages are kept only with consent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from llmrec.app.server.settings import Settings
from llmrec.errors import RequestError, UserError

REACTIONS = frozenset({"like", "dislike", "seen", "forget", "more"})
_log = logging.getLogger(__name__)
_APPLICATION = 0x6C6C6D72  # "llmr": distinguishes feedback files from other SQLite files
_PAGES = 65_536  # of 4 kB each: the file cannot grow beyond 256 MB
_MOST_SHOWN, _MOST_WORDS = 100, 2_000
_SCHEMA = f"""
CREATE TABLE lists (id INTEGER PRIMARY KEY, visitor TEXT NOT NULL, at INTEGER NOT NULL, items TEXT NOT NULL) STRICT;
CREATE TABLE reactions (
  id INTEGER PRIMARY KEY, list INTEGER NOT NULL REFERENCES lists (id), visitor TEXT NOT NULL, at INTEGER NOT NULL,
  item TEXT NOT NULL, reaction TEXT NOT NULL, words TEXT
) STRICT;
CREATE TRIGGER lists_stay BEFORE UPDATE ON lists BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER lists_remain BEFORE DELETE ON lists BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER reactions_stay BEFORE UPDATE ON reactions BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER reactions_remain BEFORE DELETE ON reactions BEGIN SELECT RAISE(ABORT, 'append only'); END;
PRAGMA application_id = {_APPLICATION};
"""


@dataclass(frozen=True)
class Reaction:
    """A visitor's reaction to an item of a displayed list.

    Attributes:
        visitor: pseudonym of the visitor.
        at: seconds since 1970.
        shown: item ids of the displayed list, best first.
        item: id of the item.
        reaction: like, dislike, seen, forget or more.
        words: the visitor's last message, if they allowed it to be kept.
    """

    visitor: str
    at: int
    shown: tuple[str, ...]
    item: str
    reaction: str
    words: str | None


class FeedbackLog:
    """Writes reactions to a feedback file; thread-safe.

    If the disk is full, the reaction is lost, but the conversation goes on.

    Args:
        path: the file; if missing, it is created and readable by its owner only.

    Raises:
        UserError: the file cannot be opened or is not a feedback file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lost = path, 0
        self._salt = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self._last: tuple[str, tuple[str, ...], int] | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, timeout=2.0, isolation_level=None, check_same_thread=False)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"cannot keep feedback in {str(path)!r}: {error}; set LLMREC_FEEDBACK to another file or to off, or "
                "LLMREC_HOME to a folder that can be written"
            ) from None

    def react(
        self, visitor: str, item: str, reaction: str, shown: Sequence[str] = (), words: str | None = None
    ) -> None:
        """Append one reaction.

        Args:
            visitor: id of the session; only a salted hash of it is written.
            item: id of the item.
            reaction: one of REACTIONS.
            shown: item ids of the displayed list, best first.
            words: the last message; pass it only with the visitor's consent.

        Raises:
            RequestError: `reaction` is not one of REACTIONS.
        """
        if reaction not in REACTIONS:
            raise RequestError(f"reaction {reaction[:20]!r} is none of {', '.join(sorted(REACTIONS))}")
        name = hashlib.blake2b(visitor.encode(), key=self._salt, digest_size=8).hexdigest()
        said = None if words is None else words[:_MOST_WORDS]
        with self._lock:
            try:
                self._append(name, tuple(shown[:_MOST_SHOWN]), item, reaction, said)
            except sqlite3.Error as error:
                self.lost += 1
                # the type only: a message could carry the visitor's words into the log
                _log.warning("feedback not kept (%d so far): %s", self.lost, type(error).__name__)

    def close(self) -> None:
        """Write everything to the file and close it."""
        with self._lock:
            self._db.close()

    def _prepare(self) -> None:
        found = self._db.execute("PRAGMA application_id").fetchone()[0]
        if found == 0 and not self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        elif found != _APPLICATION:
            raise sqlite3.DatabaseError("it is an SQLite file of something else")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA max_page_count = {_PAGES}")

    def _append(self, visitor: str, shown: tuple[str, ...], item: str, reaction: str, words: str | None) -> None:
        now = int(time.time())
        with self._db:  # commits, or rolls back on an error
            self._db.execute("BEGIN IMMEDIATE")
            if self._last is None or self._last[:2] != (visitor, shown):
                ids = json.dumps(shown, ensure_ascii=False)
                row = self._db.execute("INSERT INTO lists (visitor, at, items) VALUES (?, ?, ?)", (visitor, now, ids))
                kept = int(row.lastrowid or 0)
            else:
                kept = self._last[2]
            self._db.execute(
                "INSERT INTO reactions (list, visitor, at, item, reaction, words) VALUES (?, ?, ?, ?, ?, ?)",
                (kept, visitor, now, item, reaction, words),
            )
        self._last = (visitor, shown, kept)


def open_feedback(settings: Settings) -> FeedbackLog | None:
    """Open the feedback log that the settings name; None if feedback is off."""
    return None if settings.feedback == "off" else FeedbackLog(settings.feedback)


def read_reactions(path: Path) -> Iterator[Reaction]:
    """Read a feedback file, oldest reaction first; a server may be writing to it.

    Raises:
        UserError: the file does not exist or is not a feedback file.
    """
    if not path.is_file():
        raise UserError(f"no feedback file {str(path)!r}; `llmrec chat` makes it unless feedback is off")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)) as db:
            if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
                raise sqlite3.DatabaseError("it is an SQLite file of something else")
            query = (
                "SELECT r.visitor, r.at, l.items, r.item, r.reaction, r.words FROM reactions r "
                "JOIN lists l ON l.id = r.list ORDER BY r.id"
            )
            for visitor, at, items, item, reaction, words in db.execute(query):
                yield Reaction(visitor, at, tuple(json.loads(items)), item, reaction, words)
    except (sqlite3.Error, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f"{str(path)!r} cannot be read as feedback: {error}") from None
