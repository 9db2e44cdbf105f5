"""What every kind of encoder and every later setting must hold to: causal, reproducible, learns, read as written."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import HashEmbedder, make_catalog, make_interactions

from llmrec.data.interactions import leave_one_out
from llmrec.encoders import training
from llmrec.encoders.bsarec import FrequencyFilter, lowpass_kernel
from llmrec.encoders.config import ENCODER_KINDS, EncoderConfig, Tower, encoder_config_dict
from llmrec.encoders.sequential import SequenceEncoder, network
from llmrec.encoders.training import next_item_ndcg, text_features, train_encoder
from llmrec.errors import RecipeError
from llmrec.finetune.recipe import Recipe

CONFIG = EncoderConfig(dim=16, layers=2, heads=2, dropout=0.1, max_len=20, epochs=25, batch=16, lr=0.01)
LATER = [
    *({"kind": kind, "distance": distance} for kind in ENCODER_KINDS for distance in (False, True)),
    {"average": 0.9},
    {"negatives": 8},
    {"text_dims": 4, "average": 0.9},
    {"towers": (Tower("bsarec"), Tower("sasrec", text_dims=4))},
]


def text() -> np.ndarray:
    catalog = make_catalog()
    return HashEmbedder().encode([catalog.describe(row) for row in range(len(catalog))])


@pytest.mark.parametrize("settings", LATER, ids=str)
def test_every_setting_learns_the_known_successor_twice_alike(settings):
    train = leave_one_out(make_interactions()).train
    config = replace(CONFIG, **settings)
    words = text() if any(part.text_dims for part in config.parts) else None
    encoder, log = train_encoder(train, 12, config, 0, text=words)
    assert log[-1]["loss"] < log[0]["loss"] / 2
    assert encoder.item_vectors.shape == (12, 16) and encoder.encode([np.array([1])]).shape == (1, 16)
    for start in range(4):
        assert int(encoder.scores([np.array([start, start + 2])]).argmax()) == (start + 4) % 12
    again, _ = train_encoder(train, 12, replace(config, epochs=2), 0, text=words)
    third, _ = train_encoder(train, 12, replace(config, epochs=2), 0, lambda e: 0.0, text=words)
    assert all((value == again.state()[name]).all() for name, value in third.state().items())  # looking changes nothing


@pytest.mark.parametrize("settings", [*LATER[:6], LATER[-1]], ids=str)
def test_vectors_are_causal_and_come_back_from_their_state(settings):
    torch.manual_seed(0)
    net = network(12, EncoderConfig(dim=8, layers=2, heads=2, max_len=20, dropout=0.0, **settings))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.5)
    encoder = SequenceEncoder(net)
    history = np.random.default_rng(0).integers(0, 12, 35)
    path = encoder.trajectory(history)
    for t in (1, 7, 20, 21, 35):
        np.testing.assert_allclose(path[t - 1], encoder.encode([history[:t]])[0], atol=1e-4)
    changed = history.copy()
    changed[30:] = (changed[30:] + 1) % 12
    np.testing.assert_allclose(encoder.trajectory(changed)[:30], path[:30], atol=1e-4)
    assert not np.allclose(encoder.encode([changed]), path[-1:], atol=1e-3)
    many = [history[:9], history[:3], np.array([], np.int64), history]
    np.testing.assert_allclose(encoder.encode_together(many), encoder.encode(many), atol=1e-4)
    again = SequenceEncoder.from_state(encoder.state(), encoder_config_dict(encoder.config))
    assert (again.scores(many) == encoder.scores(many)).all() and again.config == encoder.config


def test_the_filter_is_a_fourier_transform_read_at_the_last_place():
    torch.manual_seed(0)
    size, bins, dim = 12, 3, 5
    layer = FrequencyFilter(dim, size, bins)
    x = torch.randn(2, size, dim)
    for length in (size, 7):  # a shorter history stands at the right end of the window, behind zeros
        window = torch.zeros(2, size, dim)
        window[:, size - length :] = x[:, :length]
        waves = torch.fft.rfft(window, dim=1)
        waves[:, bins:] = 0
        low = torch.fft.irfft(waves, n=size, dim=1)[:, -1]
        expected = low + layer.beta**2 * (x[:, length - 1] - low)
        torch.testing.assert_close(layer(x[:, :length])[:, -1], expected, atol=1e-5, rtol=1e-4)
    for size in (7, 8):  # all frequencies together let everything pass
        torch.testing.assert_close(lowpass_kernel(size, size // 2 + 1), torch.eye(size)[0], atol=1e-6, rtol=0)


def test_item_vectors_from_text_help_items_that_nobody_took():
    x = make_interactions()
    train = leave_one_out(x).train
    train = train.where(~np.isin(train.row, [10, 11]))
    config = replace(CONFIG, text_dims=8, epochs=15)
    with_text, _ = train_encoder(train, 12, config, 0, text=text())
    without, _ = train_encoder(train, 12, replace(config, text_dims=0), 0)
    histories = [np.array([2, 4, 6, 8]), np.array([3, 5, 7, 9])]

    def margin(encoder):  # the unknown item of the user's own taste over that of the other
        scores = encoder.scores(histories) - encoder.bias
        return scores[0, 10] - scores[0, 11] + scores[1, 11] - scores[1, 10]

    assert margin(with_text) > 1.0 and margin(with_text) > 3 * abs(margin(without))


def test_text_that_is_not_there_is_named_and_small_text_is_taken_whole():
    with pytest.raises(RecipeError, match="text_dims is 4, and there are no text vectors"):
        text_features(None, replace(CONFIG, text_dims=4))
    assert text_features(text(), replace(CONFIG, text_dims=40)).shape == (12, 12)
    assert text_features(text(), CONFIG) is None


def test_a_large_catalogue_is_sampled_without_being_asked(monkeypatch):
    train = leave_one_out(make_interactions()).train
    seen = []
    inner = training.sampled_cross_entropy
    monkeypatch.setattr(training, "sampled_cross_entropy", lambda *a: seen.append(len(a[4])) or inner(*a))
    train_encoder(train, 12, replace(CONFIG, epochs=1), 0)
    assert not seen
    monkeypatch.setattr(training, "FULL_LIMIT", 11)
    monkeypatch.setattr(training, "SAMPLE", 5)
    train_encoder(train, 12, replace(CONFIG, epochs=1), 0)
    assert set(seen) == {5}


def test_quick_validation_is_the_slow_one():
    encoder, _ = train_encoder(leave_one_out(make_interactions()).train, 12, replace(CONFIG, epochs=1), 0)
    rng = np.random.default_rng(0)
    histories = [rng.permutation(12)[: rng.integers(0, 8)] for _ in range(60)]
    targets = np.array([rng.choice(np.setdiff1d(np.arange(12), rows)) for rows in histories])
    total = 0.0
    for rows, target in zip(histories, targets, strict=True):
        line = encoder.scores([rows])[0].astype(float)
        line[rows] = -np.inf
        rank = int((np.delete(line, target) >= line[target] - 1e-7).sum())
        total += 1 / np.log2(rank + 2) if rank < 3 else 0.0
    assert next_item_ndcg(encoder, histories, targets, k=3, batch=7) == pytest.approx(total / 60, abs=1e-6)


def test_settings_of_later_date_are_written_only_where_chosen():
    assert set(encoder_config_dict(EncoderConfig())) == set(list(EncoderConfig.__dataclass_fields__)[:11])
    chosen = EncoderConfig(kind="bsarec", text_dims=96, average=0.99, towers=(Tower(), Tower("hstu")))
    written = json.loads(json.dumps(encoder_config_dict(chosen)))
    assert EncoderConfig(**written) == chosen and "distance" not in written
    recipe = Recipe(traffic={"shares": {"next_item": 1.0}}, encoder={"dim": 32, "towers": [{"kind": "hstu"}, {}]})
    assert [(part.kind, part.dim) for part in recipe.encoder.parts] == [("hstu", 16), ("sasrec", 16)]
    with pytest.raises(RecipeError, match="dim 20 must be a multiple of heads 2 times 4 towers"):
        EncoderConfig(dim=20, towers=(Tower(),) * 4)
    for wrong, message in (
        ({"average": 1.0}, "average 1.0"),
        ({"low_bins": 0}, "low_bins"),
        ({"text_dims": -1}, "text"),
    ):
        with pytest.raises(RecipeError, match=message):
            EncoderConfig(**wrong)
