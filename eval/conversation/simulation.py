"""Plays a simulated user's dialogue against the chat, as the page does, and measures the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from llmrec.dialogue.chat import Chat, Items, Notice, Token
from llmrec.eval.conversation.user_state import Step, UserState
from llmrec.eval.conversation.writer import Dialogue
from llmrec.nlu.state import Profile, Session
from llmrec.recommender import Recommender


class StagedRecommender:
    """What the chat sees of a recommender; the language model speaks only while `words` is true."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender, self.words = recommender, True

    def __getattr__(self, name: str) -> Any:
        """Everything else is the recommender's own."""
        return getattr(self._recommender, name)

    def talk(self, *args: object, **kwargs: object) -> Iterator[str]:
        """As `Recommender.talk`, or nothing."""
        return self._recommender.talk(*args, **kwargs) if self.words else iter(())  # type: ignore[arg-type]


@dataclass(frozen=True)
class ChatAnswer:
    """What came of one message.

    Attributes:
        rows: the new list, best first; None when the list stayed.
        reasons: beside its items.
        facts: the text written by program.
        words: the language model's own sentences.
        notices: remarks beside the reply.
        profile: the session's profile after the turn.
        seconds: from the message to the list (`items`), the first text (`text`), the model's first word (`word`) and
            the end (`reply`); what did not come is not in it.
        spoken: whether the language model was asked to speak.
        error: the type of an exception that came out of the chat, or ''.
    """

    rows: tuple[int, ...] | None
    reasons: tuple[str, ...]
    facts: str
    words: str
    notices: tuple[str, ...]
    profile: Profile
    seconds: dict[str, float]
    spoken: bool
    error: str = ""


@dataclass(frozen=True)
class PlayedTurn:
    """One step as it was played: the state before and after it, and the answer."""

    step: Step
    before: UserState
    after: UserState
    answer: ChatAnswer


def play_dialogue(recommender: Recommender, dialogue: Dialogue, speaking: int) -> list[PlayedTurn]:
    """Say everything in order in one new session.

    Args:
        recommender: the product.
        dialogue: what to say.
        speaking: place of the one step at which the language model speaks as well, -1 for none.
    """
    stage = StagedRecommender(recommender)
    chat = Chat(cast(Recommender, stage))
    session = Session("measured")
    session.switch_user("measured" if dialogue.history else "", dialogue.history)
    state = UserState(history=dialogue.history)
    turns: list[PlayedTurn] = []
    kept: list[UserState] = []  # what held before each exchange that the session still has
    for place, step in enumerate(dialogue.steps):
        stage.words = place == speaking
        before = state
        if step.act == "undo":
            session.undo()
            state = kept.pop()
            answer = ChatAnswer(None, (), "", "", (), session.profile, {}, False)
        elif any(spot > len(state.shown) for spot in step.places) or (step.places and not state.shown):
            break  # the list is shorter than the writer could know; what follows would mean nothing
        else:
            kept.append(state)
            answer = send_message(chat, session, step.text, stage.words)
            state = state.after(step, chat.catalog)
            state = state if answer.rows is None else replace(state, shown=answer.rows)
        turns.append(PlayedTurn(step, before, state, answer))
    return turns


def send_message(chat: Chat, session: Session, text: str, spoken: bool) -> ChatAnswer:
    """Type a message; an exception is an answer too, the worst one."""
    started = time.monotonic()
    seconds: dict[str, float] = {}
    items: Items | None = None
    tokens: list[str] = []
    notices: list[str] = []
    error = ""
    try:
        for event in chat.turn(session, text):
            now = time.monotonic() - started
            if isinstance(event, Items):
                items = event
                seconds["items"] = now
            elif isinstance(event, Token):
                seconds.setdefault("word" if tokens else "text", now)
                tokens.append(event.text)
            elif isinstance(event, Notice):
                notices.append(event.text)
    except Exception as failure:
        error = type(failure).__name__
    seconds["reply"] = time.monotonic() - started
    rows = None if items is None else items.rows
    reasons = () if items is None else tuple(item.reason for item in items.items)
    words = "".join(tokens[1:]).strip()
    return ChatAnswer(
        rows, reasons, "".join(tokens[:1]), words, tuple(notices), session.profile, seconds, spoken, error
    )
