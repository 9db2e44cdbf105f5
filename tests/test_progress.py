"""Nobody waits in silence: every long loop says how far it is, no time left is below zero, and nothing is a flood."""

import io
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import HashEmbedder, make_catalog, make_interactions, make_lm, make_tokenizer
from rich.console import Console

from llmrec import progress
from llmrec.data.catalog import Catalog, Item
from llmrec.data.interactions import leave_one_out
from llmrec.encoders import text_cache
from llmrec.eval.baselines.tuning import tune_item_knn
from llmrec.finetune.pipeline import RunPaths, build_model
from llmrec.finetune.recipe import load_recipe
from llmrec.finetune.train.loop import State
from llmrec.finetune.train.metrics_log import MetricsLog
from llmrec.lm.base_models import BaseModelFiles
from llmrec.progress import Counter, Screen, Step, counted, duration
from llmrec.semantic_ids import residual_kmeans

LEFT = re.compile(r", (\d+(?:\.\d)?) (s|min|h) left$")
SECONDS = {"s": 1, "min": 60, "h": 3600}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, patch):
        self.now = 1000.0
        patch.setattr(progress, "time", self)

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def left(line):
    number, unit = LEFT.search(line).groups()
    return float(number) * SECONDS[unit]


def test_a_loop_is_told_every_few_seconds_and_the_time_left_falls_to_nothing(clock):
    said = []
    for _ in counted(range(1000), "reading", said.append, "histories"):
        clock.now += 0.5
    assert 0.9 * 1000 * 0.5 / progress.EVERY < len(said) <= 1000 * 0.5 / progress.EVERY
    times = [left(line) for line in said]
    assert times == sorted(times, reverse=True) and times[-1] >= 0
    assert said[0] == "reading: 8 of 1,000 histories, 8 min left" and all(isinstance(line, Step) for line in said)


def test_a_loop_that_goes_over_its_total_or_was_resumed_has_no_time_below_zero(clock):
    said, counter = [], None
    counter = Counter(said.append, "fine-tuning", 100, 50, "tokens")
    for done in (60, 100, 130):
        clock.now += 10
        counter.at(done)
    assert [left(line) for line in said] == [40, 0, 0] and not any("-" in line.partition(":")[2] for line in said)
    assert [duration(t) for t in (-3.0, -0.0, 59.4, 60, 7199, 7200)] == [
        "0 s",
        "0 s",
        "59 s",
        "1 min",
        "120 min",
        "2.0 h",
    ]


def test_what_is_over_at_once_says_nothing(clock):
    said = []
    assert list(counted("abc", "loop", said.append)) == ["a", "b", "c"] and not said


def test_the_journal_never_prints_a_time_below_zero(tmp_path):
    said = []
    journal = MetricsLog(tmp_path / "m.jsonl", 1000, said.append)
    for tokens in (500, 999, 1000, 1040):  # the last pack goes over the total
        journal.losses(State(step=tokens, tokens=tokens, seconds=tokens), {"level0": 1.0})
    minutes = [int(re.search(r"(-?\d+) min left", line)[1]) for line in said]
    assert minutes == [8, 0, 0, 0] and not any("-0" in line for line in said)


def screen(terminal=False):
    file = io.StringIO()
    return Screen(Console(file=file, width=200, force_terminal=terminal)), file


def test_a_screen_speaks_up_when_nobody_has(clock):
    shown, file = screen()
    shown("fitting [bold]one[/bold] matrix")
    for _ in range(60):
        clock.now += 0.5
        shown.beat()
    lines = file.getvalue().splitlines()
    assert lines[0] == "[     0 s] fitting [bold]one[/bold] matrix", "names are no markup"
    assert lines[1] == "[     4 s] still working, 4 s since: fitting [bold]one[/bold] matrix"
    times = [int(line[1:7]) for line in lines]
    assert max(np.diff(times)) <= 5 and len(lines) <= 1 + 30 / progress.QUIET
    shown("x" * 500)
    clock.now += 5
    shown.beat()
    assert len(file.getvalue().splitlines()[-1]) < 150


def test_a_screen_has_a_thread_of_its_own_and_a_muted_one_has_nothing(monkeypatch):
    monkeypatch.setattr(progress, "QUIET", 0.02)
    monkeypatch.setattr(progress, "_TICK", 0.01)
    for mute in (False, True):
        file = io.StringIO()
        with Screen(Console(file=file, width=200), mute) as say:
            say("one long product")
            np.linalg.svd(np.random.default_rng(0).normal(size=(300, 300)))
            progress.time.sleep(0.1)
        assert ("still working" in file.getvalue()) != mute
        after = file.getvalue()
        progress.time.sleep(0.05)
        assert file.getvalue() == after, "closed means quiet"


