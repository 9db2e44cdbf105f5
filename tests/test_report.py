"""The report says what the files say, where it comes from, what is missing, and refuses to mix what does not belong."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from llmrec.errors import DataError, RequestError
from llmrec.eval import result_file
from llmrec.eval.report import plots
from llmrec.eval.report.build import COMMANDS, run_report
from llmrec.eval.report.page import Section, Table, html, markdown
from llmrec.eval.report.results import check_one_catalogue, load_results, merge_results
from llmrec.eval.result_file import Estimate, Row, Target, provenance, stamp_result, write_per_user, write_result
from llmrec.eval.retention.instruction_following import own_instructions
from llmrec.eval.retention.store import Measured, Sample, save_values

QUIET = Console(quiet=True)
EVIL = '<img src=x onerror=alert(1)>|`$x$`[a](javascript:1)\n<script>alert("x")</script>'
PROTOCOL = {"split": "leave-one-out", "part": "test", "candidates": "all 12 items", "seen_filtered": True, "users": 40,
            "best_baseline": "item-knn", "users_cold": 3, "users_short": 20, "fusion": {"llm": 0.5},
            "p_ndcg@10_vs_sasrec": {"hybrid": 0.0123}}  # fmt: skip


def near(mean):
    return Estimate(mean, (mean - 0.01, mean + 0.01))


def accuracy_rows(names=("popularity", "item-knn", "sasrec", "hybrid")):
    metrics = ("recall@10", "ndcg@10", "mrr@10", "recall@1", "ndcg@10/cold", "ndcg@10/short", "novelty@10",
               "popularity_lift@10", "ndcg@10/seen_kept", "recall@1/of20")  # fmt: skip
    whole = {"coverage@10": Estimate(0.5, (0.5, 0.5))}
    return [
        Row(name, {m: near(0.1 * (i + 1) + 0.001 * j) for j, m in enumerate(metrics)} | whole)
        for i, name in enumerate(names)
    ]


def write(out, stem, suite, rows, told=PROTOCOL, catalog="a" * 64, model="m" * 64, dataset="toy"):
    asked = [Target(name, 0.5) for name in result_file.TARGETS.get(stem, ("some_target",))]
    came = provenance(7, f"llmrec eval --suite {suite}", 12.0, 40)
    write_result(out / f"{stem}.json", suite, dataset, told, rows, asked, came)
    if catalog:
        stamp_result(out / f"{stem}.json", {"catalog": catalog, "model": model, "train": "t"}, {"limit": None})


@pytest.fixture
def results(tmp_path):
    """A directory with a result of every kind."""
    write(tmp_path, "accuracy-toy", "accuracy", accuracy_rows())
    write(tmp_path, "accuracy-time-toy", "accuracy-time", accuracy_rows()[:3], {**PROTOCOL, "split": "by-time 1 2"})
    measures = ("kendall_tau", "rbo", "overlap@10", "top1_flip", "ndcg@10")
    agreed = {f"{group}/{name}": near(0.5) for group in ("order", "paraphrase") for name in measures}
    write(tmp_path, "stability-toy", "stability", [Row("hybrid", agreed), Row("base model candidates", agreed)])
    compared = {name: near(value) for name, value in (("base", 0.4), ("tuned", 0.35), ("difference", -0.05))}
    ppl = {"base": near(20.0), "tuned": near(22.0), "ratio": near(1.1), "n": Estimate(60.0, (60.0, 60.0))}
    write(tmp_path, "retention-toy", "retention", [Row("wikitext2 word_ppl", ppl), Row("blimp acc", compared)],
          {"main": {"blimp": "acc"}})  # fmt: skip
    codes = {"usage_level_1": near(0.9), "usage_level_2": near(0.8), "duplicates": Estimate(0.0, (0.0, 0.0))}
    grounded = [Row("chat", {"satisfied": near(0.9), "exists": near(1.0)}), Row("semantic IDs", codes)]
    write(tmp_path, "grounding-toy", "grounding", grounded)
    speed = [Row("beams 50", {"seconds": near(0.5)})]
    write(tmp_path, "bench-decode", "bench-decode", speed, {"how": "one run"}, catalog="")
    return tmp_path


class Reader(HTMLParser):
    """What a browser would see: tags, attributes, texts."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def read(page):
    reader = Reader()
    reader.feed(page.read_text())
    return reader


def test_everything_there_is_in_the_report(results):
    page = run_report(results, console=QUIET)
    text = (results / "report.md").read_text()
    for title in ("Targets", "Accuracy, toy, leave-one-out", "every cut-off", "slices", "popularity, coverage",
                  "by-time 1 2", "Stability, toy", "Language retention, toy", "Grounding, toy", "Semantic IDs, toy",
                  "bench-decode, toy", "Learning curves", "Failures, toy", "Missing"):  # fmt: skip
        assert re.search(rf"^## .*{re.escape(title)}", text, re.MULTILINE), title
    assert "0.4010 (0.3910 to 0.4110)" in text  # ndcg@10 of the hybrid with its interval
    assert re.search(r"\| hybrid \|.*\| 0\.0123 \|", text)  # p against the encoder
    for reader_text in (text, page.read_text()):
        assert "cold (3)" in reader_text and "best baseline: item-knn" in reader_text


