"""Imported before everything else: libraries read this when they are imported, and one of them looks up its host."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    # a worker a core: threads of several that wait for each other in a spin take twenty times as long
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
