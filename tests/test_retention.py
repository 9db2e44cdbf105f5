from __future__ import annotations

import bz2
import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_catalog, make_model

from llmrec.errors import DataError, RequestError
from llmrec.eval.result_file import check_result
from llmrec.eval.retention import benchmarks, continuations, likelihood
from llmrec.eval.retention.benchmarks import IFEVAL, TASKS, WIKITEXT, sample
from llmrec.eval.retention.comparison import compare, perplexity, targets
from llmrec.eval.retention.continuations import Continuations, continuations_of, score_continuations
from llmrec.eval.retention.generate import Reply, replies
from llmrec.eval.retention.instruction_checks import CHECKS, passes_check
from llmrec.eval.retention.instruction_following import Instruction, judge, own_instructions, read_ifeval
from llmrec.eval.retention.jobs import prepare_jobs, text_length
from llmrec.eval.retention.likelihood import block_nll, document_start, text_blocks, wikitext_nll
from llmrec.eval.retention.store import Measured, Sample, find_values, save_values
from llmrec.eval.retention.suite import _write, measure, run_retention
from llmrec.lm.rendering import Message, Text
from llmrec.ranking.grounding import GroundingChecker

# The published files, where a developer has them; see the sources in language_tasks for where they come from.
BENCHMARKS = os.environ.get("LLMREC_BENCHMARKS")
TASK = {task.name: task for task in TASKS}


def logp(model, ids):
    """float[t - 1, words]: what the model gives after each prefix, one plain pass."""
    with torch.inference_mode():
        hidden = model.hidden(model.word_embedding(torch.tensor([list(ids)])), use_cache=False)
        return torch.log_softmax(model.word_logits(hidden[0]).double(), dim=-1)


def one_by_one(model, question: Continuations):
    nll, greedy = [], []
    for ids, start in zip(question.ids, question.start, strict=True):
        table = logp(model, ids)
        nll.append(-sum(float(table[place - 1, ids[place]]) for place in range(start, len(ids))))
        greedy.append(all(int(table[p - 1].argmax()) == ids[p] for p in range(start, len(ids))))
    return np.array(nll), greedy


# scoring


@pytest.mark.parametrize("tokens", [8, 64, 2048])
def test_shared_contexts_score_as_each_sequence_alone(model, monkeypatch, tokens):
    monkeypatch.setattr(continuations, "TOKENS", tokens)
    monkeypatch.setattr(continuations, "LOGITS", 3)
    texts = [
        ("Question: who?\nAnswer:", [" me", " you and me", " nobody at all", " me"]),
        ("", ["The dog barks.", "The dog bark."]),
        ("A single one", [" word"]),
        ("ends in a blank ", ["so the blank", "moves"]),
        ("same", [" start", " started"]),  # one is the beginning of the other
        ("", ["", "a"]),  # nothing to score
    ]
    questions = [continuations_of(model, context, choices) for context, choices in texts]
    for question, found in zip(questions, score_continuations(model, questions), strict=True):
        nll, greedy = one_by_one(model, question)
        assert found.nll == pytest.approx(nll, abs=1e-3)
        assert found.greedy.tolist() == greedy


def test_the_likeliest_word_counts_as_greedy(model):
    context = "once upon a time"
    likeliest = int(logp(model, model.renderer.encode_text(context))[-1].argmax())
    ids = tuple(model.renderer.encode_text(context))
    other = (likeliest + 1) % model.vocab.base
    question = Continuations(((*ids, likeliest), (*ids, other)), (len(ids),) * 2)
    assert score_continuations(model, [question])[0].greedy.tolist() == [True, False]


def test_a_shared_prefix_is_read_once(model):
    question = continuations_of(model, "a long common context", [" x", " y"])
    assert question.shared == len("a long common context ")
    assert question.size == question.shared  # nothing follows the last ids: they are not read at all


