"""Event handlers of the page, independent of Gradio: they take plain values and return a View.

Nothing that a browser sends is trusted. The conversation is kept in the server's session, buttons send a verb and a
number that is looked up on the server, and every limit is checked again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from llmrec.app.server.guard import Visit, checked_message
from llmrec.app.server.services import Services
from llmrec.app.web import saved_conversations
from llmrec.app.web.html import cards, side_panel
from llmrec.app.web.html.trace import trace_drawer
from llmrec.app.web.suggestions import suggest
from llmrec.data.catalog import Catalog, clean_text
from llmrec.data.constraints import constraints
from llmrec.dialogue.chat import Chat, Done, Items, Notice, Token
from llmrec.dialogue.trace import trace_request
from llmrec.errors import RequestError
from llmrec.nlu.parser import parser_context
from llmrec.nlu.state import Profile
from llmrec.nlu.wording import domain_verbs
from llmrec.storage.registry import cache_home

_FRAME = 0.12  # seconds between two redraws while text is streamed
_USERS = 2_000
_LONGEST_ACT = 60_000
_NOTES = {"like": "Noted, you like", "dislike": "Not for you:", "seen": "Noted as {done}:", "forget": "Removed:"}


@dataclass(frozen=True)
class View:
    """The state of the page to display.

    Attributes:
        messages: messages of the chat window.
        heading: HTML above the list.
        cards: HTML of the list.
        offers: HTML of the chips with suggested messages.
        profile: HTML of the side panel.
        writing: whether a reply is being written.
        words_only: whether only the last message changed.
        beside: whether another event is writing a reply, so that its part of the page must not be updated.
        kept: the sealed conversation for the visitor's browser, or None if it is not stored there.
    """

    messages: list[dict[str, str]]
    heading: str = ""
    cards: str = ""
    offers: str = ""
    profile: str = ""
    writing: bool = False
    words_only: bool = False
    beside: bool = False
    kept: str | None = None


class Handlers:
    """The actions of one served recommender."""

    def __init__(self, services: Services) -> None:
        self.services, self.sessions = services, services.sessions
        self.chat: Chat = services.chat
        self.catalog: Catalog = services.chat.catalog
        self._tools = parser_context(self.catalog)
        self._key = saved_conversations.server_key(cache_home() / "conversations.key")

    def view(self, visit: Visit, note: str = "") -> View:
        """Return the whole page for a session without a reply in progress; `note` says what has just been done."""
        return replace(self._view(visit, cards.chat_messages(visit), writing=False, note=note), beside=visit.busy)

    def start(self, visit: Visit, kept: object = None) -> View:
        """Fill an empty page with the conversation stored in the visitor's browser, or else with popular items."""
        note = ""
        if isinstance(kept, dict) and kept.get("keep") is True and not visit.turns:
            visit.keep = True
            try:
                saved_conversations.restore(visit, str(kept.get("sealed", "")), self.chat, self._key)
            except RequestError as error:
                note = f"Nothing was restored: {error}."
        if not visit.profile.shown and not visit.turns:
            self._list(visit)
        return self.view(visit, note)

    def say(self, visit: Visit, message: object) -> Iterator[View]:
        """Answer a message.

        Raises:
            RequestError: the message exceeds a limit, or another reply is being written.
        """
        asked = checked_message(self.chat, visit, message)
        if visit.busy:
            raise RequestError("the last reply is still being written; press Stop first")
        shown = clean_text(asked, self.chat.limits.message_chars)
        done, seconds, visit.tried = len(visit.turns), dict[str, float](), ()
        reply, started = "", time.monotonic()
        drawn = started
        yield self._view(visit, cards.chat_messages(visit, shown, ""), writing=True)
        for event in self.chat.turn(visit, asked):
            now = time.monotonic()
            if isinstance(event, Items):
                visit.asked = self.chat.request(visit.profile)[0]
                seconds["list"] = now - started
                yield self._view(visit, cards.chat_messages(visit, shown, reply), writing=True)
            elif isinstance(event, Token):
                reply += event.text
                first = "first word" not in seconds
                seconds.setdefault("first word", now - started)
                if first or now - drawn > _FRAME:
                    drawn = now
                    yield View(cards.chat_messages(visit, shown, reply), writing=True, words_only=True)
            elif isinstance(event, Notice) and len(visit.turns) == done:
                raise RequestError(event.text)
            elif isinstance(event, Done):
                visit.seconds = (*seconds.items(), ("whole reply", now - started))
                # the reply to a message that adds no turn, such as "undo that", is shown above the list
                aside = reply if len(visit.turns) <= done else ""
                yield self._view(visit, cards.chat_messages(visit), writing=False, note=aside)

    def ask(self, visit: Visit, sent: object) -> Iterator[View]:
        """Answer a button that sends a message for the visitor: a suggestion, or `more like this` on a card."""
        verb, number = _verb(sent)
        if verb == "more":
            row = self._row(number)
            self._record(visit, row, "more")
            yield from self.say(visit, f"More like {self.catalog.label(row)}")
        elif verb == "say":
            offered = {side_panel.text_key(text): text for text in self.suggestions(visit)}
            if number not in offered:
                raise RequestError("that suggestion is no longer offered")
            yield from self.say(visit, offered[number])
        else:
            raise RequestError("the page knows no such button; reload it")

    def act(self, visit: Visit, sent: object) -> View:
        """Apply the action of a button on a card or in the side panel, and update the list."""
        verb, number = _verb(sent)
        if verb == "import":
            note = saved_conversations.import_conversation(visit, number, self.chat, self._key)
            return self.view(visit, note or "The conversation was restored.")
        if verb in {"like", "dislike", "seen", "forget", "add"}:
            row, opinion = self._row(number), "like" if verb == "add" else verb
            self._record(visit, row, opinion)
            self.chat.record_opinion(visit, row, opinion)
            note = f"{_NOTES[opinion].format(done=domain_verbs(self.catalog.domain).done)} {self.catalog.label(row)}."
        elif verb == "unfilter":
            gone = [one for one in constraints(visit.profile.filters) if side_panel.text_key(one.key) == number]
            for one in gone:
                self.chat.remove_filter(visit, one.key)
            note = f"Removed: {gone[0].label}." if gone else ""
        elif verb == "unwish":
            visit.profile, note = replace(visit.profile, wish=""), "Your request was cleared."
        else:
            raise RequestError("the page knows no such button; reload it")
        self._list(visit)
        return self.view(visit, note)

    def clear(self, visit: Visit) -> View:
        """Delete the conversation and start again."""
        visit.clear()
        return self.start(visit)

    def undo(self, visit: Visit) -> tuple[str, View]:
        """Take back the last turn; returns its message and the page."""
        asked = visit.undo()
        visit.asked, visit.seconds = None, ()
        return asked, self.start(visit)

    def retry(self, visit: Visit) -> Iterator[View]:
        """Answer the last message again, without the items that were listed before.

        Raises:
            RequestError: no other item fits, so only the same list would be possible.
        """
        if not visit.turns or visit.busy:
            return
        before, rows = visit.turns[-1].before, visit.profile.rows
        tried = visit.tried
        if rows and rows != before.rows:
            tried = tuple(dict.fromkeys((*tried, *rows)))
            now, later = visit.profile, _without(visit.profile, tried)
            if self.chat.request(later)[1] != self.chat.request(now)[1] or not self._left(later):
                raise RequestError("nothing else fits; take a constraint away for another list")
        shown, asked = visit.profile.shown, visit.undo()
        # the old list stays on display until there is a new one
        visit.profile = replace(_without(before, tried), shown=shown)
        done = len(visit.turns)
        try:
            yield from self.say(visit, asked)
        finally:
            visit.tried = tried
            if len(visit.turns) > done:  # undo goes back to before the first try
                visit.turns[-1] = replace(visit.turns[-1], before=before)

    def rewind(self, visit: Visit, message: object) -> str:
        """Go back to the state before the turn of a chat message; returns the message of that turn."""
        if not isinstance(message, int) or isinstance(message, bool):
            raise RequestError(f"message number {str(message)[:20]!r} is not a whole number")
        return visit.rewind(message // 2)

    def search(self, typed: object) -> str:
        """Return HTML of the items whose title matches the typed text."""
        words = clean_text(typed, 100) if isinstance(typed, str) else ""
        return side_panel.search_results(self.catalog, self.chat.search(words), bool(words.strip()))

    def users(self) -> list[tuple[str, str]]:
        """Return (label, id) of the users that a visitor can act as; the first is a new visitor."""
        known = sorted(self.chat.recommender.users, key=lambda one: (len(one), one))[:_USERS]
        return [("New visitor", ""), *((f"User {one}", one) for one in known)]

    def become(self, visit: Visit, user: object) -> View:
        """Start a new conversation as another user."""
        self.chat.switch_user(visit, user if isinstance(user, str) else "")
        return self.start(visit)

    def keep(self, visit: Visit, on: object) -> View:
        """Set whether the conversation is stored in the visitor's browser."""
        visit.keep = on is True
        return self.view(visit)

    def share(self, visit: Visit, on: object) -> None:
        """Set whether the visitor's messages may be recorded with reactions."""
        visit.words = on is True

    def export(self, visit: Visit) -> str:
        """Return HTML that holds the conversation as JSON."""
        return cards.exported_conversation(saved_conversations.export_conversation(visit, self.chat, self._key))

    def explain(self, visit: Visit) -> str:
        """Return HTML that explains how the displayed list was made."""
        request = visit.asked or self.chat.request(visit.profile)[0]
        return trace_drawer(self.catalog, trace_request(self.chat.recommender, request), visit.seconds)

    def suggestions(self, visit: Visit) -> tuple[str, ...]:
        """Return a few suggestions for the next message."""
        return suggest(self.catalog, self._tools.lexicon, self._tools.years, visit)

    def _list(self, visit: Visit) -> None:
        visit.asked, visit.seconds = self.chat.request(visit.profile)[0], ()
        self.chat.current_list(visit)

    def _left(self, profile: Profile) -> bool:
        request = self.chat.request(profile)[0]
        mask = self.catalog.where(request.filters).copy()
        mask[list(request.exclude)] = False
        return bool(mask.any())

    def _row(self, number: str) -> int:
        if not (number.isascii() and number.isdecimal() and len(number) <= 12 and int(number) < len(self.catalog)):
            raise RequestError("that is no item of this catalogue")
        return int(number)

    def _record(self, visit: Visit, row: int, reaction: str) -> None:
        if self.services.feedback is not None:
            words = visit.turns[-1].user if visit.words and visit.turns else None
            shown = [self.catalog[one].id for one in visit.profile.rows]
            self.services.feedback.react(visit.id, self.catalog[row].id, reaction, shown, words)

    def _view(self, visit: Visit, messages: list[dict[str, str]], writing: bool, note: str = "") -> View:
        offers = () if writing else self.suggestions(visit)
        return View(
            messages=messages,
            heading=cards.list_heading(self.catalog, visit, note),
            cards=cards.item_cards(self.catalog, visit.profile.shown, self._tools.lexicon.year),
            offers=cards.suggestion_chips([(f"say:{side_panel.text_key(text)}", text) for text in offers]),
            profile=side_panel.profile_panel(self.catalog, visit.profile),
            writing=writing,
            kept=saved_conversations.seal(visit, self.chat, self._key) if visit.keep and not writing else None,
        )


def _without(profile: Profile, rows: tuple[int, ...]) -> Profile:
    return replace(profile, passed=tuple(dict.fromkeys((*profile.passed, *rows))))


def _verb(sent: object) -> tuple[str, str]:
    """Split `verb:argument` from a button; the page appends `#` and a counter, so that no two values are equal."""
    if not isinstance(sent, str) or len(sent) > _LONGEST_ACT or ":" not in sent:
        raise RequestError("the page knows no such button; reload it")
    verb, _, argument = sent.partition(":")
    return verb, argument if verb == "import" else argument.partition("#")[0]
