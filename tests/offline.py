"""Imported before everything else: libraries read this when they are imported, and one of them looks up its host."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker a core

import llmrec  # noqa: F401  # sets how threads wait, as for everybody