def test_blanks_at_the_end_of_a_context_belong_to_the_continuation(model):
    assert continuations_of(model, "he said ", ["no"]) == continuations_of(model, "he said", [" no"])


def test_without_a_context_scoring_begins_at_the_document_start(model):
    question = continuations_of(model, "", ["ab"])
    assert question.ids[0] == (document_start(model), *model.renderer.encode_text("ab"))
    assert question.start == (1,)


def test_a_text_longer_than_the_context_is_refused(model):
    with pytest.raises(DataError, match="1105 tokens; the model reads 1024"):
        continuations_of(model, "a" * 1100, [" long"])


def test_running_text_scores_as_a_plain_pass_does(model):
    text = "One line.\nAnother line that is longer.\n" * 6
    blocks = text_blocks(model, text, None, 40, 0)
    found = block_nll(model, blocks)
    assert found.shape == blocks.shape == (len(text) // 40, 40)
    for line, ids in zip(found, blocks, strict=True):
        whole = [document_start(model), *ids.tolist()]
        table = logp(model, whole)
        assert line == pytest.approx([-float(table[i, whole[i + 1]]) for i in range(40)], abs=1e-3)


def test_text_comes_as_lines_or_as_a_file_of_any_packing(model, tmp_path):
    lines = [f"line {i}\n" for i in range(40)]
    raw = "".join(lines).encode()
    for name, data in (("a.txt", raw), ("a.txt.gz", gzip.compress(raw)), ("a.txt.bz2", bz2.compress(raw))):
        (tmp_path / name).write_bytes(data)
        found = wikitext_nll(model, tmp_path / name, blocks=3, length=16, seed=5)
        assert np.array_equal(found, wikitext_nll(model, lines, blocks=3, length=16, seed=5))
    assert found.shape == (3, 16)
    with pytest.raises(DataError, match="one block needs 512"):
        wikitext_nll(model, lines)


def test_the_base_is_the_model_without_what_was_added():
    tuned, untouched = make_model(seed=3), make_model(seed=3)
    with torch.no_grad():
        for name, parameter in untouched.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    lines = ["some words to read\n"] * 5
    with tuned.base_only():
        base = wikitext_nll(tuned, lines, length=20)
    assert base == pytest.approx(wikitext_nll(untouched, lines, length=20), abs=1e-5)
    assert not np.allclose(base, wikitext_nll(tuned, lines, length=20), atol=1e-2)


# replies


def greedy_by_hand(model, prompt, count):
    messages = [Message("user", (Text(prompt),)), Message("assistant", (), open=True)]
    ids, said = model.renderer.render(messages).ids.tolist(), []
    while len(said) < count:
        said.append(int(logp(model, ids + said)[-1].argmax()))
        if said[-1] == model.renderer.chat.stop:
            return said[:-1], True
    return said, False


def test_replies_in_a_batch_are_those_one_by_one(model):
    prompts = ["hi", "a much longer prompt than the first", "mid length", "hi there"]
    with torch.no_grad():  # a copy whose end marker is likely, so that lines end at different times
        eager = make_model()
        eager.word_embedding.weight[eager.renderer.chat.stop] *= 3
    for one in (model, eager):
        found = replies(one, prompts, 12, batch=3)
        for prompt, reply in zip(prompts, found, strict=True):
            ids, ended = greedy_by_hand(one, prompt, 12)
            assert (list(reply.ids), reply.ended) == (ids, ended)
            assert reply.text == one.renderer.decode_text(ids)


def test_replies_need_room(model):
    assert replies(model, [], 5) == []
    with pytest.raises(DataError, match="the model reads 1024"):
        replies(model, ["x" * 1000], 100)


# checks: a reply that passes, one that does not

CASES = {
    "punctuation:no_comma": ({}, "no such mark", "one, two"),
    "length_constraints:number_words": ({"relation": "less than", "num_words": 3}, "two words", "three words here"),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "one\n***\ntwo", "one\n***\n***\ntwo"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weekend"}, "x\n\nWeekend, at last", "x\n\ny weekend",
    ),
    "keywords:existence": ({"keywords": ["salt", "pan"]}, "A PAN of salt", "a pan"),
    "keywords:forbidden_words": ({"forbidden_words": ["rock"]}, "rocks and rocky", "a Rock."),
    "keywords:frequency": ({"keyword": "a.", "relation": "at least", "frequency": 2}, "a. A.", "ab ac"),
    "keywords:letter_frequency": ({"letter": "#", "let_relation": "at least", "let_frequency": 2}, "##", "#"),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, "*a* and *b*", "*a* and * *"),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* a\n- b", "* a\n**b**"),
    "detectable_format:multiple_sections": (
        {"section_spliter": "PART", "num_sections": 2}, "PART 1 a PART 2 b", "PART 1 a PART b",
    ),
    "detectable_format:title": ({}, "<<A day>> it was", "<< >> it was"),
    "detectable_format:json_format": ({}, '```json\n{"a": 1}\n```', "{'a': 1}"),
    "detectable_format:constrained_response": ({}, "Well. My answer is yes.", "yes"),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "[name] [day]", "[name]"),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Bye. p. s. more", "PS more"),
    "change_case:english_capital": ({}, "ALL OF IT 1", "ALL Of it"),
    "change_case:english_lowercase": ({}, "all of it 1", "All of it"),
    "change_case:capital_word_frequency": (
        {"capital_relation": "less than", "capital_frequency": 2}, "ONE-TWO three", "ONE TWO",
    ),
    "combination:two_responses": ({}, "one ****** two", "one ****** one"),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say it."}, "say it. It.", "It. Say it."),
    "startend:end_checker": ({"end_phrase": "That is all."}, 'x "that is all."', "That is all. x"),
    "startend:quotation": ({}, '"all of it"', '"half" of it'),
    "starts_with": ({"phrase": "Dear Anna"}, " dear Anna, hi", "Hi, dear Anna"),
    "contains_any": ({"words": ["cat", "dogs"]}, "a cat.", "category"),
    "at_most_words": ({"words": 2}, "don't stop", "one two three"),
    "exactly_words": ({"words": 1}, "Paris.", "In Paris"),
    "sentences": ({"sentences": 2}, 'One. "Two!" ', "One. Two. Three"),
    "lines": ({"lines": 2}, "a\n\nb\n", "a b"),
    "numbered_list": ({"items": 2}, "Sure:\n1. a\n2) b", "1. a\n3. b"),
    "comma_list": ({"items": 3}, "red, green and blue.", "red, green"),
    "one_of": ({"options": ["yes", "no"]}, "**Yes.**", "yes it is"),
    "pattern": ({"pattern": r"\W*5\W*"}, "5.", "2 + 3 = 5"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHECKS)
