"""Imported before everything else: libraries read this when they are imported, and one of them looks up its host."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
