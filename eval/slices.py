"""Slices of users by popularity of the target and length of the history."""

from collections.abc import Sequence

import numpy as np

from llmrec.ranker import Mask, Rows

COLD = 5  # a target with fewer train interactions than this is cold

SLICE_DESCRIPTIONS = {
    "cold": f"targets with fewer than {COLD} train interactions",
    "never_trained": "targets that the train part does not hold at all",
    "short": "histories up to the median length",
    "long": "histories above the median length",
    "no_history": "nothing known of the user",
    "sampled": "users for whom every row was ranked, where some rows were ranked for a sample",
}


def slices_of(targets: Rows, histories: Sequence[Rows], counts: Rows) -> dict[str, Mask]:
    """Users of each slice but `sampled`, by name: bool[u]; see `SLICE_DESCRIPTIONS`. `cold` includes `never_trained`.

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


def sampled(users: Rows, asked: Sequence[Rows]) -> dict[str, Mask]:
    """The slice of users for whom every row was ranked; empty if these are all users.

    Args:
        users: int64[u], numbers.
        asked: for each row, the numbers of its users.

    >>> sampled(np.array([3, 5, 8]), [np.array([3, 5, 8]), np.array([5])])["sampled"].tolist()
    [False, True, False]
    """
    everywhere = np.all([np.isin(users, own) for own in asked], axis=0)
    return {} if everywhere.all() else {"sampled": everywhere}
