"""Agreement measures by hand, variants, the candidates-in-the-prompt yardstick, and the suite on a toy world."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import HashEmbedder, make_catalog, make_interactions, make_model

from llmrec.data.interactions import leave_one_out
from llmrec.dialogue.chat import Profile
from llmrec.encoders.item_knn import NeighbourSettings, fit_neighbours
from llmrec.errors import ArtifactError
from llmrec.eval import chat_client
from llmrec.eval.ranked_lists import target_users
from llmrec.eval.result_file import check_result
from llmrec.eval.stability import base_model, paraphrases, request_variants, suite
from llmrec.eval.stability.metrics import agreement, kendall_tau, overlap, quarters, rbo, spread, spread_ci, top1_flip
from llmrec.lm import prompts
from llmrec.ranking import scorer as scorer_module
from llmrec.ranking.fusion import Fusion
from llmrec.ranking.scorer import Scorer
from llmrec.recommender import Recommender
from llmrec.semantic_ids.trie import Trie

N = 12


def make_recommender(model=None) -> Recommender:
    model = model or make_model(N)
    interactions, catalog, embedder = make_interactions(n=N), make_catalog(N), HashEmbedder()
    knn = fit_neighbours(interactions, N, NeighbourSettings())
    text = embedder.encode([catalog.describe(row) for row in range(N)])
    trie = Trie(model.vocab.ids.codes, model.vocab.ids.size, np.log1p(np.arange(N) % 5))
    scorer = Scorer(model, trie, text, knn, embedder, "films", 6)
    weights = {"encoder": 1.0, "llm": 0.7, "profile": 0.2, "neighbours": 0.5}
    fusions = {"history": Fusion(weights), "words": Fusion({**weights, "words": 0.5})}
    meta = {"train_fingerprint": leave_one_out(interactions).train.fingerprint}
    return Recommender(catalog, interactions, scorer, fusions, meta, "toy")


@pytest.fixture(scope="module")
def recommender():
    return make_recommender()


@pytest.fixture(scope="module")
def split(recommender):
    return leave_one_out(recommender.interactions)


@pytest.fixture(scope="module")
def cases(recommender, split):
    return request_variants.draw_cases(recommender.catalog, split, target_users(split, "test", 6, 0), 0)


def of_kind(cases, kind):
    return next(case for case in cases if case.kind == kind)


def test_kendall_tau_equals_counting_pairs():
    assert kendall_tau([5, 6, 7, 8], [5, 7, 6, 8]) == pytest.approx((5 - 1) / 6)
    assert kendall_tau([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]) == pytest.approx(-1)
    assert kendall_tau([4], [4]) == 1.0
    assert kendall_tau([], [1, 2]) == kendall_tau([1], []) == 0.0
    # [1, 2, 3] and [1, 2, 4]: 4 ties with nothing in the first but lies behind all; of the six pairs of 1, 2, 3, 4
    # five are ordered alike or tied in neither, (3, 4) is reversed
    assert kendall_tau([1, 2, 3], [1, 2, 4]) == pytest.approx((5 - 1) / 6)


def test_rbo_equals_the_formula_by_hand():
    # agreement at depths 1, 2, 3 is 1, 1/2, 1: (1 - p) / p * (p + p^2 / 2 + p^3) + p^3
    p = 0.9
    assert rbo([1, 2, 3], [1, 3, 2], p) == pytest.approx((1 - p) / p * (p + p**2 / 2 + p**3) + p**3)
    assert rbo([1, 2, 3], [2, 3, 1], 0.5) == pytest.approx(1.0 * (0 + 0.25 / 2 + 0.125) + 0.125)
    assert rbo([1], [1, 2]) == pytest.approx(1.0)  # nothing speaks against the shorter list going on alike
    assert rbo([2], [1, 2], p) == pytest.approx((1 - p) / p * (0.5 * p**2) + (1 / 2) * p**2)
    assert rbo([1, 2], [3, 4]) == 0.0
    assert rbo([], [1]) == rbo([], []) == 0.0


def test_the_first_ten_places_decide_rbo():
    base = list(range(10))
    assert rbo(base, [0, *range(2, 10), 1]) > rbo(base, [9, *range(1, 9), 0])


def test_overlap_counts_the_longer_list():
    assert overlap(range(10), range(5, 15)) == 0.5
    assert overlap(range(10), range(3)) == 0.3
    assert overlap(range(20), [*range(9), 30, 31]) == 0.9
    assert overlap([], []) == 0.0


def test_silence_is_no_stability():
    assert top1_flip([1], [1, 2]) == 0.0
    assert top1_flip([1], [2]) == top1_flip([], []) == top1_flip([1], []) == 1.0


def test_agreement_takes_all_pairs_or_the_original_alone():
    first, second = [1, 2], [3, 4]
    every = agreement(first, [first, second], every_pair=True)
    assert every["overlap@10"] == pytest.approx(1 / 3) and every["top1_flip"] == pytest.approx(2 / 3)
    assert agreement(first, [first, second], every_pair=False)["overlap@10"] == 0.5
    with pytest.raises(ValueError, match="at least one variant"):
        agreement(first, [], every_pair=True)


def test_spread_is_over_the_variants_means():
    values = np.array([[1.0, 0.0, 0.5], [0.0, 0.0, 0.5]])
    assert spread(values) == pytest.approx(np.std([0.5, 0.0, 0.5]))
    low, high = spread_ci(values, 0)
    assert low <= spread(values) <= high
    assert spread_ci(values, 0) == (low, high)


def test_quarters_of_a_listing():
    assert quarters(np.arange(8), 8).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_there_are_enough_phrasings_and_none_is_trained_on():
    trained = {plain(one) for name in prompts.template_names() for one in prompts.load_template(name).user}
    for phrasings in paraphrases.PHRASINGS.values():
        assert len({plain(one) for one in phrasings}) == len(phrasings) >= 13
        assert not trained & {plain(one) for one in phrasings if one != "{wish}"}


def plain(phrase: str) -> str:
    return " ".join(re.sub(r"\W+", " ", re.sub(r"\{\w+\}", "_", phrase.lower())).split())


def test_typos_are_few_seeded_and_spare_first_letters():
    text = "Find comedies from the 1990s for me, please, and something else that I would like very much."
    once, again = (paraphrases.typos(text, np.random.default_rng(3)) for _ in range(2))
    assert once == again != text
    pairs = [(a, b) for a, b in zip(text.split(), once.split(), strict=True) if a != b]
    assert 1 <= len(pairs) <= 2 and all(a[0] == b[0] for a, b in pairs)
    assert "1990s" in once
    assert paraphrases.typos("Go on!", np.random.default_rng(0)) == "Go on!"


@pytest.mark.parametrize("seed", range(20))
def test_a_slip_changes_one_place(seed):
    slipped = paraphrases.typos("comedies", np.random.default_rng(seed))
    assert slipped != "comedies" and abs(len(slipped) - 8) <= 1 and slipped[0] == "c"


def test_other_words_marks_and_asides():
    assert (
        paraphrases.synonyms("Recommend me a {thing} I would like, please.")
        == "Suggest me a {thing} I would enjoy, kindly."
    )
    assert paraphrases.bare("What now? Go on.") == "What now Go on"
    assert paraphrases.emphatic("What now?") == "... What now???"
    assert paraphrases.emphatic("Comedies") == "... Comedies!!!"
    assert paraphrases.with_aside("Comedies", "I slept.", False) == "Comedies. I slept."
    assert paraphrases.with_aside("Comedies", "I slept.", True) == "I slept. Comedies"
    assert paraphrases.decade(1990, True) == "the nineties" and paraphrases.decade(1910, True) == "the 1910s"


def test_nouns_come_from_the_catalogue(catalog):
    nouns = paraphrases.Nouns.of(catalog)
    assert nouns.fill("which {thing} of the {things} to {verb}") == "Which film of the films to watch"
    assert (nouns.of_value("Comedy"), nouns.of_value("Horror", True)) == ("comedies", "scary films")
    assert nouns.other.of_value("Sci-Fi") == "sci-fi movies"
    assert paraphrases.Nouns("tool", "tools", "try").of_value("Garden") == "garden tools"


def test_cases_depend_on_their_user_alone(recommender, split, cases):
    users = sorted({case.user for case in cases})
    alone = request_variants.draw_cases(recommender.catalog, split, np.array(users[:1]), 0)
    assert alone == [case for case in cases if case.user == users[0]]
    assert {case.kind for case in cases} == set(request_variants.KINDS)
    for case in cases:
        assert case.target == split.test[case.user] and case.target not in case.history
        assert not case.candidates or case.candidates.count(case.target) == 1
        assert not set(case.candidates) & set(case.history)


def test_variants_keep_what_they_do_not_change(recommender, cases):
    for case in cases:
        found = request_variants.variants(recommender.catalog, case, 0)
        assert found == request_variants.variants(recommender.catalog, case, 0)
        names = [one.name for one in found]
        assert len(set(names)) == len(names)
        assert sum(one.group == "paraphrase" for one in found) == len(paraphrases.PHRASINGS[case.kind])
        assert all(sorted(one.candidates) == sorted(case.candidates) for one in found)
        assert all(sorted(one.named) == sorted(case.named) for one in found)


def test_the_true_item_visits_every_quarter(recommender, cases):
    case = of_kind(cases, "candidates")
    orders = [one for one in request_variants.variants(recommender.catalog, case, 0) if one.group == "order"]
    slots = np.array([one.candidates.index(case.target) for one in orders])
    assert quarters(slots, len(case.candidates)).tolist() == [0, 1, 2, 3]
    assert len({one.text for one in orders}) == 1


def test_attributes_are_the_targets_own(recommender, cases):
    case = of_kind(cases, "attributes")
    item = recommender.catalog[case.target]
    nouns = paraphrases.Nouns.of(recommender.catalog)
    assert nouns.of_value(item.attributes["genre"][0]) in case.wish[0]
    assert f"{item.attributes['year'] // 10}0s" in case.wish[0]


def test_the_chat_answers_the_request_of_the_case(recommender, cases):
    case = of_kind(cases, "candidates")
    reply = chat_client.ask_chat(
        recommender, "What should I watch next?", case.history, case.candidates, k=len(case.candidates)
    )
    assert sorted(reply.rows) == sorted(case.candidates)
    assert reply.words == "" and reply.facts
    wish = chat_client.ask_chat(recommender, "horror", case.history)
    assert {recommender.catalog[row].attributes["genre"] for row in wish.rows} == {("Horror",)}
    assert chat_client.ask_chat(recommender, "hello").profile == Profile()


def test_a_remembering_scorer_reads_once_and_scores_the_same(monkeypatch, recommender, cases):
    case = of_kind(cases, "next")
    asked = "something with a tale in it"
    plain_rows = [chat_client.ask_chat(recommender, text, case.history).rows for text in (asked, "what next")]
    remembering = chat_client.with_caching_scorer(recommender)
    calls = []
    original = scorer_module.DecodeState
    monkeypatch.setattr(scorer_module, "DecodeState", lambda *given: calls.append(given) or original(*given))
    for _ in range(2):
        assert [
            chat_client.ask_chat(remembering, text, case.history).rows for text in (asked, "what next")
        ] == plain_rows
    assert len(calls) == 2


def test_letters_and_titles_equal_plain_scoring(recommender, cases):
    """One pass with branches gives what a pass for every candidate gives."""
    model, catalog = recommender.model, recommender.catalog
    case = of_kind(cases, "candidates")
    variant = request_variants.variants(catalog, case, 0)[0]
    messages = base_model.prompt(catalog, case, variant)
    titles = [catalog[row].title for row in variant.candidates]
    letters, means = base_model.scores(model, messages, titles)
    start = model.renderer.render(messages).ids.tolist()
    for place, title in enumerate(titles):
        for words, got, per in (("ABCDEFGH"[place], letters[place], 1), (title, means[place], None)):
            ids = model.renderer.encode_text(words)
            with torch.inference_mode(), model.base_only():
                hidden = model.hidden(model.word_embedding(torch.tensor([[*start, *ids]])))[0]
                logp = torch.log_softmax(model.word_logits(hidden[len(start) - 1 : -1]), dim=-1)
            summed = float(logp[range(len(ids)), ids].sum())
            assert got == pytest.approx(summed / (per or len(ids)), abs=1e-4)


def test_the_prompt_lists_the_candidates_in_the_variants_order(recommender, cases):
    case = of_kind(cases, "candidates")
    variant = request_variants.variants(recommender.catalog, case, 0)[-1]
    text = base_model.prompt(recommender.catalog, case, variant)[0].parts[0].text
    places = [text.index(f". {recommender.catalog[row].title}\n") for row in variant.candidates]
    assert places == sorted(places) and variant.text in text


def ranked(system, user, group, variant, rows, place=0, slot=-1, kind="candidates"):
    return suite.RankedVariant(system, kind, user, group, variant, "", tuple(rows), place, slot)


def test_values_and_targets_of_known_answers():
    lines = [
        ranked("hybrid", 0, "paraphrase", "paraphrase-00", [1, 2], 0),
        ranked("hybrid", 0, "paraphrase", "paraphrase-01", [2, 1], 1),
        *(ranked("hybrid", 0, "order", f"order-{n}", [1, 2], 0, n % 2) for n in range(1, 5)),
        ranked("hybrid", 0, "noise", "lower-case", [1, 2], 0),
        ranked("hybrid", 0, "irrelevant", "aside-1", [], -1),
    ]
    values = suite.measure(lines)
    rows = suite.estimates(lines, values, 0)
    assert [row.name for row in rows] == ["hybrid", "hybrid candidates"]
    told = {one.name: one.value for one in suite.targets(rows)}
    assert told["order_kendall_tau"] == 1.0 and told["order_top1_flip"] == 0.0
    assert told["paraphrase_overlap10"] == 1.0 and told["paraphrase_top1_flip"] == 1.0
    assert told["noise_overlap10"] == 0.5  # one of the two disturbed requests got no list
    metrics = rows[1].metrics
    assert metrics["irrelevant/answered"].mean == 0.0
    assert metrics["paraphrase/ndcg@10"].mean == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert metrics["paraphrase/ndcg@10_spread"].mean == pytest.approx((1 - 1 / np.log2(3)) / 2)
    assert {name for name in metrics if name.startswith("position")} == {
        "position/ndcg@10_true_in_quarter_1", "position/ndcg@10_true_in_quarter_3",
    }  # fmt: skip


def test_candidates_in_another_order_change_nothing(recommender, cases):
    answer = suite.hybrid(recommender)
    case = of_kind(cases, "candidates")
    orders = [one for one in request_variants.variants(recommender.catalog, case, 0) if one.group == "order"]
    assert len({answer(case, one)["hybrid"] for one in orders}) == 1


def test_the_suite_writes_a_result_in_the_form(monkeypatch, tmp_path, capsys):
    loaded = make_recommender()
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda *_: loaded))
    monkeypatch.setattr(suite, "open_base_model", lambda *_: make_model(N))
    monkeypatch.setattr(suite, "BASE_USERS", 1)
    suite.run_stability(None, None, tmp_path, 3)
    value = json.loads((tmp_path / "stability-toy.json").read_text())
    check_result(value, "stability-ml-100k")
    rows = {row["name"]: row["metrics"] for row in value["rows"]}
    assert {"hybrid", "hybrid next", "hybrid named", "base-letters candidates", "base-titles named"} <= set(rows)
    assert rows["hybrid candidates"]["order/kendall_tau"]["mean"] == 1.0
    told = {one["name"]: one["value"] for one in value["targets"]}
    assert all(value is not None for value in told.values())
    assert value["provenance"]["command"] == "llmrec eval --suite stability --limit 3"
    table = pq.read_table(tmp_path / "per_user" / "per-user-stability-toy.parquet").to_pylist()
    mine = [one["value"] for one in table if (one["system"], one["metric"]) == ("hybrid", "paraphrase/overlap@10")]
    assert rows["hybrid"]["paraphrase/overlap@10"]["mean"] == pytest.approx(np.mean(mine), abs=1e-6)
    assert "true item in each quarter" in " ".join(capsys.readouterr().out.split())


def test_a_model_of_another_split_is_refused(monkeypatch, tmp_path):
    loaded = make_recommender()
    loaded.model_card["train_fingerprint"] = "f" * 64
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda *_: loaded))
    with pytest.raises(ArtifactError, match="trained on the train part ffff"):
        suite.run_stability(None, None, tmp_path)


def test_cases_leave_out_what_cannot_be_answered(recommender, split):
    user = int(np.flatnonzero(split.test >= 0)[0])
    repeated = replace(split, test=split.test.copy())
    repeated.test[user] = split.history(user, "test")[0]
    assert request_variants.draw_cases(recommender.catalog, repeated, np.array([user]), 0) == []
