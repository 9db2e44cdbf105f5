import numpy as np
import pytest
from conftest import make_ids

from llmrec.errors import RequestError
from llmrec.lm.item_tokens import ItemVocab


def test_rows_and_tokens_are_a_bijection():
    vocab = ItemVocab(1000, make_ids(50, 2, 8))
    assert vocab.tokens.shape == (50, 2)
    assert vocab.is_item(vocab.tokens).all() and not vocab.is_item(np.array([999, 1016])).any()
    assert [vocab.row(tuple(path)) for path in vocab.tokens] == list(range(50))
    assert len(vocab.names()) == len(set(vocab.names())) == len(vocab) == 16


def test_levels_do_not_share_tokens():
    vocab = ItemVocab(10, make_ids(50, 2, 8))
    assert not set(vocab.tokens[:, 0]) & set(vocab.tokens[:, 1])


def test_a_path_of_no_item_is_refused():
    vocab = ItemVocab(10, make_ids(5, 2, 8))
    free = next((a, b) for a in range(10, 18) for b in range(18, 26) if (a, b) not in set(map(tuple, vocab.tokens)))
    with pytest.raises(RequestError, match="no item has the token path"):
        vocab.row(free)
