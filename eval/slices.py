"""Groups of users by what was asked of the ranker: how well known the target is, how much of the user is known."""

from collections.abc import Sequence

import numpy as np

from llmrec.rank import Mask, Rows

COLD = 5  # a target with fewer train interactions than this is cold

WORDS = {
    "cold": f"targets with fewer than {COLD} train interactions",
    "never_trained": "targets that the train part does not hold at all",
    "short": "histories up to the median length",
    "long": "histories above the median length",
    "no_history": "nothing known of the user",
}


def slices_of(targets: Rows, histories: Sequence[Rows], counts: Rows) -> dict[str, Mask]:
    """Which users belong to each slice: name to bool[u]; see `WORDS`. `never_trained` lies within `cold`.

    Args:
        targets: int64[u].
        histories: u arrays of rows.
        counts: int64[n], train interactions of each row.

    >>> masks = slices_of(np.array([0, 1]), [np.array([1]), np.array([0, 2, 3])], np.array([7, 0, 1, 1]))
    >>> {name: mask.tolist() for name, mask in masks.items() if mask.any()}
    {'cold': [False, True], 'never_trained': [False, True], 'short': [True, False], 'long': [False, True]}
    """
    lengths = np.array([len(history) for history in histories], np.int64)
    short = lengths <= np.median(lengths) if len(lengths) else np.zeros(0, np.bool_)
    known = counts[targets]
    return {
        "cold": known < COLD,
        "never_trained": known == 0,
        "short": short,
        "long": ~short,
        "no_history": lengths == 0,
    }
