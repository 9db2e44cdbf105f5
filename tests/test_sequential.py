import numpy as np
import pytest
from conftest import make_encoder, make_interactions
from encoder_checks import check_causal
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.data.interactions import leave_one_out
from llmrec.encoders.config import EncoderConfig, encoder_config_dict
from llmrec.encoders.sequential import SequenceEncoder
from llmrec.encoders.training import crop_windows, train_encoder
from llmrec.errors import RecipeError

CONFIG = EncoderConfig(dim=16, layers=1, heads=2, dropout=0.1, max_len=20, epochs=25, batch=16, lr=0.01)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=5), st.integers(1, 12), st.integers(0, 99))
def test_windows_make_every_row_but_the_first_a_target_once(lengths, size, seed):
    histories = [np.arange(100 * u, 100 * u + n) for u, n in enumerate(lengths)]
    targets = [int(r) for piece in crop_windows(histories, size, np.random.default_rng(seed)) for r in piece[1:]]
    assert sorted(targets) == [int(r) for rows in histories for r in rows[1:]]
    assert all(2 <= len(p) <= size + 1 for p in crop_windows(histories, size, np.random.default_rng(seed)))


def test_learns_the_known_successor_and_is_reproducible():
    train = leave_one_out(make_interactions()).train
    encoder, log = train_encoder(train, 12, CONFIG, seed=0)
    assert log[-1]["loss"] < log[0]["loss"] / 3
    for start in range(4):
        best = int(encoder.scores([np.array([start, start + 2])]).argmax())
        assert best == (start + 4) % 12
    again, _ = train_encoder(train, 12, CONFIG, seed=0)
    assert all((a == again.state()[n]).all() for n, a in encoder.state().items())


def test_vectors_are_causal_and_do_not_depend_on_neighbours():
    check_causal(make_encoder(12))


def test_an_empty_history_is_scored_by_the_item_biases():
    encoder = make_encoder(12)
    np.testing.assert_allclose(encoder.scores([np.array([], np.int64)])[0], encoder.bias)


def test_state_round_trip():
    encoder = make_encoder(12)
    again = SequenceEncoder.from_state(encoder.state(), encoder_config_dict(encoder.config))
    history = [np.array([1, 2, 3])]
    assert (encoder.scores(history) == again.scores(history)).all()


def test_early_stopping_keeps_the_best_epoch():
    values = iter([0.1, 0.9, 0.2, 0.1, 0.1, 0.1, 0.1])
    seen = []

    def validate(encoder):
        seen.append(encoder.state()["bias"].copy())
        return next(values)

    config = EncoderConfig(dim=16, layers=1, heads=2, max_len=20, epochs=50, patience=3, evaluate_every=2)
    encoder, log = train_encoder(leave_one_out(make_interactions()).train, 12, config, 0, validate)
    assert (encoder.bias == seen[1]).all()
    assert log[-1]["epoch"] == 10


def test_impossible_sizes_are_named():
    with pytest.raises(RecipeError, match="dim 10 must be a multiple of heads 4"):
        EncoderConfig(dim=10, heads=4)
