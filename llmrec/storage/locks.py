"""Advisory locks on output paths: one process writes to a place at a time, and a second one is told who does.

The lock is an `flock` on a hidden file beside the place. The system releases it when its holder ends, however it ends,
so what a dead process leaves behind blocks nobody.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmrec.errors import ArtifactError

_LONGEST = 4096  # bytes of a lock file that are read


@contextmanager
def output_lock(place: Path, doing: str = "writing to", option: str = "--out") -> Iterator[None]:
    """Hold the lock on `place`, a file or a directory that need not exist yet.

    Args:
        place: what is written; symbolic links are followed, so that two names of one place share a lock.
        doing: what this process does with it, as words in front of the place; told to whoever is refused.
        option: of the command line that names the place, for the message.

    Raises:
        ArtifactError: another process holds it; names that process and since when.
    """
    target = Path(os.path.realpath(place))
    path = target.parent / f".{target.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _taken(path, place, option)
    try:
        told = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time()), "doing": doing}
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(told).encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)  # before the release: afterwards it may be another's
        os.close(handle)


def _taken(path: Path, place: Path, option: str) -> int:
    """The open, locked file at `path`."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return handle
        except BlockingIOError:
            doing, who = _holder(os.pread(handle, _LONGEST, 0))
            os.close(handle)
            raise ArtifactError(
                f"another process is {doing} {place}{who}; wait for it to end, or give another {option}"
            ) from None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the former holder removed the file between our open and our lock


def _is_at(handle: int, path: Path) -> bool:
    mine = os.fstat(handle)
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _holder(text: bytes) -> tuple[str, str]:
    """(what the holder does, who it is, in brackets) from the content of a lock file; it may not be written yet."""
    try:
        told = json.loads(text)
        pid, since = int(told["pid"]), time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(told["since"])))
        host = "" if told["host"] == socket.gethostname() else f" on {str(told['host'])[:100]}"
        return str(told["doing"])[:100], f" (process {pid}{host}, since {since})"
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return "writing to", ""
