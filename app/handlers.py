"""What the page and the endpoints do, without Gradio: a request comes in as plain values, a View goes out.

Nothing that a browser sends is believed: the conversation lives in the server's session, positions and
choices are looked up there, and every bound is checked again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from llmrec.app import present
from llmrec.app.limits import Sessions
from llmrec.catalog import Catalog, clean_text
from llmrec.chat import Chat, Done, Items, Notice, Token
from llmrec.errors import RequestError
from llmrec.narrow import constraints
from llmrec.session import Profile, Session
from llmrec.understand import reader

CARDS = 20
_FRAME = 0.12  # seconds between two redraws while words come in
_SUGGESTIONS = 4
_USERS = 2_000
_MARK = " \N{MIDDLE DOT} "


@dataclass(frozen=True)
class View:
    """The page as it should look; `words_only` when nothing but the last message changed.

    Attributes:
        messages: for the chat window.
        heading: HTML above the cards.
        cards: (HTML, opinion) for each; opinion is `like` or ''.
        rest: HTML for items beyond the cards.
        opinions: for liked, disliked and seen: (label, value) pairs.
        filters: (label, label) pairs; labels differ within one set of filters.
        suggestions: texts that a button offers to send.
        writing: whether a reply is being written.
    """

    messages: list[dict[str, str]]
    heading: str = ""
    cards: tuple[tuple[str, str], ...] = ()
    rest: str = ""
    opinions: tuple[tuple[tuple[str, str], ...], ...] = ((), (), ())
    filters: tuple[tuple[str, str], ...] = ()
    suggestions: tuple[str, ...] = ()
    writing: bool = False
    words_only: bool = False


class Handlers:
    """The actions of one served recommender."""

    def __init__(self, chat: Chat, sessions: Sessions) -> None:
        self.chat, self.sessions = chat, sessions
        self.catalog: Catalog = chat.catalog
        self._lexicon = reader(self.catalog).lexicon

    def view(self, session: Session) -> View:
        """Return the whole page for a session at rest."""
        return self._view(session, present.messages(session), writing=False)

    def start(self, session: Session) -> View:
        """Fill an empty page with popular items."""
        if not session.profile.shown and not session.turns:
            self.chat.picks(session)
        return self.view(session)

    def say(self, session: Session, message: object) -> Iterator[View]:
        """Answer a message.

        Raises:
            RequestError: the message exceeds a bound, or another reply is being written.
        """
        asked = self.checked(session, message)
        if session.busy:
            raise RequestError("the last reply is still being written; press Stop first")
        shown = clean_text(asked, self.chat.limits.message_chars)
        done = len(session.turns)
        reply, drawn = "", time.monotonic()
        yield self._view(session, present.messages(session, shown, ""), writing=True)
        for event in self.chat.turn(session, asked):
            now = time.monotonic()
            if isinstance(event, Items):
                yield self._view(session, present.messages(session, shown, reply), writing=True)
            elif isinstance(event, Token):
                reply += event.text
                if now - drawn > _FRAME:
                    drawn = now
                    yield View(present.messages(session, shown, reply), writing=True, words_only=True)
            elif isinstance(event, Notice) and len(session.turns) == done:
                raise RequestError(event.text)
            elif isinstance(event, Done):
                yield self.view(session)

    def suggested(self, session: Session, place: int) -> str:
        """Return the text of a suggestion button, from the session's own list."""
        offered = self.suggestions(session)
        if not 0 <= place < len(offered):
            raise RequestError("that suggestion is no longer offered")
        return offered[place]

    def stop(self, session: Session) -> None:
        """End the words of the running reply."""
        session.stop()

    def clear(self, session: Session) -> View:
        """Forget the conversation."""
        session.clear()
        return self.start(session)

    def undo(self, session: Session) -> tuple[str, View]:
        """Take back the last turn; returns what was typed."""
        asked = session.undo()
        return asked, self.start(session)

    def rewind(self, session: Session, message: object) -> str:
        """Go back to before the turn that a chat message belongs to; returns what was typed then."""
        if not isinstance(message, int) or isinstance(message, bool):
            raise RequestError(f"message number {str(message)[:20]!r} is not a whole number")
        return session.rewind(message // 2)

    def judge(self, session: Session, place: int, opinion: str) -> View:
        """Give an opinion on a card by its place; the same opinion twice takes it back."""
        rows = session.profile.rows
        if not 0 <= place < len(rows):
            raise RequestError("that card is no longer on the page")
        row = rows[place]
        again = opinion == "like" and row in session.profile.liked
        self.chat.judge(session, row, "forget" if again else opinion)
        return self.view(session)

    def keep(self, session: Session, left: object, which: str) -> View:
        """Take back the opinions whose pills were removed: `left` holds the rows that stay."""
        rows: tuple[int, ...] = getattr(session.profile, which)
        stay = _texts(left)
        for row in rows:
            if self._pill(row)[1] not in stay:
                self.chat.judge(session, row, "forget")
        return self.view(session)

    def keep_filters(self, session: Session, left: object) -> View:
        """Take away the constraints whose pills were removed, and list anew."""
        stay = _texts(left)
        for one in constraints(session.profile.filters):
            if one.label not in stay:
                self.chat.unfilter(session, one.key)
        self.chat.picks(session)
        return self.view(session)

    def search(self, typed: object) -> list[tuple[str, str]]:
        """Return (label, value) of items whose title fits what was typed."""
        words = clean_text(typed, 100) if isinstance(typed, str) else ""
        return [self._pill(row) for row in self.chat.search(words)]

    def add(self, session: Session, chosen: object) -> View:
        """Like the items chosen from the search results."""
        for one in sorted(_texts(chosen)):
            number = one.rpartition(_MARK)[2]
            if not (number.isascii() and number.isdecimal()) or len(number) > 12:
                raise RequestError("that is no item of this catalogue")
            self.chat.judge(session, int(number), "like")
        return self.view(session)

    def users(self) -> list[tuple[str, str]]:
        """Return (label, id) of the visitors one can play; the first is a new one."""
        known = sorted(self.chat.recommender.users, key=lambda one: (len(one), one))[:_USERS]
        return [("New visitor", ""), *((f"User {one}", one) for one in known)]

    def become(self, session: Session, user: object) -> View:
        """Start afresh as another visitor."""
        self.chat.become(session, user if isinstance(user, str) else "")
        return self.start(session)

    def suggestions(self, session: Session) -> tuple[str, ...]:
        """Return up to four texts worth sending next."""
        if session.turns:
            return self._critiques(session.profile)
        main, profile = self._lexicon.main, session.profile
        title = self.catalog[profile.rows[0]].title if profile.rows else ""
        first = [f"I loved {title}"] if title and len(title) <= 40 else []
        if main and self._lexicon.year:
            first.append(f"{main[min(1, len(main) - 1)]} from the {self._decade()}s")
        if len(main) > 2:
            first.append(f"{main[0]}, but no {main[2]}")
        return (*first, "Surprise me")[:_SUGGESTIONS]

    def _critiques(self, profile: Profile) -> tuple[str, ...]:
        if not profile.shown:
            return ("Forget the filters", "Surprise me")
        years = ("Newer", "Older") if self._lexicon.year else ()
        asked = (*profile.filters.any_of.values(), *profile.filters.all_of.values())
        wanted = {value for values in asked for value in values}
        counts = Counter(
            value
            for row in profile.rows
            for values in self.catalog[row].attributes.values()
            if isinstance(values, tuple)
            for value in values
            if value not in wanted
        )
        less = [f"No {counts.most_common(1)[0][0]}"] if counts else []
        return ("Something else", "Why these?", *less, *years)[:_SUGGESTIONS]

    def _decade(self) -> int:
        years = sorted(reader(self.catalog).years)
        return years[len(years) // 2] // 10 * 10 if years else 0

    def checked(self, session: Session, message: object) -> str:
        """Return the message when it is text within bounds; RequestError says what is wrong otherwise."""
        if not isinstance(message, str):
            raise RequestError(f"the message is of type {type(message).__name__}; send text")
        refusal = self.chat.refusal(session, message)
        if refusal:
            raise RequestError(refusal)
        return message

    def _view(self, session: Session, messages: list[dict[str, str]], writing: bool) -> View:
        profile = session.profile
        cards = [
            (
                present.card(self.catalog, item, place, self._lexicon.year),
                "like" if item.row in profile.liked else "",
            )
            for place, item in enumerate(profile.shown[:CARDS], start=1)
        ]
        return View(
            messages=messages,
            heading=present.heading(self.catalog, session),
            cards=tuple(cards),
            rest=present.rest(self.catalog, profile.shown[CARDS:], CARDS + 1),
            opinions=tuple(self._pills(rows) for rows in (profile.liked, profile.disliked, profile.seen)),
            filters=tuple((one.label, one.label) for one in constraints(profile.filters)),
            suggestions=() if writing else self.suggestions(session),
            writing=writing,
        )

    def _pills(self, rows: tuple[int, ...]) -> tuple[tuple[str, str], ...]:
        return tuple(self._pill(row) for row in rows)

    def _pill(self, row: int) -> tuple[str, str]:
        """The label, and the value behind it: browsers show the value as a tip, so it reads well too."""
        label = present.label(self.catalog, row)
        return label, f"{label}{_MARK}{row}"


def _texts(value: object) -> set[str]:
    return {one for one in value if isinstance(one, str)} if isinstance(value, list) else set()
