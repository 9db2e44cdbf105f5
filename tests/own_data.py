"""One small log in the files of every reader, for tests of rules that all of them share."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.dataset import Dataset, read_source
from llmrec.data.readers.assembly import DEFAULT_RULES, JoinRules
from llmrec.data.readers.common import Report
from llmrec.data.readers.table import read_table
from llmrec.data.readers.table_mapping import load_mapping

Log = Sequence[tuple[object, object, object]]  # user, item, time


def text(path: Path, *lines: str) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def jsonl(path: Path, *records: dict[str, object]) -> None:
    text(path, *(json.dumps(record, ensure_ascii=False) for record in records))


def table(form: str, folder: Path, items: Sequence[object], log: Log) -> None:
    tables = {
        "i": {"item_id": list(items), "title": [f"Title {n}" for n in range(len(items))]},
        "l": dict(zip(("user_id", "item_id", "at"), map(list, zip(*log, strict=True)), strict=True)),
    }
    for name, columns in tables.items():
        path = folder / f"{name}.{form}"
        rows = list(zip(*columns.values(), strict=True))
        if form == "csv":
            text(path, ",".join(columns), *(",".join(map(str, row)) for row in rows))
        elif form == "jsonl":
            jsonl(path, *(dict(zip(columns, row, strict=True)) for row in rows))
        elif form == "parquet":
            pq.write_table(pa.table(columns), path)
        else:
            content = pa.table(columns)
            with pa.ipc.new_stream(str(path), content.schema) as stream:
                stream.write_table(content)


def recbole(folder: Path, items: Sequence[object], log: Log) -> None:
    head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    text(folder / "x.item", head, *(f"{one}\tTitle {n}\t\t" for n, one in enumerate(items)))
    text(
        folder / "x.inter", "user_id:token\titem_id:token\ttimestamp:float", *("\t".join(map(str, one)) for one in log)
    )


def movielens(form: str, folder: Path, items: Sequence[object], log: Log) -> None:
    mark = "," if form == "csv" else "::"
    films = [mark.join((str(one), f"Title {n}", "Drama")) for n, one in enumerate(items)]
    ratings = [mark.join((str(user), str(item), "5", str(time))) for user, item, time in log]
    heads = ["movieId,title,genres"], ["userId,movieId,rating,timestamp"]
    text(folder / f"movies.{form}", *(heads[0] if form == "csv" else ()), *films)
    text(folder / f"ratings.{form}", *(heads[1] if form == "csv" else ()), *ratings)


def amazon(folder: Path, items: Sequence[object], log: Log) -> None:
    jsonl(folder / "meta_x.json", *({"asin": str(one), "title": f"Title {n}"} for n, one in enumerate(items)))
    records = [{"reviewerID": str(u), "asin": str(i), "unixReviewTime": t, "overall": 5} for u, i, t in log]
    jsonl(folder / "x.json", *records)


def s3rec(form: str, folder: Path, items: Sequence[object], log: Log) -> None:
    """Without times: users in their order, items in the order of the log."""
    if form == "jsonl":
        jsonl(folder / "x.items.jsonl", *({"id": one, "title": f"Title {n}"} for n, one in enumerate(items)))
    else:
        text(folder / "x.item.tsv", "item_id:token\ttitle:token_seq", *(f"{one}\tTitle" for one in items))
    users = dict.fromkeys(user for user, _, _ in log)
    lines = (f"{one} {' '.join(str(item) for user, item, _ in log if user == one)}" for one in users)
    text(folder / "x.sequences.txt", *lines)


Writer = Callable[[Path, Sequence[object], Log], None]
WRITERS: dict[str, Writer] = {
    **{form: (lambda *a, form=form: table(form, *a)) for form in ("csv", "jsonl", "parquet", "arrow")},
    "recbole": recbole,
    "ml-100k": recbole,
    "movielens csv": lambda *a: movielens("csv", *a),
    "movielens dat": lambda *a: movielens("dat", *a),
    "amazon": amazon,
    "s3rec jsonl": lambda *a: s3rec("jsonl", *a),
    "s3rec tsv": lambda *a: s3rec("tsv", *a),
}
TABLES, UNTIMED = ("csv", "jsonl", "parquet", "arrow"), ("s3rec jsonl", "s3rec tsv")
KEEPS_UNKNOWN = ("amazon", *UNTIMED)


def read_back(form: str, folder: Path, rules: JoinRules = DEFAULT_RULES) -> Dataset:
    """What the reader of a form makes of the files that its writer wrote."""
    if form not in TABLES:
        return read_source(form.split()[0], folder, rules)
    flags = {"items": {"file": str(folder / f"i.{form}")},
             "interactions": {"file": str(folder / f"l.{form}"), "time": "at"}}  # fmt: skip
    return read_table(load_mapping(None, flags), rules=rules)


def prepared(form: str, folder: Path, items: Sequence[object], log: Log, rules: JoinRules = DEFAULT_RULES) -> Dataset:
    """Write the files of a form into an empty directory and read them."""
    folder.mkdir()
    WRITERS[form](folder, items, log)
    return read_back(form, folder, rules)


def said(report: Report) -> str:
    """All notes in one line."""
    return " | ".join(report.notes)
