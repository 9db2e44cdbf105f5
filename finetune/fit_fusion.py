"""Fits the fusion weights, with and without a user message, on validation items that are used for nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from llmrec.data.interactions import fusion_users
from llmrec.finetune.data.attribute_wishes import wish
from llmrec.finetune.stages import Inputs, run_stage, settings_hash
from llmrec.progress import counted
from llmrec.ranking.fusion import FAMILIAR_COUNT, FAMILIARITY_PARTS, NON_NEGATIVE, PRIOR_WEIGHTS, Fusion, fit_or_keep
from llmrec.ranking.fusion_candidates import FusionCandidates, sample_users, shortlists, whole_catalog
from llmrec.ranking.scorer import Scorer, fixed_threads
from llmrec.storage.artifacts import fingerprint_arrays

_ALLOWED = "stands_for"  # key of the stage's arrays that is not a part


def fit_fusions(inputs: Inputs, scorer: Scorer) -> tuple[dict[str, Fusion], dict[str, float]]:
    """Return the fusion weights by kind of request, and their cross-validated gain over the encoder alone.

    The gain is in nats per target. For requests of the kind "words", the message is a wish made from the fields of the
    validation item itself.
    """
    split, catalog, seed = inputs.split, inputs.catalog, inputs.recipe.seed
    users = sample_users(fusion_users(split), scorer, seed)
    histories = [split.history(int(u), "valid") for u in users]
    targets = split.valid[users]
    rng = np.random.default_rng([seed, 7])
    asked = [f"Recommend {wish(catalog, int(t), rng)[0]}." for t in targets]
    fusions, gains = {}, {}
    for kind, said in (("history", [""] * len(users)), ("words", asked)):
        of = _choices(inputs, scorer, kind, histories, said, targets)
        prior = {name: weight for name, weight in PRIOR_WEIGHTS.items() if name in of.parts}
        inputs.say(f"fusion ({kind}): fitting {len(prior)} weights to {len(of.targets)} validation items")
        fusions[kind], gains[kind] = fit_or_keep(
            of.parts, of.targets, of.allowed, prior, NON_NEGATIVE, FAMILIARITY_PARTS, say=inputs.say
        )
        inputs.say(f"fusion ({kind}): {dict(fusions[kind].weights)}, {gains[kind]:+.4f} nats over the encoder alone")
    return fusions, gains


def _choices(
    inputs: Inputs,
    scorer: Scorer,
    kind: str,
    histories: Sequence[np.ndarray],
    said: Sequence[str],
    targets: np.ndarray,
) -> FusionCandidates:
    """Return the candidates and scores that the weights are fitted on.

    The language model's scores are cached as a stage, because the model reads every history.
    """
    seed = inputs.recipe.seed

    def score() -> Mapping[str, np.ndarray]:
        inputs.say(f"fusion: the language model reads {len(histories)} validation histories ({kind})")
        told = counted(histories, f"fusion ({kind}): the language model reads", inputs.say, "histories")
        with fixed_threads():
            if scorer.is_small:
                return {"llm": scorer.llm(told, said)}
            of = shortlists(scorer, told, said, targets, seed)
        return {**of.parts, _ALLOWED: of.allowed}

    fingerprint = settings_hash(
        weights=fingerprint_arrays(**{n: t.numpy() for n, t in scorer.model.added_state().items()}),
        text=fingerprint_arrays(text=scorer.text),
        products=scorer.model.matmul_dtype,
        histories=[h.tolist() for h in histories],
        said=list(said),
        window=scorer.window,
        prior=fingerprint_arrays(prior=scorer.popularity),
        **(
            {}
            if scorer.is_small
            else {
                "leaning": [*FAMILIARITY_PARTS, FAMILIAR_COUNT],
                "rest": fingerprint_arrays(**scorer.neighbours.state()),
                "profile": asdict(scorer.profile_settings),
                "seed": seed,
            }
        ),
    )
    arrays = run_stage(inputs, f"scores-{kind}", fingerprint, score)
    if scorer.is_small:
        return whole_catalog(scorer.parts(histories, said, arrays["llm"]), histories, targets)
    parts = {name: array for name, array in arrays.items() if name != _ALLOWED}
    return FusionCandidates(parts, np.zeros(len(histories), np.int64), arrays[_ALLOWED])
