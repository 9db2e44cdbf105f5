"""`llmrec rank`: every kind of request, the same bytes however it is cut, and one line for what is wrong."""

import csv
import json
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_ranking import load, make_world

from llmrec.batch import output_files, process_pool, request_files
from llmrec.batch.rank_file import Settings, rank_file
from llmrec.errors import ArtifactError, DataError, RequestError
from llmrec.lm.runtime import onednn
from llmrec.lm.runtime.onednn import can_prepack, fastest_matmul_dtype
from llmrec.recommender import Request

REQUESTS = [
    {"request_id": "user", "user_id": "u3"},
    {"request_id": "taste", "items": ["i0", "i2", "i4"], "k": 3},
    {"request_id": "both", "user_id": "u1", "items": ["i8"]},
    {"request_id": "words", "message": "a scary tale"},
    {"request_id": "wish", "user_id": "u2", "message": "comedy from before 1995", "k": 4},
    {"request_id": "order", "items": ["i0"], "candidates": ["i9", "i0", "i3"]},
    {"request_id": "alike", "similar_to": "i7", "k": 5},
    {"request_id": "new", "items": []},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def recommender(model):
    return load(str(model), None)


@pytest.fixture(scope="module")
def runner(recommender):
    return partial(process_pool.run_local, workers=1, loader=lambda model, data: recommender)


def lines(path: Path, requests) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in requests))
    return path


def parquet(path: Path, requests, row_group_size=3, **types) -> Path:
    names = list(dict.fromkeys(name for one in requests for name in one))
    columns = {n: pa.array([one.get(n) for one in requests], types.get(n)) for n in names}
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


