"""What the server's allocator may keep is bounded, where the C library can be told."""

import subprocess
import sys

import pytest

from llmrec.app.server import malloc

COUNT = """
import ctypes, sys, threading
from llmrec.app.server import malloc
if sys.argv[1] == "bound" and not malloc.limit_arenas():
    sys.exit(3)
libc, wall = ctypes.CDLL(None), threading.Barrier(12)
libc.malloc.restype = ctypes.c_void_p
def hold():
    libc.malloc(4096)
    wall.wait()
    libc.malloc(4096)
    wall.wait()
threads = [threading.Thread(target=hold) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.fdopen.restype = ctypes.c_void_p
out = libc.fdopen(1, b"w")
libc.malloc_info(0, ctypes.c_void_p(out))
libc.fflush(ctypes.c_void_p(out))
"""


def arenas(how: str) -> int:
    made = subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, text=True, timeout=120, check=False)
    if made.returncode == 3:
        pytest.skip("this C library has no mallopt")
    assert made.returncode == 0, made.stderr
    return made.stdout.count("<heap nr=")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the bounds are glibc's")
def test_threads_share_two_arenas():
    assert 1 <= arenas("bound") <= malloc.ARENAS < arenas("free")


def test_another_system_is_left_alone(monkeypatch):
    monkeypatch.setattr(malloc.sys, "platform", "darwin")
    assert malloc.limit_arenas() is False
