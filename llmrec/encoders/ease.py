"""Item-to-item weights by ridge regression (EASE; Steck, 2019), over windows of a sequence instead of whole histories.

Every window of a few consecutive items is one row of the regression, which predicts an item from those around it. So a
neighbour is weighted by what it adds to the other neighbours, while shrunk cosines count the same evidence several
times. On MovieLens-100k validation the fusion with SASRec has NDCG@10 .1446 with these weights and .1361 with cosines.
"""

from __future__ import annotations

import numpy as np
import psutil
from scipy.linalg import lapack

from llmrec.data.interactions import Interactions
from llmrec.errors import RecipeError

MAX_ITEMS = 20_000  # the matrix is dense, and inverting it takes some minutes at this size
_BLOCK = 256  # rows mirrored at a time


def bytes_needed(n_items: int) -> int:
    """Bytes of memory for the weights of a catalogue: a float64 matrix that is inverted in place, and temporaries."""
    return int(1.1 * 8 * n_items**2) + 2**26


def why_too_large(n_items: int) -> str:
    """Return why a catalogue is too large for these weights on this machine; "" if it is not."""
    if n_items > MAX_ITEMS:
        return f"neighbours by ridge regression take at most {MAX_ITEMS:,} items, not {n_items:,}"
    need, free = bytes_needed(n_items), psutil.virtual_memory().available
    if need > free:
        return (
            f"neighbours by ridge regression of {n_items:,} items need {need / 1e9:.1f} GB of memory; "
            f"{free / 1e9:.1f} GB are free"
        )
    return ""


def check_size(n_items: int) -> None:
    """Refuse a catalogue that is too large.

    Raises:
        RecipeError: the catalogue is too large; the message names the number of items, or the needed and free memory.
    """
    if why := why_too_large(n_items):
        raise RecipeError(f"{why}: leave neighbours.ridge at 0")


def window_gram(train: Interactions, n_items: int, window: int) -> np.ndarray:
    """Gram matrix float64[n, n]: the number of windows of `window` consecutive items that hold both items; symmetric.

    A pair g steps apart shares `window - g` windows; the diagonal has `window` for each interaction of an item. Windows
    extend beyond both ends of a sequence, so its first and last items count as much as others.

    Raises:
        RecipeError: too many items for a dense matrix, see `check_size`.
    """
    check_size(n_items)
    out = np.zeros((n_items, n_items))
    for gap in range(min(window, max(len(train), 1))):
        ends = slice(None, len(train) - gap), slice(gap, None)
        same = train.user[ends[0]] == train.user[ends[1]]
        a, b = train.row[ends[0]][same], train.row[ends[1]][same]
        np.add.at(out, (a, b), float(window - gap))
        if gap:
            np.add.at(out, (b, a), float(window - gap))
    return out


def ease_weights(products: np.ndarray, ridge: float) -> np.ndarray:
    """EASE weights float64[n, n], zero diagonal, negative weights set to 0: row j holds the weights from item j.

    Args:
        products: Gram matrix of `window_gram`; the result overwrites it, so that no second matrix is needed.
        ridge: strength of the penalty, in windows.

    Raises:
        RecipeError: the penalty is not positive, or too small for the matrix to be invertible.
    """
    if ridge <= 0:
        raise RecipeError(f"ridge {ridge} must be above 0")
    products[np.diag_indices(len(products))] += ridge
    # Cholesky takes half the operations of a general inverse. LAPACK is column-major, so it gets the transpose, which
    # is the same symmetric matrix in the same memory.
    factor, failed = lapack.dpotrf(products.T, lower=1, clean=0, overwrite_a=1)
    if failed:
        raise RecipeError(f"ridge {ridge} is too small for this data: the regression has no single answer; raise it")
    half, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    weights = _mirrored(half.T)
    weights /= -np.diag(weights)
    np.maximum(weights, 0.0, out=weights)
    np.fill_diagonal(weights, 0.0)
    return weights


def _mirrored(upper: np.ndarray) -> np.ndarray:
    """Fill a symmetric matrix from its upper triangle, in place."""
    for start in range(0, len(upper), _BLOCK):
        rows = slice(start, start + _BLOCK)
        corner = np.triu(upper[rows, rows])
        upper[rows, rows] = corner + np.triu(corner, 1).T
        upper[rows, :start] = upper[:start, rows].T
    return upper
