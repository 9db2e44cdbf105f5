"""The chat: parses a message, lists items and streams the reply.

The list is chosen before any text is written. The first sentence is a template filled from the catalogue and the active
constraints; only after it may the language model add text of its own about the items on the list.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from rapidfuzz import fuzz

from llmrec.data.catalog import clean_text
from llmrec.data.constraints import constraints, remove_constraint
from llmrec.data.filters import Filters
from llmrec.data.requests import Recommendation, Request
from llmrec.data.titles import title_key
from llmrec.dialogue import responses
from llmrec.dialogue.item_answers import answer_question
from llmrec.dialogue.request_parsing import build_request
from llmrec.dialogue.state_tracking import update_profile
from llmrec.errors import RequestError, UserError
from llmrec.nlu.lexicon import split_words
from llmrec.nlu.parser import Intent, parse_message, parser_context
from llmrec.nlu.state import Limits, Profile, Session, Turn

if TYPE_CHECKING:
    from llmrec.recommender import Recommender

__all__ = ["Chat", "Done", "Event", "Items", "Limits", "Notice", "Profile", "Session", "Token", "Turn"]

_log = logging.getLogger(__name__)
_ALIKE = 70.0  # of 100: titles with less similarity of letters are not found
_DIALOGUE = 6  # number of earlier utterances given to the language model


@dataclass(frozen=True)
class Items:
    """The new list, best first; `rows` are its catalogue rows in the same order."""

    items: tuple[Recommendation, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Token:
    """The next piece of the reply; pieces are joined without spaces."""

    text: str


@dataclass(frozen=True)
class Notice:
    """A remark that accompanies the reply: a constraint relaxed, a name not found, a limit reached."""

    text: str


@dataclass(frozen=True)
class Done:
    """The end of the turn."""

    seconds: float
    stopped: bool


Event: TypeAlias = Items | Token | Notice | Done
# (turns as (role, text), shown items, most tokens, stop event) -> pieces of text; a UserError, even after the last
# piece, becomes a notice
Talk: TypeAlias = Callable[
    [Sequence[tuple[str, str]], Sequence[Recommendation], int, threading.Event | None], Iterator[str]
]


@dataclass(frozen=True)
class _Reply:
    """The part of a reply that is fixed before the language model writes."""

    facts: str
    notices: tuple[str, ...] = ()
    items: tuple[Recommendation, ...] | None = None


class Chat:
    """Holds conversations with one recommender; sessions are passed in, not stored.

    `talk` replaces the recommender's own text generation.
    """

    def __init__(self, recommender: Recommender, limits: Limits = Limits(), talk: Talk | None = None) -> None:  # noqa: B008
        self.recommender, self.limits, self._talk = recommender, limits, talk
        self.catalog = recommender.catalog
        self._parser = parser_context(self.catalog)
        self._popular: tuple[Recommendation, ...] | None = None

    def open(self, id: str = "") -> Session:
        """Return a new session; without an id, it gets an unguessable one."""
        return Session(id or secrets.token_urlsafe(16))

    def turn(self, session: Session, text: str) -> Iterator[Event]:
        """Answer one message.

        Yields Items first (when the list changes), then Tokens, then Notices, and always ends with Done. A message that
        exceeds a limit, or arrives while the session is busy, gets a Notice and changes nothing. `session.stop()` from
        another thread ends the generated text. If the consumer stops early, the text so far is still recorded.
        """
        started = time.monotonic()
        refusal = self.refusal(session, text)
        if refusal:
            yield Notice(refusal)
            yield Done(time.monotonic() - started, False)
            return
        try:
            with session.answering() as stop:
                yield from self._answer(session, text, stop, started)
        except RequestError as error:
            yield Notice(str(error))
            yield Done(time.monotonic() - started, False)

    def refusal(self, session: Session, text: str) -> str:
        """Return the reason why this message is not answered at all, or ''."""
        if len(text) > self.limits.message_chars:
            most = f"{self.limits.message_chars:,}"
            return f"That message has {len(text):,} characters; I read up to {most}. Please shorten it."
        if len(session.turns) >= self.limits.turns:
            reached = f"This conversation has reached its {self.limits.turns} turns."
            return f"{reached} Start a new one; your likes stay."
        return ""

    def current_list(self, session: Session) -> Items:
        """List items for the current profile without a reply: at the start, and after a change in the interface."""
        if session.profile == Profile() and self._popular is not None:
            items = self._popular
        else:
            items, _ = self._list(session.profile)
        if session.profile == Profile():
            self._popular = items
        session.profile = replace(session.profile, shown=items, focus=-1)
        return Items(items, session.profile.rows)

    def switch_user(self, session: Session, user: str) -> None:
        """Restart as a user of the log, or as a new visitor for ''; RequestError for an unknown user."""
        session.switch_user(user, self.recommender.history_of(user) if user else ())

    def record_opinion(self, session: Session, row: int, opinion: str) -> None:
        """Record `like`, `dislike`, `seen` or `forget`; a disliked or seen row is removed from the list on display."""
        if not 0 <= row < len(self.catalog):
            raise RequestError(f"no row {row} in this catalogue; rows go from 0 to {len(self.catalog) - 1}")
        profile = session.profile.record_opinion(row, opinion)
        if opinion in {"dislike", "seen"}:
            profile = replace(profile, shown=tuple(item for item in profile.shown if item.row != row))
        session.profile = profile

    def remove_filter(self, session: Session, key: str) -> None:
        """Remove one active constraint; an unknown key changes nothing."""
        session.profile = replace(session.profile, filters=remove_constraint(session.profile.filters, key))

    def search(self, text: str, n: int = 6) -> list[int]:
        """Search the catalogue by title, by person, and else by similarity.

        Rows whose titles begin with or contain the text come first, then those of a person with that name, which may
        have typos. If there are none, rows with similarly spelt titles and those nearest in meaning are returned.
        """
        key = title_key(clean_text(text, 100))
        if not any(char.isalnum() for char in key):
            return []
        places = {row: spot for row, title in enumerate(self._titles) if (spot := f" {title}".find(f" {key}")) >= 0}
        found = sorted(places, key=lambda row: (places[row], len(self._titles[row]), row))[:n]
        if len(found) < n:
            found = list(dict.fromkeys((*found, *self._of_person(text))))[:n]
        if found or len(key) <= 3:
            return found
        near = [row for row in self.catalog.closest(key, min(n, 3)) if fuzz.ratio(key, self._titles[row]) >= _ALIKE]
        return list(dict.fromkeys((*near, *self.recommender.look_up(text, min(n, 3)))))[:n]

    def _of_person(self, text: str) -> list[int]:
        """Return the rows of the person that the whole text names, in catalogue order."""
        words = split_words(text)
        hits = self._parser.lexicon.find(words, set(), include_uncertain=True) if words else []
        whole = [hit for hit in hits if hit.first == 0 and hit.last == len(words) - 1 and hit.names_people]
        wanted = Filters(any_of={whole[0].entry.attribute: whole[0].entry.values}) if whole else None
        return [] if wanted is None else [int(row) for row in np.flatnonzero(self.catalog.where(wanted))]

    @cached_property
    def _titles(self) -> list[str]:
        return [title_key(item.title) for item in self.catalog.items]

    def _answer(self, session: Session, text: str, stop: threading.Event, started: float) -> Iterator[Event]:
        before, epoch = session.profile, session.epoch
        intent = parse_message(text, self.catalog, session, self.limits)
        if intent.kind == "undo":
            yield from self._undo(session)
            yield Done(time.monotonic() - started, False)
            return
        session.profile = update_profile(before, intent)
        try:
            reply = self._reply(session.profile, intent)
        except BaseException:
            session.profile = before
            raise
        if session.epoch != epoch:  # cleared, or handed to another visitor, while the list was made
            yield Done(time.monotonic() - started, True)
            return
        said, notices = [reply.facts], list(reply.notices)
        try:
            if reply.items is not None:
                asked = session.profile.asked or session.profile.blank
                session.profile = replace(session.profile, shown=reply.items, focus=-1, asked=asked)
                yield Items(reply.items, session.profile.rows)
            yield Token(reply.facts)
            if reply.items:
                for piece in self._words(session, text, reply, stop, notices):
                    said.append(piece)
                    yield Token(piece)
        finally:
            # also if the consumer has stopped early: the turn is recorded with the text so far
            if session.epoch == epoch:
                session.turns.append(
                    Turn(clean_text(text, self.limits.message_chars), "".join(said), tuple(notices), before)
                )
        for notice in notices:
            yield Notice(notice)
        seconds = time.monotonic() - started
        _log.info("turn kind=%s items=%d seconds=%.2f", intent.kind, len(reply.items or ()), seconds)
        yield Done(seconds, stop.is_set())

    def _undo(self, session: Session) -> Iterator[Event]:
        """Take back the last exchange at the visitor's request; as with the Undo button, no turn is recorded."""
        if not session.turns:
            yield Token("There is nothing to take back yet.")
            return
        session.profile = session.turns.pop().before
        if session.profile.shown:
            yield Items(session.profile.shown, session.profile.rows)
        yield Token(responses.undo_reply(session.profile))

    def _words(
        self, session: Session, text: str, reply: _Reply, stop: threading.Event, notices: list[str]
    ) -> Iterator[str]:
        """Yield the language model's text; a failure becomes a notice, since the list is valid without the text."""
        past = [line for turn in session.turns for line in (("user", turn.user), ("assistant", turn.reply))][
            -_DIALOGUE:
        ]
        asked = clean_text(text, self.limits.message_chars)
        deadline = time.monotonic() + self.limits.reply_seconds
        opened = False
        try:
            shown = reply.items or ()
            talk, said = self._talk or self.recommender.talk, [*past, ("user", asked)]
            for piece in talk(said, shown, self.limits.reply_tokens, stop):
                if stop.is_set():
                    return
                if piece and not opened:
                    opened = True
                    yield "\n\n"
                yield piece
                if time.monotonic() > deadline:
                    stop.set()
                    notices.append(f"I stopped writing after {self.limits.reply_seconds:g} seconds.")
                    return
        except UserError as error:
            notices.append(str(error))
        except Exception as error:
            # the type only: a message could carry the visitor's words into the log
            _log.warning("no words: %s", type(error).__name__)
            notices.append("The written part is not available right now; the list stands without it.")

    def _reply(self, profile: Profile, intent: Intent) -> _Reply:
        if intent.kind in {"empty", "smalltalk", "outside"}:
            return _Reply(
                responses.smalltalk_reply(intent.kind, intent.topic, self.catalog, self._parser.lexicon.example_values)
            )
        if intent.kind == "why":
            return _Reply(responses.explain_items(self.catalog, profile, intent.about), intent.notes)
        if intent.question:
            return _Reply(answer_question(self.catalog, intent.about, intent.question), intent.notes)
        if intent.kind == "reference":
            return _Reply(responses.describe_items(self.catalog, profile, intent.about), intent.notes)
        if intent.notes and not intent.is_actionable and not intent.message and intent.kind != "more":
            # the message holds only unknown or ambiguous names: asking back is better than a list that ignores them
            return _Reply(" ".join(intent.notes))
        items, dropped = self._list(profile)
        used = profile.filters
        for label in dropped:
            used = remove_constraint(used, next(one.key for one in constraints(used) if one.label == label))
        facts = responses.list_introduction(
            self.catalog, profile, intent, items, used, self._parser.lexicon.example_values
        )
        notices = responses.shortfall_notices(self.catalog, profile, items, dropped, self._length(profile))
        unknown = responses.unknown_notices(self.catalog, used)
        return _Reply(facts, (*intent.notes, *notices, *unknown), items)

    def _length(self, profile: Profile) -> int:
        return min(profile.k or self.limits.default_k, self.limits.k)

    def _list(self, profile: Profile) -> tuple[tuple[Recommendation, ...], tuple[str, ...]]:
        """Return the items, and the labels of constraints relaxed because nothing fitted."""
        request, dropped = self.request(profile)
        more = min(request.k + self.catalog.repeated_labels, 2 * request.k, max(request.k, self.limits.k))
        shown: dict[str, Recommendation] = {}  # two entries with the same label would look like the same item twice
        for item in self.recommender.recommend(replace(request, k=more)):
            shown.setdefault(self.catalog.label(item.row), item)
        return tuple(shown.values())[: request.k], dropped

    def request(self, profile: Profile) -> tuple[Request, tuple[str, ...]]:
        """Return the request for a profile, and the labels of the constraints that were relaxed."""
        return build_request(profile, self.catalog, Request(k=self._length(profile)))
