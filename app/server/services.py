"""What all parts of the page share: built once at the start of the server and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmrec.app.server.guard import Sessions
from llmrec.app.server.settings import Settings
from llmrec.dialogue.chat import Chat
from llmrec.nlu.state import Limits

if TYPE_CHECKING:
    from llmrec.app.server.feedback import FeedbackLog
    from llmrec.recommender import Recommender


@dataclass(frozen=True)
class Services:
    """The services of one served recommender.

    Attributes:
        chat: conversations; its `recommender` answers single requests, its `limits` bound both.
        sessions: who is remembered; a tab finds its visitor with `sessions.get(request.session_hash, username)`.
        settings: how the page is served.
        feedback: the append-only log of reactions, or None when nothing is to be recorded.
    """

    chat: Chat
    sessions: Sessions
    settings: Settings
    feedback: FeedbackLog | None = None

    @property
    def recommender(self) -> Recommender:
        """The served recommender."""
        return self.chat.recommender

    @property
    def limits(self) -> Limits:
        """Bounds of a request."""
        return self.chat.limits

    @property
    def model(self) -> dict[str, Any]:
        """Options of a Gradio event that runs the model."""
        shared = {"concurrency_id": "model", "concurrency_limit": self.settings.concurrency}
        return {**shared, **self.quick}

    @property
    def quick(self) -> dict[str, Any]:
        """Options of a Gradio event that answers at once; like all events of the page it is private."""
        return {"show_progress": "hidden", "api_visibility": "private"}
