"""Checks that the server can write its state, the feedback file and temporary files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from llmrec.app.server.feedback import open_feedback
from llmrec.app.server.settings import Settings
from llmrec.errors import UserError

TEMPORARY = "GRADIO_TEMP_DIR"


def directory_problem(folder: Path) -> str:
    """Why nothing can be written below a folder, which may not be there yet; "" when it can. Leaves nothing behind."""
    place = Path(os.path.abspath(folder))
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if os.path.lexists(place) and not place.is_dir():
        return f"{place} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=place):
            return ""
    except OSError as error:
        return f"{place} cannot be written: {error.strerror or error}"


def file_problem(file: Path) -> str:
    """Why a file that grows beside helpers of its own, as SQLite's do, cannot be written; "" when it can."""
    if not os.path.lexists(file):
        return directory_problem(file.parent)
    try:
        with file.open("r+b"):
            return directory_problem(file.parent)
    except OSError as error:
        return f"{file} cannot be written: {error.strerror or error}"


def temporary_directory() -> Path:
    """The folder in which Gradio makes folders when it starts.

    Raises:
        UserError: this machine has no folder for temporary files.
    """
    try:
        return Path(os.environ.get(TEMPORARY) or Path(tempfile.gettempdir()) / "gradio")
    except OSError as error:
        raise UserError(f"{error.strerror or error}: set TMPDIR to a folder that can be written") from None


def check_writable(settings: Settings) -> None:
    """Refuse to start where the page could not be served; what can be done without is not looked at.

    Raises:
        UserError: the feedback file or the folder of temporary files cannot be written; names it, and the setting that
            moves it.
    """
    if why := directory_problem(temporary_directory()):
        raise UserError(f"no place for temporary files: {why}; set {TEMPORARY} to a folder that can be written")
    kept = open_feedback(settings)
    if kept is not None:
        kept.close()
