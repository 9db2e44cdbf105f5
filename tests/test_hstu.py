import numpy as np
import pytest
import torch
from conftest import make_interactions
from encoder_checks import check_causal
from torch.nn import functional as F

from llmrec.data.interactions import leave_one_out
from llmrec.encoders.config import EncoderConfig, encoder_config_dict
from llmrec.encoders.hstu import HSTUBlock
from llmrec.encoders.sequential import EncoderNet, SequenceEncoder
from llmrec.encoders.training import train_encoder
from llmrec.errors import RecipeError
from llmrec.finetune.recipe import Recipe

CONFIG = EncoderConfig(
    dim=16, layers=2, heads=2, dropout=0.1, max_len=20, epochs=25, batch=16, lr=0.01, kind="hstu"
)  # fmt: skip


def make_hstu(n=12, seed=0):
    """An untrained encoder with visible differences between items and between distances."""
    torch.manual_seed(seed)
    net = EncoderNet(n, EncoderConfig(dim=8, layers=2, heads=2, max_len=20, dropout=0.0, kind="hstu"))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.5)
    return SequenceEncoder(net)


def test_the_layer_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    block, (t, d, heads) = HSTUBlock(8, 2, 0.0, 10).eval(), (5, 8, 2)
    with torch.no_grad():
        block.distance.normal_()
    x = torch.randn(1, t, d)
    normal = F.layer_norm(x[0], (d,), eps=1e-6)
    u, v, q, k = (F.silu(normal @ weight.T) for weight in block.uvqk.weight.chunk(4))
    for place in range(t):
        seen = []
        for head in range(heads):
            own = slice(head * d // heads, (head + 1) * d // heads)
            total = torch.zeros(d // heads)
            for past in range(place + 1):
                weight = F.silu(q[place, own] @ k[past, own] + block.distance[place - past]) / block.max_len
                total = total + weight * v[past, own]
            seen.append(total)
        gated = F.layer_norm(torch.cat(seen), (d,), eps=1e-6) * u[place]
        expected = x[0, place] + block.out(gated)
        torch.testing.assert_close(block(x)[0, place], expected, atol=1e-5, rtol=1e-4)


def test_it_learns_the_known_successor_and_every_parameter_moves():
    train = leave_one_out(make_interactions()).train
    torch.manual_seed(0)
    start = {name: value.clone() for name, value in EncoderNet(12, CONFIG).state_dict().items()}
    encoder, log = train_encoder(train, 12, CONFIG, seed=0)
    assert log[-1]["loss"] < log[0]["loss"] / 2
    for first in range(4):
        assert int(encoder.scores([np.array([first, first + 2])]).argmax()) == (first + 4) % 12
    assert all((start[name].numpy() != value).any() for name, value in encoder.state().items())


def test_vectors_are_causal_and_do_not_depend_on_neighbours_or_padding():
    encoder = make_hstu()
    history, path = check_causal(encoder)
    many = [history[:9], history[:3], np.array([], np.int64)]
    assert (encoder.encode(many)[0] == encoder.encode([history[:9]])[0]).all()
    assert (encoder.encode(many)[2] == 0).all()
    padded = torch.full((1, 15), 12)
    padded[0, :9] = torch.from_numpy(history[:9])
    with torch.inference_mode():
        np.testing.assert_allclose(encoder.net(padded)[0, :9].numpy(), path[:9], atol=1e-5)


def test_the_order_of_a_history_counts():
    encoder = make_hstu()
    assert not np.allclose(encoder.encode([np.array([1, 2, 3])]), encoder.encode([np.array([2, 1, 3])]), atol=1e-3)


def test_state_round_trip_keeps_the_kind():
    encoder = make_hstu()
    again = SequenceEncoder.from_state(encoder.state(), encoder_config_dict(encoder.config))
    assert again.config == encoder.config and again.config.kind == "hstu"
    history = [np.array([1, 2, 3])]
    assert (encoder.scores(history) == again.scores(history)).all()


def test_what_was_written_before_there_was_a_choice_is_read_and_hashed_as_then():
    plain = EncoderConfig()
    assert "kind" not in encoder_config_dict(plain) and encoder_config_dict(CONFIG)["kind"] == "hstu"
    old = {"dim": 8, "layers": 1, "heads": 2, "dropout": 0.0, "max_len": 20, "epochs": 60, "batch": 64, "lr": 0.001,
           "weight_decay": 0.0, "patience": 8, "evaluate_every": 2}  # fmt: skip
    assert encoder_config_dict(EncoderConfig(**old)) == old and EncoderConfig(**old).kind == "sasrec"
    recipe = Recipe(traffic={"shares": {"next_item": 1.0}})
    assert "kind" not in recipe.model_dump(mode="json")["encoder"]
    chosen = Recipe(traffic={"shares": {"next_item": 1.0}}, encoder={"kind": "hstu"})
    assert chosen.model_dump(mode="json")["encoder"]["kind"] == "hstu" and chosen.encoder == EncoderConfig(kind="hstu")


def test_an_unknown_kind_is_named():
    with pytest.raises(RecipeError, match="no encoder kind 'gru'; there are: sasrec, hstu, bsarec"):
        EncoderConfig(kind="gru")