def test_a_check_passes_and_fails(kind):
    values, good, bad = CASES[kind]
    assert passes_check(good, kind, values)
    assert not passes_check(bad, kind, values)
    assert not passes_check(" \n", kind, values)


def test_odd_checks_are_named():
    with pytest.raises(DataError, match="no check 'rhymes'"):
        passes_check("x", "rhymes", {})
    with pytest.raises(DataError, match="does not take"):
        passes_check("x", "lines", {"many": 2})
    with pytest.raises(DataError, match="'about'"):
        passes_check("x", "length_constraints:number_words", {"relation": "about", "num_words": 2})


def test_own_instructions_are_forty_or_more_and_all_can_be_checked():
    version, instructions = own_instructions()
    assert version >= 1
    assert len({one.prompt for one in instructions}) == len(instructions) >= 40
    for one in instructions:
        for kind, values in one.checks:
            passes_check("Some words.", kind, values)


def test_what_is_measured_of_a_reply(model):
    instruction = Instruction("?", (("contains_any", {"words": ["a"]}), ("lines", {"lines": 2})))
    ids = (1, model.vocab.base, model.renderer.chat.stop)
    values = judge(instruction, Reply("a a b Funny Tale 2", ids, True), model, GroundingChecker(make_catalog()))
    assert values == {
        "acc": 0.0, "check_acc": 0.5, "distinct_1": 5 / 6, "distinct_2": 1.0, "ended": 1.0, "tokens": 3.0,
        "titles": 1.0, "entry_form": 0.0, "item_tokens": 1.0, "control_tokens": 1.0, "reply": "a a b Funny Tale 2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "is_entry"),
    [("Cold (1996). A drama film from 1996.", 1.0), ("Sure: Cold (2004)", 1.0), ("In 1996 (March)", 0.0),
     ("It ended (1945) so", 1.0), ("(1996)", 0.0), ("List (1)", 0.0)],
)  # fmt: skip
def test_entries_of_a_list_are_seen_in_a_reply(model, text, is_entry):
    instruction = Instruction("?", (("lines", {"lines": 1}),))
    assert (
        judge(instruction, Reply(text, (1,), True), model, GroundingChecker(make_catalog()))["entry_form"] == is_entry
    )


