"""Deprecated spelling of `llmrec.data.filters`, kept for one release."""

import warnings

from llmrec.data.filters import *  # noqa: F403

warnings.warn(
    "llmrec.filters is llmrec.data.filters now; public names come from llmrec", DeprecationWarning, stacklevel=2
)
