"""Deprecated spelling of `llmrec.dialogue.chat`, kept for one release."""

import warnings

from llmrec.dialogue.chat import *  # noqa: F403

warnings.warn(
    "llmrec.chat is llmrec.dialogue.chat now; public names come from llmrec", DeprecationWarning, stacklevel=2
)
