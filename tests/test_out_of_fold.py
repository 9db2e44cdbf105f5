"""Cross-fitted user vectors: nobody's own interactions in them, one space for all folds, nothing fitted twice."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_catalog, make_interactions

from llmrec.data.interactions import Interactions, leave_one_out
from llmrec.finetune import stages
from llmrec.finetune.out_of_fold import assign_folds, out_of_fold_vectors, procrustes_rotation
from llmrec.finetune.recipe import load_recipe
from llmrec.finetune.stages import Inputs

FOLDS = 3


def inputs_of(interactions: Interactions, work, said=None) -> Inputs:
    recipe = load_recipe("smoke")
    return Inputs(
        make_catalog(), leave_one_out(interactions), recipe, work, (lambda line: None) if said is None else said.append
    )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    work = tmp_path_factory.mktemp("crossfit")
    inputs = inputs_of(make_interactions(), work)
    full = stages.encoder(inputs)
    return inputs, full, out_of_fold_vectors(inputs, full, FOLDS)


def test_folds_are_equal_and_come_from_the_seed():
    fold = assign_folds(40, FOLDS, 0)
    assert sorted(np.bincount(fold).tolist()) == [13, 13, 14]
    assert (fold == assign_folds(40, FOLDS, 0)).all() and (fold != assign_folds(40, FOLDS, 1)).any()


def test_a_rotated_space_is_turned_back():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 8)).astype(np.float32)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    found = procrustes_rotation(vectors @ turn, vectors, rng.random(30) + 0.1)
    np.testing.assert_allclose(vectors @ turn @ found, vectors, atol=1e-5)
    np.testing.assert_allclose(found @ found.T, np.eye(8), atol=1e-5)


def test_every_position_has_a_vector_in_the_space_of_the_full_encoder(fitted):
    inputs, full, vectors = fitted
    train = inputs.split.train
    assert [len(v) for v in vectors] == [len(train.rows_of(u)) for u in range(len(train.users))]
    # the toy world's next item is known: rotated vectors must rank it with the full encoder's item vectors
    ranks, chance = [], []
    for user, own in enumerate(vectors):
        rows = train.rows_of(user)
        for t in range(len(rows) - 1):
            scores = own[t] @ full.item_vectors.T + full.bias
            ranks.append(int((scores > scores[rows[t + 1]]).sum()))
            chance.append((len(full.bias) - 1) / 2)
    assert np.mean(ranks) < 0.5 * np.mean(chance)


def test_a_users_vectors_do_not_depend_on_what_their_fold_took_later(fitted, tmp_path):
    """Another train item of a user changes no vector before it: neither the encoder of the fold nor the history."""
    inputs, full, vectors = fitted
    whole = make_interactions()
    user = 0
    place = int(whole.offsets[user]) + len(inputs.split.train.rows_of(user)) - 1  # the last one of the train part
    rows = whole.row.copy()
    rows[place] = (rows[place] + 1) % 12
    other = inputs_of(replace(whole, row=rows), tmp_path)
    # the rotation reads the full encoder and the counts: hold both to see the fold's encoder alone
    again = out_of_fold_vectors(other, full, FOLDS)
    before, after = vectors[user][:-1], again[user][:-1]
    np.testing.assert_allclose(after @ after.T, before @ before.T, rtol=1e-4, atol=1e-4)
    assert not np.allclose(again[user][-1], vectors[user][-1], atol=1e-3)


def test_it_is_a_stage_that_is_made_once(fitted):
    inputs, full, vectors = fitted
    said: list[str] = []
    again = out_of_fold_vectors(inputs_of(make_interactions(), inputs.work, said), full, FOLDS)
    assert said == ["crossfit: already there"]
    assert all((a == b).all() for a, b in zip(again, vectors, strict=True))
    said.clear()
    out_of_fold_vectors(inputs_of(make_interactions(), inputs.work, said), full, 2)
    assert said[0] == "crossfit: made from other inputs, made again"


def test_one_fold_is_refused():
    recipe = load_recipe("smoke").model_dump()
    recipe["traffic"]["folds"] = 1
    with pytest.raises(ValueError, match="1 fold leaves nobody"):
        type(load_recipe("smoke")).model_validate(recipe)
