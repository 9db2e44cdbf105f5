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
    """Explain why a folder, which need not exist yet, cannot be written; "" if it can. Leaves no files behind."""
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
    """Explain why a file with auxiliary files next to it, such as an SQLite file, cannot be written; "" if it can."""
    if not os.path.lexists(file):
        return directory_problem(file.parent)
    try:
        with file.open("r+b"):
            return directory_problem(file.parent)
    except OSError as error:
        return f"{file} cannot be written: {error.strerror or error}"


def temporary_directory() -> Path:
    """Return the folder in which Gradio creates folders when it starts.

    Raises:
        UserError: this machine has no folder for temporary files.
    """
    try:
        return Path(os.environ.get(TEMPORARY) or Path(tempfile.gettempdir()) / "gradio")
    except OSError as error:
        raise UserError(f"{error.strerror or error}: set TMPDIR to a folder that can be written") from None


def check_writable(settings: Settings) -> None:
    """Refuse to start if the page could not be served; paths that are not essential are not checked.

    Raises:
        UserError: the feedback file or the folder of temporary files cannot be written; the message names the path and
            the setting that moves it.
    """
    if why := directory_problem(temporary_directory()):
        raise UserError(f"no place for temporary files: {why}; set {TEMPORARY} to a folder that can be written")
    kept = open_feedback(settings)
    if kept is not None:
        kept.close()
