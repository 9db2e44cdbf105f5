"""Prefix cache: keys and values of prompt prefixes, looked up by their exact content.

A prompt is prefilled in segments that end where a turn ends, so the system prompt and the earlier turns of a
conversation are separate segments. The cuts depend only on the prompt's ids, and only segments that were computed
separately are stored. So a cached segment has the same bits as a computed one, and no answer depends on earlier
requests. The key of a segment consists of all token ids and user vectors up to its end and is compared in full. A
session can therefore reuse another session's segment only if words, items and user vector are the same.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llmrec.errors import RequestError
from llmrec.lm.model import RecModel
from llmrec.lm.rendering import Rendered

# Fewer tokens are not worth a separate pass: reading all weights takes about as long as thirty tokens.
MIN_SEGMENT = 32
DEFAULT_LIMIT = 128 * 2**20  # bytes; some 2,900 tokens of the default model

Key = tuple[bytes, bytes, int]


@dataclass(frozen=True, eq=False)
class Segment:
    """Keys and values float[layers, 2, kv_heads, n, head_dim] of n tokens, and the last hidden state float32[h]."""

    data: torch.Tensor
    hidden: torch.Tensor

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.data.nbytes + self.hidden.nbytes


def segment_ends(ids: np.ndarray, closing: Sequence[int], shortest: int = MIN_SEGMENT) -> list[int]:
    """Return the ends of a prompt's segments: after closing markers, none shorter than `shortest`; last is len(ids)."""
    end = np.asarray(closing, np.int64)
    ends: list[int] = []
    if len(ids) >= len(end) > 0:
        found = (np.lib.stride_tricks.sliding_window_view(ids, len(end)) == end).all(axis=1)
        for cut in np.flatnonzero(found) + len(end):
            if cut - (ends[-1] if ends else 0) >= shortest and len(ids) - cut >= shortest:
                ends.append(int(cut))
    return [*ends, len(ids)]


def count_user_vectors(prompt: Rendered, end: int, slot: int, slots: int) -> int:
    """Return how many user vectors the first `end` ids use; each takes `slots` ids equal to `slot`."""
    return int((prompt.ids[:end] == slot).sum()) // slots


class PrefixCache:
    """The most recently used segments of one model's prompts, up to a number of bytes; thread-safe.

    The weights of the model must not change; call `clear` after changing them.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        if limit < 1:
            raise RequestError(f"a prefix cache of {limit} bytes; at least 1 is needed")
        self.limit = limit
        self._segments: OrderedDict[Key, Segment] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._model: weakref.ref[RecModel] | None = None

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def bytes(self) -> int:
        """Size of all segments in memory."""
        return self._bytes

    def belong_to(self, model: RecModel) -> None:
        """Bind the cache to a model.

        Raises:
            RequestError: the cache already belongs to another model.
        """
        with self._lock:
            if self._model is None:
                self._model = weakref.ref(model)
            elif self._model() is not model:
                raise RequestError("this prefix cache belongs to another model; every model needs its own")

    def find(self, keys: Sequence[Key]) -> list[Segment]:
        """Return the segments of the longest cached prefix, given the keys of a prompt's segments in order."""
        with self._lock:
            found = []
            for key in keys:
                if key not in self._segments:
                    break
                found.append(self._segments[key])
            for key in reversed(
                keys[: len(found)]
            ):  # a prefix must outlive what follows it, which cannot be found without it
                self._segments.move_to_end(key)
            return found

    def keep(self, key: Key, segment: Segment) -> None:
        """Store a segment and evict the least recently used ones; a segment larger than the limit is not stored."""
        if segment.bytes > self.limit:
            return
        with self._lock:
            if key not in self._segments:
                self._segments[key] = segment
                self._bytes += segment.bytes
            while self._bytes > self.limit:
                _, old = self._segments.popitem(last=False)
                self._bytes -= old.bytes

    def clear(self) -> None:
        """Remove all segments."""
        with self._lock:
            self._segments.clear()
            self._bytes = 0


def segment_key(prompt: Rendered, end: int, users: int) -> Key:
    """Return the exact content of the first `end` ids and `users` user vectors, and the number of threads.

    The number of threads is part of the key because it changes the order of sums, and so the last bits of a segment.
    """
    ids, vectors = prompt.ids[:end].astype(np.int64), prompt.users[:users].astype(np.float32)
    return ids.tobytes(), vectors.tobytes(), torch.get_num_threads()
