from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeRecommender, films
from typer.testing import CliRunner

from llmrec.app.cli import doctor, main
from llmrec.storage import registry

VERBS = ["data prepare", "data check", "train", "recommend", "rank", "eval", "chat", "doctor"]


def run(*words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr of the command as the shell would see them."""
    monkeypatch.setattr(sys, "argv", ["llmrec", *words])
    code = 0
    try:
        main.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRecommender:
    made = FakeRecommender(films())
    stand_in = SimpleNamespace(from_pretrained=lambda model: made)
    monkeypatch.setattr("llmrec.recommender.Recommender", stand_in, raising=False)
    return made


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    result = CliRunner().invoke(main.app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    assert f"Example: llmrec {verb}" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("verb", "defaults"),
    [
        ("data prepare", ("item_id", "title", "user_id", "|")),
        ("data append", ("user_id", "item_id")),
        ("items add", ("item_id", "title")),
        ("items drift", ("item_id", "title")),
    ],
)
def test_help_names_the_columns_that_are_looked_for(verb: str, defaults: tuple[str, ...]) -> None:
    output = "".join(CliRunner().invoke(main.app, [*verb.split(), "--help"]).output.split())
    assert all(f"({name})." in output for name in defaults), output


def test_only_verbs_that_do_something_are_there() -> None:
    output = CliRunner().invoke(main.app, ["--help"]).output
    for verb in ("train", "recommend", "rank", "eval", "bench", "chat", "doctor", "data"):
        assert verb in output


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["recommend"], "--user"),
        (["recommend", "--items", "Toy Story", "-k", "0"], "between 1 and 100"),
        (["recommend", "--items", "Toy Story", "-k", "101"], "101"),
        (["data", "check", "/no/such/place"], "/no/such/place"),
        (["data", "prepare", "--source", "recbole", "--out", "x"], "--path"),
        (["data", "prepare", "--source", "recbole", "--out", "x", "--path", "/no/such/place"], "/no/such/place"),
        (["chat", "--host", "0.0.0.0"], "LLMREC_PASSWORD"),
        (["chat", "--port", "99999"], "port"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    words: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LLMREC_PASSWORD", raising=False)
    code, out, err = run(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert named in err


@pytest.mark.parametrize("words", [["bogus"], ["recommend", "-k", "many"], ["eval"], ["train", "x"], ["data", "check"]])
def test_usage_errors_exit_with_2(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(*words, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err


def test_an_unreadable_file_is_a_mistake_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr("llmrec.data.dataset.dataset_directory", denied)
    code, _, err = run("data", "check", "x", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, err) == (2, "error: Permission denied: /secret\n")


def test_recommend_prints_json(
    fake: FakeRecommender, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = "a slow film about trains, no sequels"
    words = ["recommend", "--items", "Toy Story (1995)| f2 ", "--message", wish, "-k", "3", "--json"]
    code, out, _ = run(*words, monkeypatch=monkeypatch, capsys=capsys)
    items = json.loads(out)["items"]
    assert code == 0
    assert [item["rank"] for item in items] == [1, 2, 3]
    assert set(items[0]) == {"rank", "item_id", "title", "score", "source", "reason"}
    assert (fake.requests[-1].history, fake.requests[-1].message) == ((0, 1), "slow about trains")


def test_recommend_prints_a_table(
    fake: FakeRecommender, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run("recommend", "--user", "196", "-k", "2", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert len([line for line in out.splitlines() if line.strip()]) == 3
    assert fake.requests[-1].history == (15, 16)


def test_an_unknown_title_names_what_is_close(
    fake: FakeRecommender, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run("recommend", "--items", "Goodfelloes II", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, out) == (2, "")
    assert "Goodfellas (1990)" in err


def test_train_and_eval_pass_their_arguments_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[Any, ...]] = []
    monkeypatch.setitem(
        sys.modules, "llmrec.finetune.pipeline", SimpleNamespace(train_model=lambda *a, **k: asked.append((*a, k)))
    )
    monkeypatch.setitem(sys.modules, "llmrec.eval.run", SimpleNamespace(run_suite=lambda *a: asked.append(a)))
    given = ("--no-resume", "--on-cpu", "--wandb", "films", "--set", "a.b=1", "--set", "c=x")
    run("train", "ml-100k", "--recipe", "smoke", "--out", "m", *given, monkeypatch=monkeypatch, capsys=capsys)
    given = ("--out", "o", "--limit", "5", "--ablations", "3", "--beside", "b", "--baselines", "ease,bpr")
    run("eval", *given, monkeypatch=monkeypatch, capsys=capsys)
    assert asked == [
        (
            "ml-100k",
            "smoke",
            Path("m"),
            {
                "resume": False,
                "work": None,
                "tensorboard": None,
                "wandb": "films",
                "changes": ["a.b=1", "c=x"],
                "on_cpu": True,
            },
        ),
        ("accuracy", None, None, Path("o"), 5, None, "loo", 1, "float32", 3, Path("b"), "ease,bpr"),
    ]


def test_doctor_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path))
    monkeypatch.setenv("LLMREC_OFFLINE", "1")
    monkeypatch.setattr(doctor, "bind_socket", lambda settings: socket.socket())  # others may use the port
    monkeypatch.setattr(doctor, "_SHIPPED", tmp_path / "none")
    code, out, _ = run("doctor", monkeypatch=monkeypatch, capsys=capsys)
    lines = out.splitlines()
    assert code == 1
    assert all(line.startswith(("OK", "MISSING")) for line in lines)
    missing = [line for line in lines if line.startswith("MISSING")]
    assert len(missing) == 1 + len(registry.RESOURCES)
    assert all(" -> " in line for line in missing)
    _, out, _ = run("doctor", "--json", monkeypatch=monkeypatch, capsys=capsys)
    assert {"ok", "name", "found", "advice"} == set(json.loads(out)["findings"][0])


def test_doctor_is_content_when_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path))
    for name in registry.RESOURCES:
        (tmp_path / "files" / name).mkdir(parents=True)
        (tmp_path / "files" / name / "manifest.json").touch()
    monkeypatch.setattr(doctor, "_SHIPPED", tmp_path)
    findings = {one.name: one for one in doctor.run_checks()}
    assert findings["checkpoint"].ok
    assert all(findings[name].ok for name in registry.RESOURCES)
    assert doctor._numbers("2.13.0+cpu") > doctor._numbers("2.10")


def test_doctor_looks_where_the_recommender_does() -> None:
    from llmrec import recommender

    assert doctor._SHIPPED == recommender.SHIPPED


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; import llmrec.app.cli.main; "
        "print([name for name in ('torch', 'transformers', 'gradio', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert done.stdout.strip() == "[]"


def test_chat_serves_the_loaded_model_on_loopback(
    fake: FakeRecommender, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("LLMREC_HOST", "LLMREC_PORT", "LLMREC_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    served: list[tuple[object, str, int]] = []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def serve(made: object, listener: socket.socket) -> None:
        served.append((made, *listener.getsockname()))
        listener.close()

    monkeypatch.setattr("llmrec.app.server.serve.create_app", lambda model, settings: model)
    monkeypatch.setattr("llmrec.app.server.serve.serve_app", serve)
    code, _, err = run("chat", "--port", str(port), monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert served == [(fake, "127.0.0.1", port)]
    assert f"http://127.0.0.1:{port}" in err


def test_a_port_in_use_is_said(
    fake: FakeRecommender, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, _, err = run("chat", "--port", port, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert port in err.splitlines()[-1]
    assert "Traceback" not in err
