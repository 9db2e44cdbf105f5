"""Replaces directories and files atomically: the file-system part of `artifacts`.

A writer of the target `model/` works in a sibling directory `.model.<token>.tmp/` (its workshop) and holds a lock on it
while it runs. In there, `new/` is the directory being filled, and `old/` is the previous directory, moved aside. A
workshop whose lock is free belongs to a writer that has died.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def replace_directory(target: Path) -> Iterator[Path]:
    """Yield a new directory; on a clean exit sync it and swap it with `target`, else remove it.

    Files become readable for everyone who may read the directory under the umask. Otherwise safetensors 0.8 would make
    its files readable only for their owner, and a model trained by one user could not be served by another.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    workshop, lock = _open_workshop(target)
    try:
        new = workshop / "new"
        new.mkdir()
        yield new
        _sync_tree(new)
        with _locked(target.parent):
            _put(workshop, target)
        _sync_directory(target.parent)
    finally:
        if target.exists() or not (workshop / "old").exists():  # else `recover_directory` still needs its contents
            shutil.rmtree(workshop, ignore_errors=True)
        os.close(lock)


def recover_directory(target: Path) -> None:
    """Move back a directory that a dead writer moved aside; does nothing if `target` exists."""
    if target.exists() or not target.parent.is_dir() or not any(_workshops(target)):
        return
    with _locked(target.parent):
        for workshop in _workshops(target):
            if not target.exists() and (workshop / "old").is_dir():
                os.rename(workshop / "old", target)


def replace_file(path: Path, data: bytes) -> None:
    """Write a hidden sibling file, sync it and rename it to `path`; the sibling is removed even after an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        with temporary.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _put(workshop: Path, target: Path) -> None:
    """Move `workshop/new` to `target`; a previous directory is left in the workshop."""
    new, old = workshop / "new", workshop / "old"
    if not target.exists():
        os.rename(new, target)
        return
    if _exchange(new, target):
        return
    os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(old, target)
        raise


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one system call; return False if the system or file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    done = call(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if done == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


def _workshops(target: Path) -> Iterator[Path]:
    start = f".{target.name}."
    for entry in target.parent.iterdir():
        token = entry.name[len(start) : -len(".tmp")]
        if entry.name.startswith(start) and entry.name.endswith(".tmp") and len(token) == 12 and entry.is_dir():
            yield entry


def _open_workshop(target: Path) -> tuple[Path, int]:
    """Make and lock a workshop; if another process sweeps it between mkdir and lock, make another one."""
    while True:
        workshop = target.parent / f".{target.name}.{secrets.token_hex(6)}.tmp"
        workshop.mkdir()
        try:
            lock = os.open(workshop, os.O_RDONLY)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if workshop.is_dir():
            return workshop, lock
        os.close(lock)


def _sweep(target: Path) -> None:
    """Remove the workshops of dead writers; those of running writers stay."""
    recover_directory(target)
    for workshop in list(_workshops(target)):
        with suppress(OSError):
            lock = os.open(workshop, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(workshop, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a lock on the directory, so that only one process at a time swaps or recovers its children."""
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _sync_tree(root: Path) -> None:
    """Sync all files and directories, and make files as readable as `root`, see `replace_directory`."""
    readable = root.stat().st_mode & 0o444
    for folder, _, names in os.walk(root):
        for name in names:
            handle = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                mode = stat.S_IMODE(os.fstat(handle).st_mode)
                if mode | readable != mode:
                    os.fchmod(handle, mode | readable)
                os.fsync(handle)
            finally:
                os.close(handle)
        _sync_directory(Path(folder))


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