# files


def ifeval_row(kinds, values):
    return json.dumps({"key": 1, "prompt": "Do it.", "instruction_id_list": kinds, "kwargs": values})


@pytest.fixture
def folder(tmp_path) -> Path:
    """Every benchmark in its published form, tiny."""
    root = tmp_path / "benchmarks"
    rows = {
        "lambada/lambada_test.jsonl": [{"text": f"It was {w} and then she said {w}"} for w in ("no", "yes", "so")],
        "blimp/blimp.jsonl": [
            {"UID": uid, "sentence_good": f"Cats {i} sleep.", "sentence_bad": f"Cats {i} sleeps."}
            for uid in ("agreement", "islands") for i in range(5)
        ],
        "piqa/valid.jsonl": [{"goal": f"open {i}", "sol1": "turn the key", "sol2": "eat it"} for i in range(3)],
        "arc/arc_easy_test.llmfoundry.jsonl": [
            {"query": "Question: What is wet?", "choices": ["sand", "water", "fire", "glass"], "gold": 1}
        ] * 3,
    }  # fmt: skip
    files = {name: "\n".join(map(json.dumps, own)) + "\n" for name, own in rows.items()}
    files["piqa/valid-labels.lst"] = "0\n1\n0\n"
    files["hellaswag/hellaswag_val_full.txt"] = "A man: he\n2\nsits\nruns\nsings a song\nflies\n" * 3
    files["wikitext2/test.txt"] = " = Title = \n words and <unk> words . \n" * 60
    files["ifeval/input_data.jsonl"] = "\n".join(
        [
            ifeval_row(["punctuation:no_comma"], [{}]),
            ifeval_row(["length_constraints:number_words"], [{"relation": "less than", "num_words": 900}]),
            ifeval_row(["length_constraints:number_words"], [{"relation": "at least", "num_words": 900}]),
            ifeval_row(["punctuation:no_comma", "language:response_language"], [{}, {"language": "kn"}]),
        ]
    )
    for number, (name, text) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = {0: ("", text.encode()), 1: (".gz", gzip.compress(text.encode()))}
        suffix, data = packed.get(number % 3, (".bz2", bz2.compress(text.encode())))
        path.with_name(path.name + suffix).write_bytes(data)
    return root


def test_published_forms_are_read(folder):
    first = {name: benchmarks.load(task, folder, None, 0)[1][0] for name, task in TASK.items()}
    assert (first["lambada_openai"].context, first["lambada_openai"].choices) == (
        "It was no and then she said",
        (" no",),
    )
    assert first["blimp"].choices == ("Cats 0 sleep.", "Cats 0 sleeps.")
    assert (first["piqa"].context, first["piqa"].gold) == ("Question: open 0\nAnswer:", 0)
    assert first["arc_easy"].context == "Question: What is wet?\nAnswer:"
    assert first["arc_easy"].choices[first["arc_easy"].gold] == " water"
    assert (first["hellaswag"].choices[2], first["hellaswag"].lengths) == (" sings a song", (4, 4, 12, 5))


