"""Detects timestamps in mixed units: seconds beside milliseconds, dates beside step counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from llmrec.errors import DataError

MIN_EPOCH_SECONDS = 10**8  # seconds from 1970 to 1973: smaller numbers count steps, or are days written 20140503
# Between two neighbouring times: more than lies between 1973 and the end of this century in any one unit (41), less
# than between seconds and milliseconds of any years from 1973 to now (55), and between 20140503 and its seconds (69).
_GAP = 45.0
_ALIKE = 0.25  # of a step of 1000


class UnitGroups(NamedTuple):
    """Timestamps in two units: the median of each group, and where the upper group begins."""

    low: int
    high: int
    cut: int

    @property
    def factor(self) -> int:
        """How many units of the upper clock are one of the lower, 0 where they are no powers of a thousand apart."""
        steps = math.log10(self.high / self.low) / 3
        return 1000 ** round(steps) if self.low >= MIN_EPOCH_SECONDS and abs(steps - round(steps)) < _ALIKE else 0


def is_epoch_seconds(time: int) -> bool:
    """Whether a number can be seconds since 1970 of the years from 1973 to this century's end."""
    return MIN_EPOCH_SECONDS <= time < _GAP * MIN_EPOCH_SECONDS


def find_mixed_units(times: np.ndarray) -> UnitGroups | None:
    """Return the two groups of units among times int64[m], None for one; times of zero and below are in neither.

    Two groups lie apart by a factor that no two moments of one clock have, and the upper one is a clock.
    """
    found = np.unique(times[times > 0])
    wide = np.flatnonzero((found[1:] >= MIN_EPOCH_SECONDS) & (found[1:] >= _GAP * found[:-1]))
    if not len(wide):
        return None
    low, high = found[: wide[0] + 1], found[wide[0] + 1 :]
    return UnitGroups(int(low[len(low) // 2]), int(high[len(high) // 2]), int(high[0]))


def refuse_mixed_units(times: np.ndarray, known: int, source: str) -> None:
    """Refuse a log whose times cannot be compared.

    Args:
        times: int64[m].
        known: how many of them, the first, were there before.
        source: where the others come from, for the message.

    Raises:
        DataError: the times are those of two clocks; says how to bring them to one.
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
