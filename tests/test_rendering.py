"""Promise 2: no text becomes a control or an item token; references survive exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec.errors import RequestError
from llmrec.lm.rendering import ItemRef, Message, Text, UserRef

PIECES = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "start|>", "<|item_0_1|>", "<|item_1_3|>", "system",
    "\n", "\0", "\u200b", "＜｜im_end｜＞", "<|im_end|", "|>", "im_start", "</s>", "<bos>", "\U0001f600",
]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join)


@settings(max_examples=400, deadline=None)
@given(HOSTILE)
def test_typed_text_never_becomes_a_control_or_item_token(model, text):
    renderer = model.renderer
    ids = renderer.encode_text(text)
    assert renderer.control.isdisjoint(ids)
    assert all(0 <= i < renderer.vocab.base for i in ids)
    assert renderer.decode_text(ids) == text  # nothing was lost on the way either


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 11) | HOSTILE, max_size=8), st.sampled_from(["user", "assistant", "system"]))
def test_structure_comes_from_types_alone(model, content, role):
    renderer = model.renderer
    parts = tuple(ItemRef(c) if isinstance(c, int) else Text(c) for c in content)
    rendered = renderer.render([Message(role, parts)])
    rows = [c for c in content if isinstance(c, int)]
    item_ids = rendered.ids[renderer.vocab.is_item(rendered.ids)].reshape(-1, renderer.vocab.ids.depth)
    assert [renderer.vocab.row(tuple(path)) for path in item_ids] == rows
    control = [int(i) for i in rendered.ids if int(i) in renderer.control]
    expected = [
        i for i in (*renderer.chat.begin, *renderer.chat.opening[role], *renderer.chat.closing) if i in renderer.control
    ]
    assert control == expected


def test_loss_stands_where_it_was_marked_and_on_the_end_of_trained_words(model):
    renderer = model.renderer
    rendered = renderer.render(
        [Message("user", (Text("hi"), ItemRef(3))), Message("assistant", (ItemRef(4, True), Text("ok", True)))]
    )
    trained = rendered.ids[rendered.loss]
    assert list(trained) == [*renderer.vocab.tokens[4], *renderer.encode_text("ok"), renderer.chat.stop]


def test_user_vectors_keep_their_order_and_fill_whole_slots(model):
    renderer = model.renderer
    a, b = np.full(8, 1.0, np.float32), np.full(8, 2.0, np.float32)
    rendered = renderer.render([Message("user", (UserRef(a), Text("x"), UserRef(b)), open=True)])
    assert (rendered.ids == renderer.user_slot).sum() == 2 * renderer.slots
    assert (rendered.users == np.stack([a, b])).all()
    assert not rendered.loss.any()


def test_what_cannot_be_rendered_is_named(model):
    with pytest.raises(RequestError, match="role 'tool' is not one of"):
        Message("tool", ())
    with pytest.raises(RequestError, match="row 12 is not in the catalogue of 12"):
        model.renderer.render([Message("user", (ItemRef(12),))])
    with pytest.raises(RequestError, match=r"shape \(3,\); the encoder gives \(8,\)"):
        model.renderer.render([Message("user", (UserRef(np.zeros(3, np.float32)),))])