def test_ifeval_keeps_what_can_be_checked_and_fits(folder):
    kept = read_ifeval(IFEVAL.find(folder)[0])
    assert [one.checks[0][0] for one in kept] == ["punctuation:no_comma", "length_constraints:number_words"]


@pytest.mark.parametrize("name", TASK)
def test_a_missing_file_says_what_to_fetch(folder, name):
    for path in TASK[name].source.find(folder):
        path.unlink()
    with pytest.raises(DataError, match=r"no file .* fetch it from https://github.com/"):
        benchmarks.load(TASK[name], folder, None, 0)


@pytest.mark.parametrize("name", TASK)
def test_a_wrong_file_is_named(folder, name):
    path = TASK[name].source.find(folder)[0]
    path.write_bytes(b"{}")
    with pytest.raises(DataError, match=path.name):
        benchmarks.load(TASK[name], folder, None, 0)


def test_samples_are_even_over_groups_and_fixed_by_the_seed():
    groups = ["a"] * 50 + ["b"] * 10 + ["c"] * 3
    drawn = sample(groups, 9, 0)
    assert drawn == sorted(set(drawn)) == sample(groups, 9, 0) != sample(groups, 9, 1)
    assert [sum(groups[i] == name for i in drawn) for name in "abc"] == [3, 3, 3]
    assert sample(groups, 999, 0) == list(range(63))


# what follows from the values


def test_differences_are_paired():
    base, tuned = [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]
    rows = [[{"acc": v, "reply": "x"} for v in side] for side in (base, tuned)]
    (acc,) = compare("piqa", *rows, main="acc")
    assert (acc.base.mean, acc.tuned.mean, acc.difference.mean, acc.n, acc.main) == (0.75, 0.25, -0.5, 4, True)
    assert acc.se == pytest.approx(np.std([-1, 0, 0, -1], ddof=1) / 2)
    assert not acc.worse  # -0.5 is less than two errors of 0.289
    assert replace(acc, se=0.24).worse
    assert acc.difference.ci95 == pytest.approx((-0.5 - 1.96 * acc.se, -0.5 + 1.96 * acc.se), abs=1e-4)


def test_sides_of_unequal_length_are_no_pairs():
    with pytest.raises(ValueError, match="1 items of the base and 0"):
        compare("piqa", [{"acc": 1.0}], [], main="acc")


def test_perplexity_is_a_word_and_the_targets_follow():
    nats = [[{"nats_per_token": v} for v in side] for side in ((2.0, 2.2), (2.1, 2.5))]
    (compared,) = compare("wikitext2", *nats, main=None)
    row = perplexity(compared, tokens=150, words=100)
    assert row.metrics["base"].mean == pytest.approx(np.exp(2.1 * 1.5))
    assert row.metrics["ratio"].mean == pytest.approx(np.exp(0.2 * 1.5))
    low = [{"acc": v} for v in (1.0, 1.0, 0.0, 0.0)]
    tasks = [compare("a", low, [{"acc": 0.0}] * 4, "acc")[0], compare("b", low, low, "acc")[0]]
    found = {one.name: one.value for one in targets([compared, *tasks], 1.35)}
    assert found == {"wikitext2_ppl_ratio": 1.35, "task_mean_ratio": 0.5, "tasks_significantly_worse": 0.0}
    assert targets([compared], 1.0)[1].value is None


