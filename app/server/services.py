"""Services that all parts of the page share; built once at the start of the server and never changed."""

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
        chat: holds conversations; its `recommender` answers single requests, and its `limits` apply to both.
        sessions: visitor sessions; a tab finds its visitor with `sessions.get(request.session_hash, username)`.
        settings: settings of the server.
        feedback: the append-only log of reactions, or None if nothing is recorded.
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
        """Limits of a request."""
        return self.chat.limits

    @property
    def model(self) -> dict[str, Any]:
        """Options for Gradio events that run the model."""
        shared = {"concurrency_id": "model", "concurrency_limit": self.settings.concurrency}
        return {**shared, **self.quick}

    @property
    def quick(self) -> dict[str, Any]:
        """Options for Gradio events that answer at once; like all events of the page, they are private."""
        return {"show_progress": "hidden", "api_visibility": "private"}