def in_csv(path: Path, requests, mark=",") -> Path:
    """As a spreadsheet writes them: lists with | between ids, empty cells for what is not there, CRLF and a BOM."""

    def cell(value):
        if isinstance(value, list):
            escaped = (str(one).replace("\\", "\\\\").replace("|", "\\|") for one in value)
            return "|".join(escaped) or "|"
        return "" if value is None else str(value)

    names = list(dict.fromkeys(name for one in requests for name in one))
    with path.open("w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.writer(handle, delimiter=mark)
        writer.writerows([names, *([cell(one.get(name)) for name in names] for one in requests)])
    return path


ENDS = {lines: "in.jsonl", parquet: "in.parquet", in_csv: "in.csv"}


def read_answers(path: Path):
    """Rows of an output of any kind; numbers as numbers."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, strict=True))
    return [{**row, "rank": int(row["rank"]), "score": float(row["score"])} for row in rows]


def same(rows):
    """Rows that can be compared whatever the kind: float32 scores, ids as text."""
    return [{**row, "request_id": str(row["request_id"]), "score": np.float32(row["score"])} for row in rows]


def many(n: int):
    rng = np.random.default_rng(0)
    out = []
    for number in range(n):
        one = {"request_id": number, "k": int(rng.integers(1, 8))}
        kind = number % 4
        if kind == 0:
            one["user_id"] = f"u{number % 40}"
        elif kind == 1:
            one["items"] = [f"i{row}" for row in rng.integers(0, 60, 3)]
        elif kind == 2:
            one["message"] = f"funny tale {number}"
        else:
            one |= {"items": [f"i{number % 60}"], "candidates": [f"i{row}" for row in rng.integers(0, 60, 6)]}
        out.append(one)
    return out


def rank(model, runner, source, target, **how):
    return rank_file(source, target, Settings(model=model, **how), runner)


def answers(path: Path):
    out = {}
    for row in pq.read_table(path).to_pylist():
        out.setdefault(row["request_id"], []).append(row)
    return out


@pytest.fixture(scope="module")
def ranked(model, runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranked")
    report = rank(model, runner, lines(folder / "in.jsonl", REQUESTS), folder / "out.parquet")
    assert report.requests == len(REQUESTS) and not report.counts
    assert sorted(entry.name for entry in folder.iterdir()) == ["in.jsonl", "out.parquet"]
    return folder / "out.parquet"


def test_every_request_is_answered_in_order(ranked):
    table = pq.read_table(ranked)
    assert table.schema.names == ["request_id", "item_id", "rank", "score", "source"]
    found = answers(ranked)
    assert list(found) == [one["request_id"] for one in REQUESTS]
    assert {name: len(rows) for name, rows in found.items()} == {
        "user": 10, "taste": 3, "both": 10, "words": 10, "wish": 4, "order": 3, "alike": 5, "new": 10,
    }  # fmt: skip
    for rows in found.values():
        assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
        assert len({row["item_id"] for row in rows}) == len(rows)


def test_answers_are_those_of_the_recommender(ranked, recommender):
    found, catalog = answers(ranked), recommender.catalog
    both = tuple(dict.fromkeys((*recommender.history_of("u1"), 8)))
    for name, request in {
        "user": Request(recommender.history_of("u3")),
        "taste": Request((0, 2, 4), k=3),
        "both": Request(both),
        "words": Request(message="a scary tale", filters=batch_rank_filters(recommender, "a scary tale")),
        "order": Request((0,), candidates=(9, 0, 3), unseen=False),
        "new": Request(),
    }.items():
        expected = recommender.recommend(request)
        assert [row["item_id"] for row in found[name]] == [catalog[one.row].id for one in expected], name
        np.testing.assert_allclose(
            [row["score"] for row in found[name]], [one.score for one in expected], rtol=1e-4, atol=1e-4
        )


def batch_rank_filters(recommender, message):
    from llmrec.nlu.parser import stated_filters

    return stated_filters(message, recommender.catalog)


def test_constraints_in_words_exclude_and_candidates_include_what_was_seen(ranked, recommender):
    found, catalog = answers(ranked), recommender.catalog
    for row in found["wish"]:
        item = catalog[catalog.row(row["item_id"])]
        assert item.attributes["genre"] == ("Comedy",) and item.attributes["year"] < 1995
    assert {row["item_id"] for row in found["order"]} == {"i9", "i0", "i3"}
    assert not {row["item_id"] for row in found["user"]} & {catalog[r].id for r in recommender.history_of("u3")}


def test_similar_items_are_alike(ranked):
    rows = answers(ranked)["alike"]
    assert "i7" not in {row["item_id"] for row in rows}
    assert {row["source"] for row in rows} <= {"encoder", "neighbours", "profile"}


@pytest.mark.kernels
def test_the_same_bytes_whatever_the_form_and_the_parts(model, runner, tmp_path):
    requests = many(30)
    rank(model, runner, lines(tmp_path / "in.jsonl", requests), tmp_path / "whole.parquet")
    rank(model, runner, tmp_path / "in.jsonl", tmp_path / "parts.parquet", part=7)
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "parts.parquet").read_bytes()
    rank(model, runner, parquet(tmp_path / "in.parquet", requests), tmp_path / "other.parquet", part=4)
    assert pq.read_table(tmp_path / "other.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))


def test_rows_of_the_output_are_grouped_alike_however_they_were_ranked(model, runner, tmp_path, monkeypatch):
    monkeypatch.setattr(output_files, "ROW_GROUP", 50)
    source = lines(tmp_path / "in.jsonl", many(30))
    for part in (1, 11, 30):
        rank(model, runner, source, tmp_path / f"{part}.parquet", part=part)
    outputs = [(tmp_path / f"{part}.parquet") for part in (1, 11, 30)]
    assert len({path.read_bytes() for path in outputs}) == 1
    sizes = pq.ParquetFile(outputs[0]).metadata
    assert [sizes.row_group(g).num_rows for g in range(sizes.num_row_groups)][:-1] == [50] * (sizes.num_row_groups - 1)


def test_the_same_answers_in_every_kind_of_input_and_output(model, runner, tmp_path):
    requests = [*REQUESTS, {"request_id": 'wish, "quoted"\nin two lines', "message": 'a "funny" tale,\nnot scary'}]
    sources = [
        lines(tmp_path / "in.jsonl", requests),
        parquet(tmp_path / "in.parquet", requests),
        in_csv(tmp_path / "comma.csv", requests),
        in_csv(tmp_path / "semicolon.CSV", requests, ";"),
        in_csv(tmp_path / "tab.tsv", requests, "\t"),
    ]
    expected = None
    for source in sources:
        for end in (".parquet", ".csv", ".jsonl") if source is sources[0] else (".csv",):
            target = tmp_path / f"{source.stem}{source.suffix[1:]}{end}"
            report = rank(model, runner, source, target, part=4)
            rows = same(read_answers(target))
            expected = expected or rows
            assert rows == expected and report.answers == len(rows) == 65, target.name
    assert {row["request_id"] for row in expected} == {one["request_id"] for one in requests}


@pytest.mark.parametrize("form", [lines, parquet, in_csv])
def test_hostile_ids_are_neither_changed_nor_split(model, form, tmp_path):
    """Ids that a spreadsheet would calculate, that hold a separator, a quotation mark, a line break or an escape."""
    odd = [
        "=1+1",
        "+a",
        "-a",
        "@SUM(A1)",
        "a|b",
        "a\\",
        "\\|",
        'say "x"',
        "a,b;c\td",
        "two\nlines",
        "naïve→",
        "-5",
        "|",
    ]
    requests = [{"request_id": one, "items": [one, "i0"], "candidates": ["i2", "i4"], "k": 1} for one in odd]
    source = form(tmp_path / ENDS[form], requests)
    assert [row.items for row in request_files.read_requests(source)] == [(one, "i0") for one in odd]
    for end in (".csv", ".jsonl", ".parquet"):
        target = tmp_path / f"out{end}"
        report = rank_file(
            source, target, Settings(model=model), partial(process_pool.run_local, workers=1, loader=load)
        )
        assert [row["request_id"] for row in read_answers(target)] == odd
        assert report.formulas == (4 if end == ".csv" else 0)  # -5 is a number
        again = rank_file(source, target, Settings(model=model), refuse)
        assert (again.resumed, again.answers, again.formulas) == (len(odd), len(odd), report.formulas)


def test_a_text_output_is_taken_up_and_known_again_as_parquet_is(model, runner, tmp_path):
    source = in_csv(tmp_path / "in.csv", many(12))
    for end in (".csv", ".jsonl"):
        whole, target = tmp_path / f"whole{end}", tmp_path / f"out{end}"
        rank(model, runner, source, whole)

        def stops(job, parts):
            yield from runner(job, parts[:3])
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            rank_file(source, target, Settings(model=model, part=3), stops)
        assert not target.exists()
        assert rank(model, runner, source, target).resumed == 9
        assert target.read_bytes() == whole.read_bytes()
        assert rank_file(source, target, Settings(model=model), refuse).resumed == 12
        assert not (tmp_path / f".out{end}.parts").exists()
        target.write_bytes(target.read_bytes().replace(b"encoder", b"decoder", 1))  # edited: not that job's any more
        assert rank(model, runner, source, target).resumed == 0
        assert target.read_bytes() == whole.read_bytes()
        assert rank(model, runner, source, target, k=3).resumed == 0  # other work


def test_a_kill_between_the_renames_of_a_text_output_costs_no_ranking(model, runner, tmp_path, monkeypatch):
    source, target = in_csv(tmp_path / "in.csv", many(8)), tmp_path / "out.csv"

    def killed(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(output_files, "write_json_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            rank(model, runner, source, target)
    before = target.read_bytes()
    report = rank_file(source, target, Settings(model=model), refuse)
    assert report.resumed == 8 and target.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == [".out.csv.job", "in.csv", "out.csv"]


def test_a_row_of_csv_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(request_files, "LINE_LIMIT", 1000)
    long = tmp_path / "long.csv"
    long.write_text("request_id,items\n" + "".join(f"{n},i{n}|i1\n" for n in range(500)))
    assert [row.items for row in request_files.read_requests(long, 498)] == [("i498", "i1"), ("i499", "i1")]
    for text in ('1,"' + "i1\n" * 999, "1," + '"\n",' * 999, "1," + "i1|" * 999):
        long.write_text("request_id,items\n" + text)
        with pytest.raises(DataError, match="a row of more than 1000 bytes"):
            list(request_files.read_requests(long))


@pytest.mark.kernels
@pytest.mark.parametrize("form", [lines, parquet, in_csv])
def test_shards_one_after_the_other_are_the_whole(model, runner, tmp_path, form):
    source = form(tmp_path / ENDS[form], many(23))
    rank(model, runner, source, tmp_path / "whole.parquet")
    for i in range(1, 6):
        rank(model, runner, source, tmp_path / f"{i}.parquet", shard=(i, 5), part=2)
    together = pa.concat_tables([pq.read_table(tmp_path / f"{i}.parquet") for i in range(1, 6)])
    assert together.replace_schema_metadata(None).equals(
        pq.read_table(tmp_path / "whole.parquet").replace_schema_metadata(None)
    )


def test_more_shards_than_requests_leave_some_empty(model, runner, tmp_path):
    source = lines(tmp_path / "in.jsonl", REQUESTS[:1])
    assert rank(model, runner, source, tmp_path / "1.parquet", shard=(1, 2)).requests == 0
    assert rank(model, runner, source, tmp_path / "2.parquet", shard=(2, 2)).requests == 1
    assert pq.read_table(tmp_path / "1.parquet").num_rows == 0
    with pytest.raises(RequestError, match="shard 3/2"):
        rank(model, runner, source, tmp_path / "3.parquet", shard=(3, 2))


def test_work_is_taken_up_where_it_stopped(model, runner, recommender, tmp_path):
    source = lines(tmp_path / "in.jsonl", many(20))
    rank(model, runner, source, tmp_path / "whole.parquet")

    def stops(job, parts):
        for number, count in enumerate(runner(job, parts)):
            if number == 3:
                raise KeyboardInterrupt
            yield count

    with pytest.raises(KeyboardInterrupt):
        rank_file(source, tmp_path / "out.parquet", Settings(model=model, part=3), stops)
    assert not (tmp_path / "out.parquet").exists()
    told = []
    how = Settings(model=model)  # cut as it was before
    report = rank_file(source, tmp_path / "out.parquet", how, runner, lambda *now: told.append(now))
    assert report.resumed == 12 and told[0] == (12, 20) and told[-1] == (20, 20)
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    again = rank_file(source, tmp_path / "out.parquet", Settings(model=model), refuse)
    assert (again.resumed, again.answers) == (20, report.answers)


def refuse(job, parts):
    raise AssertionError(f"asked to rank {parts}")


def test_parts_of_another_job_are_refused_and_discarded_on_demand(model, runner, tmp_path):
    source = lines(tmp_path / "in.jsonl", many(8))

    def stops(job, parts):
        yield next(runner(job, parts))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rank_file(source, tmp_path / "out.parquet", Settings(model=model, part=3), stops)
    for other in ({"k": 7, "part": 3}, {"part": 4}):
        with pytest.raises(ArtifactError, match="parts of another job"):
            rank(model, runner, source, tmp_path / "out.parquet", **other)
    lines(source, many(9))
    with pytest.raises(ArtifactError, match="parts of another job"):
        rank(model, runner, source, tmp_path / "out.parquet", part=3)
    assert rank(model, runner, source, tmp_path / "out.parquet", restart=True).resumed == 0


def test_data_of_another_model_is_refused_before_anything_is_written(model, runner, tmp_path):
    from conftest import make_catalog

    from llmrec.data.dataset import save_data
    from llmrec.data.interactions import Interactions
    from llmrec.data.readers.common import Report

    log = Interactions.build(["u1", "u1"], [0, 1], [1, 2], [1.0, 1.0])
    save_data(tmp_path / "other", make_catalog(9), log, Report({}, {}, ()))
    source = lines(tmp_path / "in.jsonl", [{"request_id": 1, "items": ["i0"]}])
    with pytest.raises(ArtifactError, match="another catalogue"):
        rank(model, runner, source, tmp_path / "out.parquet", data=str(tmp_path / "other"))
    assert not list(tmp_path.glob(".*"))


def test_a_job_without_a_finished_part_does_not_stand_in_the_way_of_another(model, runner, tmp_path):
    source = lines(tmp_path / "in.jsonl", many(4))

    def fails(job, parts):
        raise ArtifactError("the model is damaged")
        yield 0

    with pytest.raises(ArtifactError, match="damaged"):
        rank_file(source, tmp_path / "out.parquet", Settings(model=model, k=3), fails)
    assert rank(model, runner, source, tmp_path / "out.parquet", k=4).requests == 4


def test_strict_refuses_requests_that_have_nothing_left(model, runner, tmp_path):
    empty = lines(tmp_path / "in.jsonl", [{"request_id": "none", "items": ["i1"], "candidates": []}])
    assert rank(model, runner, empty, tmp_path / "out.parquet").counts == Counter(skipped_requests=1)
    with pytest.raises(RequestError, match="request 'none': nothing is left to rank"):
        rank(model, runner, empty, tmp_path / "strict.parquet", strict=True)


def test_a_blank_message_is_none(model, runner, tmp_path):
    same = [{"user_id": "u2", "message": words} for words in ("", "  \t", None)]
    source = lines(tmp_path / "in.jsonl", [{"request_id": n, **one} for n, one in enumerate(same)])
    rank(model, runner, source, tmp_path / "out.parquet")
    lists = [[row["item_id"] for row in found] for found in answers(tmp_path / "out.parquet").values()]
    assert len(lists) == 3 and lists[0] == lists[1] == lists[2]


def test_damaged_parts_are_ranked_again(model, runner, tmp_path):
    source = lines(tmp_path / "in.jsonl", many(9))
    rank(model, runner, source, tmp_path / "whole.parquet")

    def damages(job, parts):
        yield from runner(job, parts[:2])
        job.path(0).write_bytes(job.path(0).read_bytes()[:-9])
        (job.work / ".left-behind.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rank_file(source, tmp_path / "out.parquet", Settings(model=model, part=3), damages)
    assert rank(model, runner, source, tmp_path / "out.parquet", part=3).resumed == 3
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_two_processes_do_not_rank_into_one_output(model, runner, tmp_path):
    source = lines(tmp_path / "in.jsonl", many(4))

    def inside(job, parts):
        with pytest.raises(ArtifactError, match="another process is ranking"):
            rank(model, runner, source, tmp_path / "out.parquet")
        yield from runner(job, parts)

    assert rank_file(source, tmp_path / "out.parquet", Settings(model=model), inside).answers


def test_unknown_ids_are_left_out_and_counted(model, runner, tmp_path):
    requests = [
        {"request_id": 1, "user_id": "nobody"},
        {"request_id": 2, "user_id": "nobody", "items": ["i0", "x", "y"]},
        {"request_id": 3, "items": ["x"]},
        {"request_id": 4, "items": ["i1"], "candidates": ["z", "i2"]},
        {"request_id": 5, "items": ["i1"], "candidates": ["z"]},
        {"request_id": 6, "similar_to": "q"},
        {"request_id": 7, "user_id": 3},
    ]
    source = lines(tmp_path / "in.jsonl", requests)
    report = rank(model, runner, source, tmp_path / "out.parquet", part=2)
    assert report.counts == Counter(unknown_users=3, unknown_items=4, unknown_candidates=2, skipped_requests=5)
    found = answers(tmp_path / "out.parquet")
    assert list(found) == [2, 4] and [row["item_id"] for row in found[4]] == ["i2"]
    for number, named in ((0, "nobody"), (2, "'x'"), (3, "'z'"), (5, "'q'")):
        with pytest.raises(RequestError, match=f"request {number + 1}: no .*{named}"):
            one = lines(tmp_path / "one.jsonl", requests[number : number + 1])
            rank(model, runner, one, tmp_path / "out.parquet", strict=True)
    assert answers(tmp_path / "out.parquet") == found


def bad_files(folder: Path):
    ok = {"request_id": 1, "items": ["i1"]}
    whole = parquet(folder / "whole.parquet", many(12)).read_bytes()
    yield "no file", folder / "none.jsonl", "no file"
    yield "empty", folder / "empty.jsonl", b"", "is empty"
    yield "blank", folder / "blank.jsonl", b"\n\n", "has no rows"
    yield "cut off", folder / "cut.parquet", whole[:-30], "cannot be read as Parquet"
    yield "no Parquet", folder / "not.parquet", b"request_id,items\n", "cannot be read as Parquet"
    yield "damaged", folder / "hole.parquet", whole[:8] + bytes(400) + whole[408:], "cannot be read as Parquet"
    yield "other", folder / "in.txt", b"request_id", "ends in '.txt'"
    for name, text, words in (
        ("csv head", "request_id", "line 1: a column to go by is missing"),
        ("csv twice", "request_id,items,items", "column 'items' is there twice"),
        ("csv typo", "request_id,item", "line 1: column 'item' is unknown"),
        ("csv cells", "request_id,items\n1,i1\n2,i1,i2", "line 3 has 3 cells, the header 2"),
        ("csv nothing", "request_id,items,user_id\n1,i1,\n2,,", r"line 3 \(request '2'\) has nothing to go by"),
        ("csv no id", "request_id,items\n,i1", "line 2: request_id is None"),
        ("csv k", "request_id,items,k\n1,i1,2.0", "k is '2.0'"),
        ("csv open", 'request_id,items\n1,"i1\n2,i2', "line 3 is not CSV: unexpected end of data"),
        ("csv quote", 'request_id,items\n1,"i1"x', "line 2 is not CSV"),
        ("csv return", "request_id,items\r1,i1\r", "line 1 is not CSV"),
        ("csv many", "request_id,items\n1," + "i1|" * 10_001, "items has 10,001 ids"),
        ("csv no rows", "request_id,items\n,,\n", "has no rows"),
    ):
        yield name, folder / f"{name}.csv", text.encode(), words
    yield "csv latin", folder / "latin.csv", b"request_id,message\n1,caf\xe9\n", "line 2 is not UTF-8"
    for name, one, words in (
        ("no id", {"items": ["i1"]}, "line 2: column 'request_id' is missing"),
        ("null id", {**ok, "request_id": None}, "request_id is None"),
        ("flag as id", {**ok, "request_id": True}, "request_id is True"),
        ("huge id", {**ok, "request_id": 2**70}, "request_id is 1180591620717411303424"),
        ("two types", {**ok, "request_id": "a"}, "of another type than before"),
        ("typo", {**ok, "candidate": ["i2"]}, "column 'candidate' is unknown"),
        ("nothing", {"request_id": 2}, "a column to go by is missing"),
        ("nulls", {"request_id": 2, "items": None}, "has nothing to go by"),
        ("k", {**ok, "k": 101}, "k is 101"),
        ("k words", {**ok, "k": "10"}, "k is '10'"),
        ("items", {**ok, "items": "i1"}, "items is 'i1'"),
        ("item", {**ok, "items": [1.5]}, r"items is \[1.5\]"),
        ("message", {**ok, "message": "x" * 2001}, "2001 characters"),
        ("both", {**ok, "similar_to": "i3"}, "similar_to goes with nothing but"),
        ("many", {**ok, "items": ["i1"] * 10_001}, "items has 10,001 ids; a list has at most 10,000"),
        ("long id", {**ok, "request_id": "x" * 1001}, "request_id has 1,001 characters"),
        ("blank", {"request_id": 2, "message": " \t"}, "has nothing to go by"),
        ("array", [1], "must be an object"),
    ):
        yield name, lines(folder / f"{name}.jsonl", [ok, one]), words
    yield "no JSON", folder / "no.jsonl", json.dumps(ok).encode() + b"\n{", "line 2 is not JSON"
    yield "bytes", folder / "bytes.jsonl", b"\xff\xfe\x00", "line 1 is not JSON"
    yield (
        "surrogate",
        folder / "sur.jsonl",
        b'{"request_id": "\\ud800", "items": []}',
        "line 1 holds half of a surrogate",
    )
    yield "deep", folder / "deep.jsonl", b"[" * 100_000, "line 1 is not JSON"
    for name, types, words in (
        ("lists", {"items": pa.list_(pa.bool_())}, "column 'items' is of type list<"),
        ("flags", {"k": pa.bool_()}, "column 'k' is of type bool"),
    ):
        yield name, parquet(folder / f"{name}.parquet", [{"request_id": 1, "items": None, "k": None}], **types), words


def test_what_is_wrong_is_said_in_one_line_and_leaves_the_output_alone(model, runner, tmp_path):
    target = tmp_path / "out.parquet"
    target.write_bytes(b"an earlier output")
    for name, path, *rest in bad_files(tmp_path):
        if len(rest) == 2:
            path.write_bytes(rest[0])
        with pytest.raises((DataError, RequestError), match=rest[-1]) as error:
            rank(model, runner, path, target)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400, name
    assert target.read_bytes() == b"an earlier output"
    assert not list(tmp_path.glob(".*"))


def test_settings_out_of_bounds(model, runner, tmp_path):
    source = lines(tmp_path / "in.jsonl", REQUESTS)
    for how, words in (({"k": 0}, "-k is 0"), ({"part": 0}, "part of 0"), ({"shard": (0, 2)}, "shard 0/2")):
        with pytest.raises(RequestError, match=words):
            rank(model, runner, source, tmp_path / "out.parquet", **how)
    with pytest.raises(RequestError, match="is the input"):
        rank(model, runner, source, source)
    with pytest.raises(ArtifactError, match="no model directory"):
        rank(tmp_path / "none", runner, source, tmp_path / "out.parquet")
    with pytest.raises(ArtifactError, match="is a directory"):
        rank(model, runner, source, tmp_path)


@pytest.mark.parametrize("at_a_time", [2, 1024])
def test_rows_are_read_from_anywhere(tmp_path, monkeypatch, at_a_time):
    monkeypatch.setattr(request_files, "_ROWS", at_a_time)
    requests = many(23)
    sources = (
        lines(tmp_path / "in.jsonl", requests),
        parquet(tmp_path / "in.parquet", requests, row_group_size=9),
        in_csv(tmp_path / "in.csv", requests),
    )
    for path in sources:
        for start, stop in ((0, None), (0, 3), (2, 9), (3, 6), (22, 23), (23, None), (5, 5)):
            found = [row.request_id for row in request_files.read_requests(path, start, stop)]
            of = str if path.suffix == ".csv" else int  # ids of CSV are text
            assert found == [of(one["request_id"]) for one in requests[start:stop]]


def test_on_the_command_line_an_error_is_one_line_and_digits_are_plain(model, tmp_path):
    from typer.testing import CliRunner

    from llmrec.app.cli.main import app

    source = lines(tmp_path / "in.jsonl", [{"request_id": 1, "items": "i1"}])
    where = ["--input", str(source), "--output", str(tmp_path / "out.parquet"), "--model", str(model)]
    wrong = CliRunner().invoke(app, ["rank", *where])
    assert isinstance(wrong.exception, DataError) and not wrong.output.strip()  # what `llmrec` prints in one line
    digits = CliRunner().invoke(app, ["rank", *where, "--shard", "\u0661/\u0662"])
    assert isinstance(digits.exception, RequestError) and "i/n" in str(digits.exception)


@pytest.mark.kernels
def test_bfloat16_products_are_another_job_with_nearly_the_same_scores(model, tmp_path):
    if fastest_matmul_dtype() != "bfloat16" or not can_prepack():
        pytest.skip("this processor does not multiply bfloat16 matrices")
    source = lines(tmp_path / "requests.jsonl", many(24))
    run = partial(process_pool.run_local, workers=1, loader=load)
    found = {}
    for name, part in (("float32", None), ("bfloat16", None), ("auto", 5)):
        output = tmp_path / f"{name}.parquet"
        rank_file(source, output, Settings(model, part=part, products=name), run)
        found[name] = pq.read_table(output)
    assert found["auto"].equals(found["bfloat16"])  # however it is cut
    one, other = (found[name].to_pandas() for name in ("float32", "bfloat16"))
    assert len(one) == len(other) and not one["score"].equals(other["score"])
    np.testing.assert_allclose(other["score"], one["score"], atol=0.3)  # of random weights
    again = rank_file(source, tmp_path / "float32.parquet", Settings(model, products="bfloat16"), run)
    assert again.resumed == 0 and pq.read_table(tmp_path / "float32.parquet").equals(found["bfloat16"])


def test_products_that_cannot_be_are_refused_before_anything_is_read(model, tmp_path, monkeypatch):
    monkeypatch.setattr(onednn, "fastest_matmul_dtype", lambda: "float32")
    for name, words in (("bfloat16", "does not multiply bfloat16"), ("int4", "no number format 'int4'")):
        with pytest.raises(RequestError, match=words):
            rank_file(tmp_path / "none.jsonl", tmp_path / "out.parquet", Settings(model, products=name))
