"""Detects timestamps in mixed units, such as seconds beside milliseconds, or dates beside step counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from llmrec.errors import DataError

MIN_EPOCH_SECONDS = 10**8  # seconds from 1970 to 1973; smaller numbers are step counts, or days written 20140503
# Smallest ratio of two neighbouring times that shows two units. It is above the ratio between the end of this century
# and 1973 in any one unit (41). It is below the ratio between milliseconds and seconds of any years from 1973 to now
# (55), and below that between a date's seconds and the same date written 20140503 (69).
_GAP = 45.0
_ALIKE = 0.25  # tolerance in powers of 1000


class UnitGroups(NamedTuple):
    """Two groups of timestamps in different units: the median of each, and the value at which the upper one begins."""

    low: int
    high: int
    cut: int

    @property
    def factor(self) -> int:
        """Number of upper units in one lower unit; 0 when the units do not differ by a power of a thousand."""
        steps = math.log10(self.high / self.low) / 3
        return 1000 ** round(steps) if self.low >= MIN_EPOCH_SECONDS and abs(steps - round(steps)) < _ALIKE else 0


def is_epoch_seconds(time: int) -> bool:
    """Return whether a number can be seconds since 1970, for the years from 1973 to the end of this century."""
    return MIN_EPOCH_SECONDS <= time < _GAP * MIN_EPOCH_SECONDS


def find_mixed_units(times: np.ndarray) -> UnitGroups | None:
    """Split times int64[m] into two groups of different units; None when all have one unit.

    Times of zero and below belong to neither group. Two neighbouring times begin different groups when their ratio is
    larger than that of any two plausible times of one clock, and the upper one is large enough to be clock time.
    """
    found = np.unique(times[times > 0])
    wide = np.flatnonzero((found[1:] >= MIN_EPOCH_SECONDS) & (found[1:] >= _GAP * found[:-1]))
    if not len(wide):
        return None
    low, high = found[: wide[0] + 1], found[wide[0] + 1 :]
    return UnitGroups(int(low[len(low) // 2]), int(high[len(high) // 2]), int(high[0]))


def refuse_mixed_units(times: np.ndarray, known: int, source: str) -> None:
    """Refuse a log whose times are in different units and so cannot be compared.

    Args:
        times: int64[m].
        known: how many of the first times belong to data that existed before.
        source: where the other times come from, for the message.

    Raises:
        DataError: the times have two units; the message says how to bring them to one.
    """
    found = find_mixed_units(times)
    if found is None:
        return
    before, new = (set((part[part > 0] >= found.cut).tolist()) for part in (times[:known], times[known:]))
    own, other = (found.high, found.low) if new == {True} else (found.low, found.high)
    apart = len(before) == len(new) == 1 and before != new
    said = f"{source}: times around {own}, {'those of the data are' if apart else 'others are'} around {other}"
    if not found.factor:
        raise DataError(f"{said}: steps or days beside the seconds of a clock; write all of them in one way")
    verb, which = "multiply" if own < other else "divide", "the new ones" if apart else f"those around {own}"
    unit = "as seconds and milliseconds would be; bring them to one unit first"
    raise DataError(f"{said}, {unit}: {verb} {which} by {found.factor:,}")
