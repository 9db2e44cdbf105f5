"""Prefix cache: keys and values of prompt prefixes, looked up by their exact content.

A prompt is prefilled in segments that end where a turn ends, so a system prompt and the earlier turns of a conversation
are segments of their own. Where a prompt is cut depends on its ids alone, and a segment is stored only as it was
computed by itself. So a cached segment has the same bits as a computed one, and no answer depends on earlier requests.
The key of a segment is all token ids and user vectors up to its end, compared in full: a session can reuse another
session's segment only with the same words, items and user vector.
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

# fewer tokens are not worth a pass of their own: reading all weights takes about as long as thirty tokens
MIN_SEGMENT = 32
DEFAULT_LIMIT = 128 * 2**20  # bytes; of the default model some 2,900 tokens

Key = tuple[bytes, bytes, int]


@dataclass(frozen=True, eq=False)
class Segment:
    """Keys and values float[layers, 2, kv_heads, n, head_dim] of n tokens, the last one's hidden state float32[h]."""

    data: torch.Tensor
    hidden: torch.Tensor

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return self.data.nbytes + self.hidden.nbytes


def segment_ends(ids: np.ndarray, closing: Sequence[int], shortest: int = MIN_SEGMENT) -> list[int]:
    """Where the segments of a prompt end: after closing markers, no segment below `shortest`; the last is len(ids)."""
    end = np.asarray(closing, np.int64)
    ends: list[int] = []
    if len(ids) >= len(end) > 0:
        found = (np.lib.stride_tricks.sliding_window_view(ids, len(end)) == end).all(axis=1)
        for cut in np.flatnonzero(found) + len(end):
            if cut - (ends[-1] if ends else 0) >= shortest and len(ids) - cut >= shortest:
                ends.append(int(cut))
    return [*ends, len(ids)]


def count_user_vectors(prompt: Rendered, end: int, slot: int, slots: int) -> int:
    """How many user vectors the first `end` ids use; `slots` ids `slot` each."""
    return int((prompt.ids[:end] == slot).sum()) // slots


class PrefixCache:
    """The most recently used segments of one model's prompts, up to a number of bytes; safe under threads.

    The weights of the model must stay as they are; `clear` after changing them.
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
        """Bind the cache to this model.

        Raises:
            RequestError: it already serves another one.
        """
        with self._lock:
            if self._model is None:
                self._model = weakref.ref(model)
            elif self._model() is not model:
                raise RequestError("this prefix cache belongs to another model; every model needs its own")

    def find(self, keys: Sequence[Key]) -> list[Segment]:
        """The segments of the longest cached prefix, given the keys of a prompt's segments, first to last."""
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
        """Store a segment and evict the least recently used; one larger than the limit is not stored."""
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
    """The exact content of the first `end` ids and `users` user vectors, and the number of threads.

    Another number of threads sums in another order, and the last bits of a cached segment would differ.
    """
    ids, vectors = prompt.ids[:end].astype(np.int64), prompt.users[:users].astype(np.float32)
    return ids.tobytes(), vectors.tobytes(), torch.get_num_threads()