def test_on_a_terminal_a_step_is_shown_in_place():
    shown, file = screen(terminal=True)
    with shown as say:
        say("one")
        say(Step("encoder: 1 of 9"))
        say("two")
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue())
    assert "one" in lines and "two" in lines and file.getvalue().endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """All lines of a tiny run in which every loop reports every unit."""
    out, said, recipe = tmp_path_factory.mktemp("told"), [], load_recipe("smoke")
    schedule = replace(recipe.schedule, tokens=2000, validate_tokens=1000, validate_users=4)
    encoder = replace(recipe.encoder, epochs=2)
    traffic = recipe.traffic.model_copy(update={"folds": 2})
    recipe = recipe.model_copy(update={"schedule": schedule, "encoder": encoder, "traffic": traffic})
    tokenizer = make_tokenizer()
    loaded, places = (make_lm(len(tokenizer)), tokenizer), RunPaths(out / "model", out / "work", texts=out / "texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "EVERY", 0.0)
        base = BaseModelFiles("toy", Path("."), "0" * 64)
        build_model(make_catalog(), make_interactions(), recipe, base, loaded, HashEmbedder(), places, said.append)
    return said, out


@pytest.mark.parametrize(
    ("loop", "units"),
    [
        ("text vectors: ", 1),
        ("encoder sasrec: ", 6),
        ("crossfit: user vectors: ", 40),
        ("semantic ids: level ", 4),
        ("replay: sampled from the base model: ", 20),
        ("fine-tuning: ", 3),
        ("validation: ", 4),
        ("fusion (history): the language model reads: ", 10),
        ("fusion (words): the language model reads: ", 10),
        ("fusion: fitting weights: ", 10),
    ],
)
def test_every_long_loop_of_training_reports_every_unit(told, loop, units):
    lines = [line for line in told[0] if isinstance(line, Step) and line.startswith(loop)]
    assert len(lines) >= units
    assert all(left(line) >= 0 for line in lines if "left" in line)
    counts = [tuple(int(n.replace(",", "")) for n in re.findall(r"([\d,]+) of ([\d,]+)", line)[-1]) for line in lines]
    assert all(0 <= done <= total for done, total in counts)


def test_every_stage_names_itself_before_it_begins(told):
    lines = [line for line in told[0] if not isinstance(line, Step)]
    for words in (
        "text: 12 ",
        "crossfit 1 of 2",
        "semantic ids: 2 levels",
        "neighbours: of 12 items",
        "replay: 8 passages",
        "fusion (history): fitting",
        "saving ",
    ):
        assert any(line.startswith(words) for line in lines), words


def test_choosing_settings_reports_every_trial(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    said, split = [], leave_one_out(make_interactions())
    grid = {
        "window": (0, 1),
        "shrink": (0.0,),
        "alpha": (0.5,),
        "neighbours": (12,),
        "decay": (0.0, 2.0),
        "recent": (5,),
    }
    tune_item_knn(split, 12, grid, say=said.append)
    assert [line.partition(",")[0] for line in said] == [
        f"choosing settings of item-knn: {n} of 4 tried" for n in range(1, 5)
    ]


def test_codes_do_not_depend_on_who_listens(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    x, said = np.random.default_rng(0).normal(size=(30, 4)), []
    assert (residual_kmeans.fit(x, 2, 8, 0, said.append).codes == residual_kmeans.fit(x, 2, 8, 0).codes).all() and said


# text vectors


class Counting(HashEmbedder):
    """Notes what it embeds."""

    def __init__(self):
        self.texts = []

    def encode(self, texts):
        self.texts += list(texts)
        return super().encode(texts)


def embedded(catalog, cache):
    embedder = Counting()
    vectors = text_cache.embed_catalog(catalog, embedder, cache, progress.silent)
    return vectors, embedder.texts


def test_training_left_its_text_vectors_for_the_first_use_and_for_new_items(told):
    cache = told[1] / "texts"
    vectors, asked = embedded(make_catalog(), cache)
    assert not asked
    want = HashEmbedder().encode([make_catalog().describe(row) for row in range(12)])
    assert np.array_equal(vectors, want)
    grown = Catalog([*make_catalog().items, Item("new", "Odd Tale", "", {"genre": ("Horror",)})], "films")
    more, asked = embedded(grown, cache)
    assert asked == [grown.describe(12)] and np.array_equal(more[:12], want)
    assert embedded(grown, cache)[1] == []
    other = Counting()
    other.name = "another"
    text_cache.embed_catalog(grown, other, cache, progress.silent)
    assert len(other.texts) == 13, "the vectors of one encoder are not those of another"


def test_a_text_that_stands_twice_is_embedded_once(tmp_path):
    embedder = Counting()
    vectors = text_cache.embed_texts(["a b", "c", "a b"], embedder, tmp_path, progress.silent)
    assert sorted(embedder.texts) == ["a b", "c"] and (vectors[0] == vectors[2]).all()
    assert text_cache.embed_texts([], embedder, tmp_path, progress.silent).shape == (0, 16)


def test_embedding_that_was_interrupted_goes_on_where_it_stood(tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "_CHUNK", 5)

    class Tired(Counting):
        def encode(self, texts):
            if self.texts:
                raise KeyboardInterrupt
            return super().encode(texts)

    with pytest.raises(KeyboardInterrupt):
        text_cache.embed_catalog(make_catalog(), Tired(), tmp_path, progress.silent)
    vectors, asked = embedded(make_catalog(), tmp_path)
    assert len(asked) == 7
    assert np.array_equal(vectors, HashEmbedder().encode([make_catalog().describe(row) for row in range(12)]))


def test_a_damaged_cache_is_begun_anew_and_one_damaged_vector_is_made_again(tmp_path):
    want, _ = embedded(make_catalog(), tmp_path)
    file = tmp_path / text_cache.FILE
    with sqlite3.connect(file) as database:
        (key, vector) = database.execute("SELECT key, vector FROM vectors LIMIT 1").fetchone()
        database.execute("UPDATE vectors SET vector = ? WHERE key = ?", (b"\x01" + vector[1:], key))
    database.close()
    again, asked = embedded(make_catalog(), tmp_path)
    assert len(asked) == 1 and np.array_equal(again, want)
    file.write_bytes(b"no database at all" * 100)
    again, asked = embedded(make_catalog(), tmp_path)
    assert len(asked) == 12 and np.array_equal(again, want)
    assert embedded(make_catalog(), tmp_path)[1] == []


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("in the way")
    vectors, asked = embedded(make_catalog(), tmp_path / "file")
    assert vectors.shape == (12, 16) and len(asked) == 12 and (tmp_path / "file").read_text() == "in the way"
    assert embedded(make_catalog(), None)[0].shape == (12, 16)
