import tracemalloc

import numpy as np
import pytest
from conftest import make_ids
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.errors import DataError
from llmrec.semantic_ids.trie import Trie


def paths(trie, allowed=None):
    """Every path by walking the arrays, as {codes: row}."""
    item_filter = None if allowed is None else trie.filter(allowed)
    found = {(): 0}
    for level in range(trie.depth):
        new = {}
        for path, node in found.items():
            for code, child in enumerate(trie.children(level, np.array([node]))[0]):
                if child >= 0 and (item_filter is None or item_filter.reachable(level, np.array([child]))[0]):
                    new[(*path, code)] = int(child)
        found = new
    return {path: int(trie.row(np.array([leaf]))[0]) for path, leaf in found.items()}


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.sampled_from([(1, 64), (2, 8), (3, 4)]), st.integers(0, 3), st.data())
def test_holds_exactly_the_allowed_items(n, shape, seed, data):
    ids = make_ids(n, *shape, seed=seed)
    trie = Trie(ids.codes, ids.size)
    assert paths(trie) == {tuple(c): r for r, c in enumerate(ids.codes.tolist())}
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    expected = {tuple(c): r for r, c in enumerate(ids.codes.tolist()) if allowed[r]}
    assert paths(trie, allowed) == expected


def test_narrowing_does_not_change_the_trie():
    ids = make_ids(30, 2, 8)
    trie = Trie(ids.codes, ids.size)
    before = paths(trie)
    trie.filter(np.zeros(30, bool))
    assert paths(trie) == before


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.sampled_from([(1, 100), (2, 9), (3, 5), (14, 64)]), st.integers(0, 5))
def test_children_by_offset_by_code_and_from_below_agree(n, shape, seed):
    depth, size = shape
    rng = np.random.default_rng(seed)
    codes = np.unique(rng.integers(0, size, (n, depth)), axis=0)
    codes = codes[rng.permutation(len(codes))]
    trie = Trie(codes, size)
    expected = np.lexsort(codes.T[::-1])  # 14 levels of 64 codes do not fit one packed key
    assert trie.order.tolist() == expected.tolist()
    above = trie.ancestors(trie.leaves(np.arange(trie.n)))
    parent = np.zeros(trie.n, np.int64)
    for level in range(depth):
        child = trie.children(level, parent)[np.arange(trie.n), codes[:, level]]
        assert child.tolist() == above[level].tolist()
        assert trie.code[level][child].tolist() == codes[:, level].tolist()
        ranges = trie.ranges(level, parent)
        assert ranges.shape[1] == trie.width[level] <= size
        for line, dense in zip(ranges, trie.children(level, parent), strict=True):
            assert line[line >= 0].tolist() == dense[dense >= 0].tolist()
        parent = child
    assert trie.row(parent).tolist() == list(range(trie.n))


def test_mass_below_a_node_is_what_its_items_weigh():
    codes = np.array([[0, 0], [0, 1], [1, 0]])
    trie = Trie(codes, 2, np.log([1.0, 2.0, 5.0]))
    np.testing.assert_allclose(np.exp(trie.prior[0]), [3, 5], rtol=1e-6)
    np.testing.assert_allclose(np.exp(trie.priors(1, np.array([[1, -1]]))), [[2, 0]], rtol=1e-6)


def test_what_cannot_be_a_trie_is_refused():
    with pytest.raises(DataError, match="3 items share 2 paths"):
        Trie(np.array([[0, 1], [1, 1], [0, 1]]), 2)
    with pytest.raises(DataError, match="takes 0 to 3"):
        Trie(np.array([[0, 4]]), 4)
    with pytest.raises(DataError, match="a filter of shape"):
        Trie(np.array([[0, 1], [1, 1]]), 2).filter(np.ones(3, bool))


def test_a_large_trie_takes_little_and_narrow_one_pass():
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 64, (300_000, 4)).astype(np.int32), axis=0)
    tracemalloc.start()
    trie = Trie(codes, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak / trie.n < 120  # bytes an item while it is built: ten million in 1.2 GB
    allowed = np.zeros(trie.n, bool)
    allowed[7] = True
    item_filter = trie.filter(allowed)
    assert item_filter.count == 1
    open_ = [int(item_filter.reachable(level, np.arange(trie.nodes(level))).sum()) for level in range(4)]
    assert open_ == [1, 1, 1, 1]
