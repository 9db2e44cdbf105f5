"""Asks the recommender as a person does: types a message into the chat of a known user or a new visitor."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, cast

import numpy as np

from llmrec.checkpoint.pretrained import load_pretrained
from llmrec.data.interactions import Split, leave_one_out
from llmrec.dialogue.chat import Chat, Items, Limits, Notice, Token
from llmrec.errors import ArtifactError
from llmrec.lm.model import RecModel
from llmrec.nlu.state import Profile, Session
from llmrec.ranking.scorer import Scorer, ScoringQuery
from llmrec.recommender import SHIPPED, Recommendation, Recommender, Request

REPLY_SECONDS = 600.0  # what is said must not depend on how quick the machine is; tokens stay limited

CACHED_REQUESTS = 24  # requests; what was read for one is some 20 MB with the shipped model


@dataclass(frozen=True, eq=False)
class CachingScorer(Scorer):
    """A scorer that keeps what was read for the latest requests; lists do not depend on that.

    Attributes:
        kept: how many requests.
        memory: requests by history and message, the latest last.
    """

    kept: int = CACHED_REQUESTS
    memory: OrderedDict[tuple[bytes, str], ScoringQuery] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, scorer: Scorer, kept: int = CACHED_REQUESTS) -> Self:
        """The same scorer, remembering."""
        return cls(**{one.name: getattr(scorer, one.name) for one in fields(Scorer)}, kept=kept)

    def query(self, history: np.ndarray, message: str = "") -> ScoringQuery:
        """As `Scorer.ask`."""
        key = (np.asarray(history, np.int64).tobytes(), message)
        if key not in self.memory:
            self.memory[key] = super().query(history, message)
            if len(self.memory) > self.kept:
                self.memory.popitem(last=False)
        self.memory.move_to_end(key)
        return self.memory[key]


class ChatRecommender:
    """What the chat sees of a recommender: the caller's candidates go into every request, words only if wanted."""

    def __init__(self, recommender: Recommender, candidates: tuple[int, ...] | None, words: bool) -> None:
        self._recommender, self._candidates, self._words = recommender, candidates, words

    def __getattr__(self, name: str) -> Any:
        """Everything else is the recommender's own, whatever the chat comes to ask it for."""
        return getattr(self._recommender, name)

    def recommend(self, request: Request) -> list[Recommendation]:
        """As `Recommender.recommend`, of the candidates only when there are any."""
        if self._candidates is not None:
            request = replace(request, candidates=self._candidates)
        return self._recommender.recommend(request)

    def talk(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        """As `Recommender.talk` with time enough, or nothing."""
        if not self._words:
            return iter(())
        return self._recommender.talk(*args, **{**kwargs, "seconds": REPLY_SECONDS})


@dataclass(frozen=True)
class Reply:
    """What the chat answered to one message.

    Attributes:
        items: the list, best first; empty when it answered without one.
        facts: the sentence written by program.
        words: the language model's own sentences.
        notices: remarks beside the reply.
        profile: the session's profile after the turn.
    """

    items: tuple[Recommendation, ...]
    facts: str
    words: str
    notices: tuple[str, ...]
    profile: Profile

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of the list, best first."""
        return tuple(item.row for item in self.items)


def ask_chat(
    recommender: Recommender,
    text: str,
    history: Sequence[int] = (),
    candidates: Sequence[int] | None = None,
    words: bool = False,
    k: int = 10,
) -> Reply:
    """Type a message into a new conversation.

    Args:
        recommender: the product.
        text: the message.
        history: what the log holds of the user, oldest first; none makes a new visitor.
        candidates: rank these rows only, in the order in which the caller lists them.
        words: let the language model speak as well (seconds a reply).
        k: list length when the message names none.
    """
    front = ChatRecommender(recommender, None if candidates is None else tuple(candidates), words)
    chat = Chat(cast(Recommender, front), Limits(default_k=k, reply_seconds=REPLY_SECONDS))
    session = Session("measured")
    session.switch_user("measured" if len(history) else "", tuple(int(row) for row in history))
    items: tuple[Recommendation, ...] = ()
    tokens: list[str] = []
    notices: list[str] = []
    for event in chat.turn(session, text):
        if isinstance(event, Items):
            items = event.items
        elif isinstance(event, Token):
            tokens.append(event.text)
        elif isinstance(event, Notice):
            notices.append(event.text)
    return Reply(items, "".join(tokens[:1]), "".join(tokens[1:]).strip(), tuple(notices), session.profile)


def open_evaluated_model(model: str | Path | None, data: str | Path | None) -> tuple[Recommender, Split]:
    """The model, with a scorer that remembers, and the split that it was trained on.

    Raises:
        ArtifactError: the model was trained on another train part than this data's.
    """
    loaded = Recommender.from_pretrained(model, data)
    split = leave_one_out(loaded.interactions)
    trained = loaded.model_card.get("train_fingerprint")
    if trained != split.train.fingerprint:
        raise ArtifactError(
            f"the model was trained on the train part {str(trained)[:16]}, this data has "
            f"{split.train.fingerprint[:16]}: measuring it here would mix train and test"
        )
    return with_caching_scorer(loaded), split


def with_caching_scorer(recommender: Recommender) -> Recommender:
    """The same recommender with a scorer that remembers."""
    return Recommender(
        recommender.catalog,
        recommender.interactions,
        CachingScorer.of(recommender.scorer),
        recommender.fusions,
        recommender.model_card,
        recommender.data_name,
    )


def open_base_model(model: str | Path | None, recommender: Recommender) -> RecModel:
    """The bundle a second time, LoRA not merged, so that `base_only()` gives the base model as published."""
    return load_pretrained(SHIPPED if model is None else Path(model), recommender.catalog).model