def test_values_are_found_for_the_same_sample_only(tmp_path):
    path = tmp_path / "deep" / "x.parquet"
    one = Sample("piqa", "1.1", ("ab",), 0, 2, {"tokens": 9}, ("base",))
    measured = Measured([3, 5], [{"acc": 1.0, "reply": "a"}, {"acc": 0.0, "reply": "ü"}], 1.5)
    assert find_values(path, one) is None
    save_values(path, one, measured)
    assert find_values(path, one) == measured
    assert find_values(path, replace(one, seed=1)) is None
    assert find_values(path, replace(one, model=("base", "tuned"))) is None
    path.write_bytes(path.read_bytes()[:-20])
    assert find_values(path, one) is None


# the whole


@pytest.fixture
def jobs(folder, monkeypatch):
    monkeypatch.setattr("llmrec.eval.retention.instruction_following.OWN_TOKENS", 4)
    monkeypatch.setattr("llmrec.eval.retention.instruction_following.IFEVAL_TOKENS", 4)
    return lambda model: prepare_jobs(model, folder, GroundingChecker(make_catalog()), 2, 0)


def test_the_suite_measures_both_sides_and_goes_on_where_it_was(folder, jobs, tmp_path):
    model, out = make_model(), tmp_path / "results"
    with model.base_only():
        base = block_nll(model, text_blocks(model, " = Title = \n words and <unk> words . \n" * 60, 2, 512, 0))
    made, length = jobs(model), text_length(model, folder)
    result = measure(model, made, ("base", "tuned"), out / "per_item", "toy", length)
    assert [one.main for one in result.compared].count(True) == 7
    assert result.compared[0].base.mean == pytest.approx(base.mean(), abs=1e-5)
    assert result.compared[0].difference.mean != 0

    def unused(model, told):
        raise AssertionError("measured again")

    done = [replace(job, run=unused) for job in made]
    assert measure(make_model(), done, ("base", "tuned"), out / "per_item", "toy", length) == result
    with pytest.raises(AssertionError, match="measured again"):  # another adapter: the base's values alone stay
        measure(make_model(), done, ("base", "other"), out / "per_item", "toy", length)
    _write(result, out, "ml-100k", folder, 2, 0)
    written = json.loads((out / "retention-ml-100k.json").read_text())
    check_result(written, "retention-ml-100k")
    assert written["provenance"]["command"] == "llmrec eval --suite retention --data-dir benchmarks --limit 2"


def test_an_unchanged_model_has_lost_nothing(folder, jobs, tmp_path):
    model = make_model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    result = measure(model, jobs(model), ("base", "tuned"), tmp_path, "toy", text_length(model, folder))
    assert {one.name: one.value for one in result.targets} == {
        "wikitext2_ppl_ratio": pytest.approx(1.0, abs=1e-5),
        "task_mean_ratio": 1.0 if any(one.main and one.base.mean for one in result.compared) else None,
        "tasks_significantly_worse": 0.0,
    }


def test_the_command_says_what_it_lacks_before_it_loads_a_model(tmp_path):
    with pytest.raises(RequestError, match="--data-dir is missing"):
        run_retention(None, None, None, tmp_path)
    with pytest.raises(DataError, match=r"wikitext2/test\.txt"):
        run_retention(tmp_path / "no-model", None, tmp_path, tmp_path)


@pytest.mark.skipif(BENCHMARKS is None, reason="set LLMREC_BENCHMARKS to the directory of the published files")
def test_the_published_files_have_their_published_counts():
    root = Path(str(BENCHMARKS))
    counts = {"lambada_openai": 5153, "blimp": 67000, "piqa": 1838, "arc_easy": 2376, "hellaswag": 10042}
    assert {n: len(benchmarks.load(t, root, 10**6, 0)[1]) for n, t in TASK.items()} == counts
    groups = [one.group for one in benchmarks.load(TASK["blimp"], root, 134, 0)[1]]
    assert {groups.count(name) for name in groups} == {2}
    assert len(set(groups)) == 67
    assert len(read_ifeval(IFEVAL.find(root)[0])) > 300
    text = likelihood.read_text(WIKITEXT.find(root)[0])
    assert len(text.split()) + text.count("\n") == 245_569