def test_every_table_and_picture_says_where_its_numbers_come_from(results):
    run_report(results, console=QUIET)
    text = (results / "report.md").read_text()
    commit = load_results(results)[0].provenance["commit"]
    blocks = text.split("\n\n")
    tables = [i for i, block in enumerate(blocks) if block.startswith("| ")]
    assert len(tables) > 8
    for i in tables:
        if "made by" in blocks[i]:  # what is missing has no source
            continue
        told = blocks[i + 1]
        for part in ("n = 40", "seed 7", str(commit)[:12], "llmrec eval --suite", "torch", "numpy", "transformers"):
            assert part in told, (part, told)
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(pictures) >= 9
    for name in pictures:
        assert (results / name).read_bytes().startswith(b"<?xml") and name.startswith("plots/")


def test_the_page_is_self_contained_and_runs_nothing(results):
    reader = read(run_report(results, console=QUIET))
    assert not {"script", "link", "iframe", "object", "form", "a"} & set(reader.tags)
    links = [value for tag, name, value in reader.attributes if name in ("src", "href")]
    assert len(links) >= 9 and all(value.startswith("data:image/svg+xml;base64,") for value in links)
    assert not any(name.startswith("on") for _, name, _ in reader.attributes)
    assert any("default-src 'none'" in str(value) for _, name, value in reader.attributes if name == "content")


def test_names_and_texts_are_text(tmp_path):
    rows = [Row(EVIL, row.metrics) if row.name == "sasrec" else row for row in accuracy_rows()]
    write(tmp_path, "accuracy-toy", "accuracy", rows, {**PROTOCOL, "note": EVIL})
    line = {"user": np.array([1, 1]), "ranker": np.array(["hybrid", EVIL]), "history": np.array([EVIL, EVIL]),
            "length": np.array([3, 3]), "target": np.array([EVIL, EVIL]), "place": np.array([-1, 2]),
            "listed": np.array([EVIL, EVIL])}  # fmt: skip
    write_per_user(tmp_path, "accuracy-lists-toy", line)
    reader = read(run_report(tmp_path, console=QUIET))
    assert "script" not in reader.tags and reader.tags.count("img") == 3
    assert not any(name == "onerror" for _, name, _ in reader.attributes)
    assert any("<script>alert" in text for text in reader.texts)  # shown as it stands
    text = (tmp_path / "report.md").read_text()
    assert "<img" not in text and "<script" not in text and "[a](" not in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert any("onerror" in line for lines in tables for line in lines)
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, lines


def test_markdown_cells_stay_cells():
    table = Table(["", "a|b"], [["x|y\nz", "*1*"]], "from `here`")
    (line,) = [one for one in markdown("t", [Section("s", [table])], None).splitlines() if "x" in one]
    assert line == "| x\\|y z | \\*1\\* |"
    assert "<td>x|y\nz</td>" in html("t", [Section("s", [table])])


def test_what_is_missing_is_listed_with_the_command_that_makes_it(tmp_path):
    write(tmp_path, "accuracy-toy", "accuracy", accuracy_rows())
    run_report(tmp_path, console=QUIET)
    text = (tmp_path / "report.md").read_text().split("## Missing")[1]
    for stem, command in (("stability-toy", "llmrec eval --suite stability"), ("bench-train", "llmrec bench --train"),
                          ("retention-toy", "llmrec eval --suite retention --data-dir DIR")):  # fmt: skip
        assert f"| {stem}.json | {command} --out {tmp_path.name} |" in text.replace("\\_", "_")
    assert "accuracy-toy.json" not in text
    assert set(COMMANDS) >= {"accuracy", "stability", "retention", "grounding"}


def test_an_empty_directory_gives_a_report_of_what_is_missing(tmp_path):
    run_report(tmp_path, console=QUIET)
    text = (tmp_path / "report.md").read_text()
    assert "llmrec eval --suite accuracy" in text and "Targets" not in text


def test_results_of_different_catalogues_are_refused_with_both_fingerprints(results):
    write(results, "stability-toy", "stability", [Row("hybrid", {})], catalog="b" * 64)
    with pytest.raises(DataError) as error:
        run_report(results, console=QUIET)
    for part in ("accuracy-", "stability-toy.json", "catalogues", "a" * 16, "b" * 16):
        assert part in str(error.value)
    assert "\n" not in str(error.value) and not (results / "report.md").exists()
    write(results, "stability-toy", "stability", [Row("hybrid", {})], catalog="b" * 64, dataset="other")
    check_one_catalogue(load_results(results))  # other data may have another catalogue


