"""Consoles that know Latin-1 or ASCII alone: what they cannot show is replaced, and exit codes stay as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NAME = "Amélie → 千と千尋"
# One process runs many verbs: starting Python takes most of the time. Between them stands a line of its own.
DRIVER = """
import sys
from pathlib import Path

from rich.console import Console

from llmrec.app.cli import main as cli, printing as cli_print

name = sys.argv[1]
cli.app.command("table")(lambda: cli_print.print_table([{"title": name}], ("title",)))
cli.app.command("progress")(lambda: Console(stderr=True).print(name, markup=False))


@cli.app.command("stop")
def stop() -> None:
    raise cli.Interrupted(name)


for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines():
    sys.argv = ["llmrec", *line.split("\\t")]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    print(f"\\n-- {code}", flush=True)
    print("\\n--", file=sys.stderr, flush=True)
"""


def run(encoding: str, command: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {
        **os.environ,
        "PYTHONIOENCODING": encoding,
        "PYTHONUTF8": "0",
        "LLMREC_HOME": str(folder / NAME),
        "LLMREC_OFFLINE": "1",
        "LLMREC_FEEDBACK": str(folder / f"{NAME}.sqlite"),
    }
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, timeout=120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    titles = "".join(f"i{item},{NAME} {item}\n" for item in range(6))
    (tmp_path / "items.csv").write_text("item_id,title\n" + titles, encoding="utf-8")
    log = "".join(f"u{user},i{(user + place) % 6},{place}\n" for user in range(9) for place in range(4))
    (tmp_path / "log.csv").write_text("user_id,item_id,at\n" + log)
    (tmp_path / "driver.py").write_text(DRIVER, encoding="utf-8")
    return tmp_path


PREPARE = ("data", "prepare", "--source", "table", "--items", "items.csv", "--interactions", "log.csv", "--time", "at")
# verb, exit code, and on which stream the name stands
VERBS: list[tuple[tuple[str, ...], int, str]] = [
    ((*PREPARE, "--out", NAME), 0, "out"),
    ((*PREPARE, "--title", NAME, "--out", "x"), 2, "err"),
    (("data", "check", NAME), 0, ""),
    (("data", "check", f"{NAME}3"), 2, "err"),
    (("recommend", f"--{NAME}"), 2, "err"),
    ((NAME,), 2, "err"),
    (("feedback", "show"), 2, "err"),
    (("doctor",), 1, "out"),
    (("eval", "--help"), 0, ""),
    (("table",), 0, "out"),
    (("progress",), 0, "err"),
    (("stop",), 130, "err"),
]


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "Am?lie ? ????"), ("latin-1", "Am\xe9lie ? ????")])
def test_every_verb_replaces_what_the_console_lacks(encoding: str, shown: str, folder: Path) -> None:
    (folder / "verbs").write_text("\n".join("\t".join(words) for words, _, _ in VERBS), encoding="utf-8")
    done = run(encoding, [sys.executable, "driver.py", NAME, "verbs"], folder)
    assert done.returncode == 0, done.stderr.decode(encoding)[-2000:]
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)  # ASCII alone, or this raises
    outs, errs = out.split("\n-- ")[:-1], err.split("\n--\n")[:-1]
    assert "Traceback" not in err and len(outs) == len(errs) == len(VERBS)
    codes = [int(part.split("\n", 1)[0]) for part in out.split("\n-- ")[1:]]
    assert codes == [code for _, code, _ in VERBS], err
    for (words, _, stream), said, told in zip(VERBS, outs, errs, strict=True):
        assert (shown in " ".join(said.split())) == (stream == "out"), (words, said)
        assert (shown in " ".join(told.split())) == (stream == "err"), (words, told)


@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1", "utf-8"])
def test_json_is_escaped_only_where_the_console_lacks_a_character(encoding: str, folder: Path) -> None:
    done = run(encoding, [sys.executable, "-m", "llmrec.app.cli.main", *PREPARE, "--out", NAME, "--json"], folder)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["out"] == NAME
    assert done.stdout.isascii() == (encoding != "utf-8")
