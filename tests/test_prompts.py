import string

import pytest

from llmrec.errors import RecipeError
from llmrec.lm.prompts import SERVED, fill_template, load_template, template_names, templates_hash
from llmrec.lm.rendering import ItemRef, Text


def test_every_template_loads_with_plain_slots_and_several_phrasings():
    assert len(template_names()) >= 8
    for name in template_names():
        template = load_template(name)
        assert template.user
        if name not in ("system", "talk"):
            assert len(template.user) >= 3
    assert len(templates_hash()) == 64


def test_only_served_templates_tie_a_model_to_them():
    """Other training phrases make other models, but a trained one goes on loading."""
    assert set(SERVED) < set(template_names())
    assert templates_hash() == templates_hash(SERVED) != templates_hash(tuple(template_names()))


def test_slots_are_filled_once_and_never_parsed_again():
    parts = fill_template("a {x} b{item}c {y}", {"x": "{y} {item.__class__}", "item": ItemRef(3), "y": "z"})
    assert parts == (Text("a {y} {item.__class__} b"), ItemRef(3), Text("c z"))


def test_a_missing_slot_and_an_unknown_template_are_named():
    with pytest.raises(RecipeError, match=r"'{wish}' has no value; given: history"):
        fill_template("{wish}", {"history": ()})
    with pytest.raises(RecipeError, match="no prompt template 'nope'; there are: attribute"):
        load_template("nope")
    with pytest.raises(RecipeError, match="no prompt template"):
        load_template("../system")


def test_loss_marks_words_but_not_given_parts():
    parts = fill_template("{item} is {title}.", {"item": ItemRef(1), "title": "T"}, loss=True)
    assert parts == (ItemRef(1), Text(" is T.", True))


def test_formatter_sees_no_positional_slots():
    for name in template_names():
        for phrase in (*load_template(name).user, *load_template(name).assistant):
            assert all(slot != "" for _, slot, _, _ in string.Formatter().parse(phrase))
