import numpy as np
from conftest import make_ids
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.trie import Trie


def paths(trie, allowed=None):
    """Every path by walking the arrays, as {codes: row}."""
    open_nodes = trie.narrow(allowed)
    found = {(): 0}
    for level in range(trie.depth):
        new = {}
        for path, node in found.items():
            for code, child in enumerate(trie.children(level, np.array([node]))[0]):
                if child >= 0 and open_nodes[level][child]:
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
    trie.narrow(np.zeros(30, bool))
    assert paths(trie) == before


def test_a_large_trie_is_quick_and_narrow_costs_one_pass():
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 64, (200_000, 4)).astype(np.int32), axis=0)
    trie = Trie(codes, 64)
    assert trie.n == len(codes)
    allowed = np.zeros(trie.n, bool)
    allowed[7] = True
    assert [int(nodes.sum()) for nodes in trie.narrow(allowed)] == [1, 1, 1, 1]
