"""Logs failures of the page without any data that a visitor sent.

When a component or handler fails, Gradio prints the values it failed on to standard error, and the choices of a list.
Here only the kind of failure and its place are logged.
"""

from __future__ import annotations

import logging
from pathlib import Path
from traceback import walk_tb
from typing import Any

import gradio as gr

_log = logging.getLogger(__name__)
_FRAMES = 6  # innermost places that are logged
_SAID = "that did not work; reload the page, or check what was sent"


class PrivateErrorBlocks(gr.Blocks):
    """Blocks that answer every failure of an event with a general error message."""

    async def process_api(self, *given: Any, **options: Any) -> dict[str, Any]:
        """Process an event as Gradio does.

        Errors that handlers raise on purpose pass through; of all others, only the kind and place are logged.
        """
        try:
            found: dict[str, Any] = await super().process_api(*given, **options)
            return found
        except Exception as error:
            if isinstance(error, gr.Error) and not error.print_exception:
                raise
            _log.warning("an event failed: %s", describe_failure(error))
        raise gr.Error(_SAID, print_exception=False)


def describe_failure(error: BaseException) -> str:
    """Return the type of an error, or of its root cause, and the places where it was raised; never its message."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__)]
    places = [f"{path.parent.name}/{path.name}:{line}" for path, line in frames[-_FRAMES:]]
    return " < ".join([type(error).__name__, *reversed(places)])
