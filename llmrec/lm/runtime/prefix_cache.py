"""What was read before is not read again: keys and values of prompts' beginnings, by their exact content.

A prompt is read in segments that end where a turn ends, so that a system prompt and the earlier turns of a conversation
are segments of their own. How a prompt is cut depends on its ids alone, and a segment is kept only as it was computed
by itself: what is found here is to the bit what would have been computed, and no answer depends on what was asked
before. A segment is found by all token ids and all user vectors up to its end, compared in full: one session can find
what another one left only by having the same words, items and user vector.
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

# fewer tokens are not worth a pass of their own: it costs the reading of all weights, some thirty tokens' time
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
        """What it takes."""
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
        """What the segments take."""
        return self._bytes

    def belong_to(self, model: RecModel) -> None:
        """Serve this model and no other.

        Raises:
            RequestError: it already serves another one.
        """
        with self._lock:
            if self._model is None:
                self._model = weakref.ref(model)
            elif self._model() is not model:
                raise RequestError("this prefix cache belongs to another model; every model needs its own")

    def find(self, keys: Sequence[Key]) -> list[Segment]:
        """The segments of the longest known beginning; keys of all segments of a prompt, first to last."""
        with self._lock:
            found = []
            for key in keys:
                if key not in self._segments:
                    break
                found.append(self._segments[key])
            for key in reversed(keys[: len(found)]):  # a beginning outlives what follows it: without it that is lost
                self._segments.move_to_end(key)
            return found

    def keep(self, key: Key, segment: Segment) -> None:
        """Remember a segment; the longest unused ones go when there is no room. One beyond the limit is not kept."""
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
        """Forget everything."""
        with self._lock:
            self._segments.clear()
            self._bytes = 0


def segment_key(prompt: Rendered, end: int, users: int) -> Key:
    """The exact content of the first `end` ids and `users` user vectors, and the threads that work on it.

    Another number of threads sums in another order: the last bit would tell which of two was asked first.
    """
    ids, vectors = prompt.ids[:end].astype(np.int64), prompt.users[:users].astype(np.float32)
    return ids.tobytes(), vectors.tobytes(), torch.get_num_threads()
