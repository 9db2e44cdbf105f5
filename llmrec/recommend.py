"""Deprecated spelling of `llmrec.recommender`, kept for one release."""

import warnings

from llmrec.recommender import *  # noqa: F403

warnings.warn(
    "llmrec.recommend is llmrec.recommender now; public names come from llmrec", DeprecationWarning, stacklevel=2
)
