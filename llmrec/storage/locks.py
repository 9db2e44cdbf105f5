"""Advisory locks on output paths: only one process writes to a path at a time, and a second one is told which one.

The lock is an `flock` on a hidden file beside the path. The system releases it when its holder ends for any reason, so
lock files left behind by a dead process block nobody.
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

_LONGEST = 4096  # most bytes of a lock file that are read


@contextmanager
def output_lock(place: Path, doing: str = "writing to", option: str = "--out") -> Iterator[None]:
    """Hold the lock on `place`, a file or a directory that need not exist yet.

    Args:
        place: the path to be written; symbolic links are followed, so that two names of one path share a lock.
        doing: what this process does to the path, as words before it in a message to processes that are refused.
        option: the command-line option that names the path, for the message.

    Raises:
        ArtifactError: another process holds the lock; the message names that process and since when it holds it.
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
        path.unlink(missing_ok=True)  # before the release: afterwards the file may belong to another process
        os.close(handle)


def _taken(path: Path, place: Path, option: str) -> int:
    """Open and lock the file at `path`; raises ArtifactError if another process holds the lock."""
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
    """Parse a lock file; return what its holder does, and who it is, in parentheses. The file may still be empty."""
    try:
        told = json.loads(text)
        pid, since = int(told["pid"]), time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(int(told["since"])))
        host = "" if told["host"] == socket.gethostname() else f" on {str(told['host'])[:100]}"
        return str(told["doing"])[:100], f" (process {pid}{host}, since {since})"
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return "writing to", ""
