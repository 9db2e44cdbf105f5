import numpy as np
import pytest
import torch
from conftest import make_encoder, make_ids, make_lm, make_model, make_tokenizer

from llmrec.errors import WeightsError
from llmrec.lm.model import ModelConfig, RecModel
from llmrec.numerics import whitening


def test_word_table_and_head_stay_as_published(model):
    lm = make_lm(len(make_tokenizer()))
    assert torch.equal(model.word_embedding.weight, lm.get_input_embeddings().weight)
    assert not model.word_embedding.weight.requires_grad


def test_base_only_is_the_base_model_and_the_adapter_comes_back():
    model, lm = make_model(), make_lm(len(make_tokenizer()))
    ids = torch.arange(5)[None]
    with torch.no_grad():
        tuned = model.hidden(model.word_embedding(ids))
        with model.base_only():
            base = model.hidden(model.word_embedding(ids))
        again = model.hidden(model.word_embedding(ids))
        expected = lm.model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(base, expected)
    assert not torch.allclose(tuned, base, atol=1e-3)
    torch.testing.assert_close(tuned, again)
    model.merge()
    with pytest.raises(RuntimeError, match="merged"), model.base_only():
        pass


def test_user_slots_are_filled_in_order(model):
    slot = model.renderer.user_slot
    ids = torch.tensor([[1, slot, slot, 2], [slot, slot, 3, 4]])
    users = torch.randn(2, 8)
    with torch.no_grad():
        x, soft = model.embed(ids, users), model.adapter(users)
    torch.testing.assert_close(x[0, 1:3], soft[0])
    torch.testing.assert_close(x[1, 0:2], soft[1])
    torch.testing.assert_close(x[0, 0], model.word_embedding.weight[1])


def test_added_state_round_trips_and_a_wrong_one_is_refused():
    a, b = make_model(seed=0), make_model(seed=3)
    state = {n: t.clone() for n, t in a.added_state().items()}
    b.load_added(state)
    assert all(torch.equal(b.added_state()[n], t) for n, t in state.items())
    with pytest.raises(WeightsError, match="do not fit"):
        b.load_added({n: t for n, t in state.items() if n != "items.weight"})


def test_item_logits_start_near_uniform_and_alike_codes_alike():
    n = 12
    encoder = make_encoder(n)
    model = RecModel(
        make_lm(len(make_tokenizer())), make_tokenizer(), make_ids(n, dims=14), encoder, ModelConfig(lora_rank=2)
    )
    model.init_embeddings(whitening(encoder.item_vectors, 8), 0)
    with torch.no_grad():
        hidden = model.hidden(model.word_embedding(torch.arange(64)[None]))
        spread = float(model.level_logits(hidden, 0).std())
    assert 0.3 < spread < 3.0
    assert float(model.items.weight.detach().std()) == pytest.approx(float(model.word_embedding.weight.std()), rel=0.5)


def test_an_architecture_without_the_layers_is_named():
    class Odd(torch.nn.Module):
        pass

    with pytest.raises(WeightsError, match="Odd has no layers q_proj"):
        RecModel(Odd(), make_tokenizer(), make_ids(12), make_encoder(12), ModelConfig())


def test_weights_do_not_depend_on_numpy_global_state():
    np.random.seed(1)
    a = make_ids(12).codes
    np.random.seed(2)
    assert (a == make_ids(12).codes).all()