def test_rows_measured_in_another_way_are_not_put_into_one_table(results):
    write(results, "accuracy-toy-2", "accuracy", accuracy_rows(), {**PROTOCOL, "seen_filtered": False})
    own = [one for one in load_results(results) if one.suite == "accuracy"]
    with pytest.raises(DataError) as error:
        merge_results(own)
    prints = {one.protocol_fingerprint[:16] for one in own}
    assert len(prints) == 2 and all(one in str(error.value) for one in prints) and "protocols" in str(error.value)
    write(results, "accuracy-toy-2", "accuracy", accuracy_rows(), {**PROTOCOL, "fusion": {}}, model="n" * 64)
    table = merge_results([one for one in load_results(results) if one.suite == "accuracy"])
    assert len(table) == 8 and "hybrid (accuracy-toy-2)" in table
    run_report(results, console=QUIET)
    assert "Results of several models" in (results / "report.md").read_text()


def test_learning_curves_come_from_the_journal_beside_the_model(results, tmp_path):
    model = tmp_path / "my-model"
    model.mkdir()
    lines = [{"step": s, "tokens": 100 * s, "seconds": s, "words": 3.0 / s, "task/x": 1.0} for s in (1, 2, 3)]
    lines.append({"step": 3, "tokens": 300, "seconds": 3.5, "ndcg10": 0.05})
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "tok'
    (model / "metrics.jsonl").write_text(text)
    run_report(results, model, console=QUIET)
    report = (results / "report.md").read_text()
    assert "4 lines to step 3" in report
    for name in ("losses", "validation"):
        assert (results / "plots" / f"training-my-model-{name}.svg").is_file()


def test_failures_are_shown_with_their_inputs(results):
    line = {"user": [4, 4, 5, 5], "ranker": ["hybrid", "item-knn"] * 2, "history": ["Alien; Heat"] * 4,
            "length": [9] * 4, "target": ["Aliens"] * 4, "place": [-1, 0, 3, 0],
            "listed": ["Psycho", "Aliens"] * 2}  # fmt: skip
    write_per_user(results, "accuracy-lists-toy", {k: np.array(v) for k, v in line.items()})
    replies = {"system": ["chat", "chat"], "level": [2, 1], "user": [1, 2],
               "text": ["a comedy before 1990", "horror"], "listed": ["Heat (1995)", "Psycho"], "words": ["", ""],
               "wrong": ["breaks: Heat (1995)", ""]}  # fmt: skip
    write_per_user(results, "grounding-replies-toy", {k: np.array(v) for k, v in replies.items()})
    turns = {"system": ["hybrid"] * 3, "kind": ["next"] * 3, "user": [1, 1, 1], "variant": ["p-01", "p-02", "typos-1"],
             "group": ["paraphrase", "paraphrase", "noise"], "text": ["what next", "and now", "waht next"],
             "rows": ["3 4", "3 5", "4 3"]}  # fmt: skip
    write_per_user(results, "stability-lists-toy", {k: np.array(v) for k, v in turns.items()})
    run_report(results, console=QUIET)
    text = (results / "report.md").read_text().split("## Failures")[1]
    assert "place 1 for item-knn" in text and text.count("taken next: Aliens") == 1
    assert "a comedy before 1990" in text and "breaks: Heat (1995)" in text and "horror" not in text
    assert "after typos-1" in text and "waht next" in text and "row 4; row 3" in text and "and now" not in text


def test_instructions_that_are_no_longer_followed_are_shown_with_both_replies(results):
    prompts = [one.prompt for one in own_instructions()[1]]
    for side, followed in (("base", (1.0, 1.0, 0.0)), ("tuned", (1.0, 0.0, 1.0))):
        values = [{"acc": acc, "reply": f"{side} says {n}"} for n, acc in enumerate(followed)]
        sample = Sample("instructions", "1", (), 0, 3, {}, (side,))
        save_values(
            results / "per_item" / f"retention-toy-instructions-{side}.parquet",
            sample,
            Measured([4, 7, 9], values, 1.0),
        )
    run_report(results, console=QUIET)
    text = (results / "report.md").read_text().split("## Failures")[1]
    assert text.count("no longer followed") == 1 and "base says 1" in text and "tuned says 1" in text
    assert "says 0" not in text and "says 2" not in text
    assert prompts[7] in read(results / "report.html").texts


def test_the_same_files_give_the_same_bytes(results):
    page = run_report(results, console=QUIET)
    first = page.read_bytes(), {path.name: path.read_bytes() for path in (results / "plots").iterdir()}
    run_report(results, console=QUIET)
    assert first == (page.read_bytes(), {path.name: path.read_bytes() for path in (results / "plots").iterdir()})


def test_a_file_that_is_no_result_is_named(results):
    (results / "notes.json").write_text("{}")
    with pytest.raises(DataError, match=r"notes\.json: the result lacks"):
        run_report(results, console=QUIET)
    (results / "notes.json").write_text("{")
    with pytest.raises(DataError, match=r"notes\.json"):
        load_results(results)
    with pytest.raises(DataError, match="no directory"):
        load_results(results / "nowhere")


def test_without_matplotlib_the_extra_is_named(results, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(RequestError, match=r"llmrec\[eval\]"):
        plots.lines(results / "x.svg", {"a": [(0.0, 1.0)]}, "x", "y")
    assert not (results / "x.svg").exists()
