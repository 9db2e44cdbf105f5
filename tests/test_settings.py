"""One precedence, one name for a setting everywhere, and one line for a mistake."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmrec.app.cli import main
from llmrec.app.server.settings import (
    CONFIG,
    Settings,
    bind_socket,
    conversation_limits,
    load_settings,
    parse_assignments,
)
from llmrec.errors import UserError


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LLMREC_{name.upper()}", raising=False)
    monkeypatch.delenv(CONFIG, raising=False)


def written(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "llmrec.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_arguments_go_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, "port = 7001\nqueue = 5\nturns = 7\n")
    assert (load_settings(path).port, load_settings(path).queue, load_settings().port) == (7001, 5, 7860)
    monkeypatch.setenv("LLMREC_PORT", "7002")
    monkeypatch.setenv("LLMREC_QUEUE", "6")
    found = load_settings(path, port=7003)
    assert (found.port, found.queue, found.turns, found.sessions) == (7003, 6, 7, 1000)
    monkeypatch.setenv(CONFIG, str(path))
    assert load_settings().turns == 7


SERVED = [{"mcp": True}, {"public_origins": "https://a.example,https://b.example:8443", "root_path": "/films"}]


@pytest.mark.parametrize("served", SERVED, ids=["as a tool", "behind a proxy"])
def test_every_setting_can_be_given_in_each_of_the_three_ways(
    served: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "host": "127.0.0.2", "port": 7001, "user": "ann", "body_bytes": 2048, "queue": 3, "concurrency": 1,
        "sessions": 9, "session_minutes": 1.5, "message_chars": 200, "turns": 3, "k": 20, "reply_tokens": 9,
        "reply_seconds": 2.5, "feedback": "off", "backend_url": "http://127.0.0.1:1/v1", "backend_model": "m",
        "backend_seconds": 3.0, "backend_bytes": 2000, **served, "model": "m1", "batch_dir": "b1", "results": "r1",
    }  # fmt: skip
    secret = {"password": "long enough", "backend_key": "sk-1"}
    assert {*values, *secret, *(name for one in SERVED for name in one)} == set(Settings.model_fields)
    expected = {
        **{name: field.get_default() for name, field in Settings.model_fields.items() if name not in secret},
        **{
            name: Path(str(value)) if name in {"model", "batch_dir", "results"} else value
            for name, value in values.items()
        },
    }
    if "public_origins" in served:
        expected["public_origins"] = ("https://a.example", "https://b.example:8443")
    toml = "\n".join(f"{name} = {str(v).lower() if isinstance(v, bool) else repr(v)}" for name, v in values.items())
    assert load_settings(written(tmp_path, toml)).model_dump(exclude=set(secret)) == expected
    assert (
        load_settings(**parse_assignments([f"{name}={value}" for name, value in values.items()])).model_dump(
            exclude=set(secret)
        )
        == expected
    )
    for name, value in values.items():
        monkeypatch.setenv(f"LLMREC_{name.upper()}", str(value))
    assert load_settings().model_dump(exclude=set(secret)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 7001", "setting 'prot' is unknown; did you mean 'port'?"),
        ("[server]\nport = 1", "'server' is unknown"),
        ("port = 'many'", "setting port is 'many': input should be a valid integer"),
        ("queue = 0", "setting queue is '0': input should be greater than or equal to 1"),
        ("port = ", "not TOML"),
        ("port = 0x" + "f" * 6_000, "setting port holds a number of too many digits"),
        ("queue = [0x" + "f" * 6_000 + "]", "setting queue holds a number of too many digits"),
        ("host = '0.0.0.0'", "LLMREC_PASSWORD"),
        ("backend_url = 'file:///etc/passwd'", "http://host:port/v1"),
        ("backend_url = 'http://127.0.0.1:1/v1'", "backend_model is missing"),
        (
            "backend_url = 'http://words.example/v1'\nbackend_model = 'm'\nbackend_key = 'sk'",
            "backend_key would travel unencrypted to words.example",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_said_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_settings(written(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["\udcff", "a" * 80, "a..b", "\0"])
def test_a_host_that_is_no_name_is_said_in_one_line(host: str) -> None:
    with pytest.raises(UserError, match="cannot listen on") as caught:
        bind_socket(load_settings(host=host, password="long enough"))
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.toml"):
        load_settings(tmp_path / "gone.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not TOML"):
        load_settings(tmp_path / "binary.toml")
    with pytest.raises(UserError, match="chmod 600"):
        load_settings(written(tmp_path, "password = 'long enough'", 0o644))
    private = load_settings(written(tmp_path, "password = 'long enough'\nhost = '0.0.0.0'"))
    assert not private.local
    assert "long enough" not in repr(private)


def test_a_misspelt_variable_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_TEST_KILLS", "3")  # other parts have variables of their own
    load_settings()
    monkeypatch.setenv("LLMREC_PASSWRD", "long enough")
    with pytest.raises(UserError, match="did you mean LLMREC_PASSWORD"):
        load_settings()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://rec.example.org", ("https://rec.example.org",)),
        ("HTTPS://Rec.Example.Org:443", ("https://rec.example.org",)),
        ("http://films.lan:80, http://films.lan:8080", ("http://films.lan", "http://films.lan:8080")),
        (["https://a.example", "https://a.example"], ("https://a.example",)),
        ("https://[2001:DB8::1]:8443", ("https://[2001:db8::1]:8443",)),
        ("https://192.0.2.7", ("https://192.0.2.7",)),
        ("", ()),
        ([], ()),
    ],
)
def test_origins_are_kept_as_browsers_write_them(given: object, kept: tuple[str, ...]) -> None:
    assert load_settings(public_origins=given).public_origins == kept


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("rec.example.org", "does not begin with https://"),
        ("ftp://rec.example.org", "does not begin with https://"),
        ("*", "does not begin with https://"),
        ("null", "does not begin with https://"),
        (
            "https://rec.example.org/",
            "goes on after the host; give scheme and host alone, like https://rec.example.org",
        ),
        ("https://rec.example.org/films", "put a path into root_path"),
        ("https://rec.example.org?x=1", "goes on after the host"),
        ("https://rec.example.org#x", "goes on after the host"),
        ("https://ann:secret@rec.example.org", "no user name or password"),
        ("https://*.example.org", "names no host"),
        ("https://", "names no host"),
        ("https://a b", "names no host"),
        ("https://rec.example.org:99999", "is no origin"),
        ("https://[::1", "is no origin"),
        ("https://[v1.x]", "public_origins"),
        ("https://b\u00fccher.example", "'xn--bcher-kva.example'"),
        ("https://\ud800.example", "public_origins"),
        ("https://" + "\u00fc" * 300, "public_origins"),
        ("https://a.example,,nonsense", "'nonsense' does not begin"),
        ([7], "public_origins"),
    ],
)
def test_what_is_no_origin_is_said_in_one_line(given: object, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_settings(public_origins=given)
    said = str(caught.value)
    assert words in said
    assert "public_origins" in said
    assert "\n" not in said
    assert len(said) < 400
    assert "secret" not in said.partition(": ")[2]


@pytest.mark.parametrize(
    "given", ["films", "/", "/films/", "//films", "/../x", "/a/../b", "/a b", "/a?b", "/a%20b", "/\u00fc"]
)
def test_what_is_no_root_path_is_said_in_one_line(given: str) -> None:
    with pytest.raises(UserError, match=r"setting root_path is .*: give a path like /films") as caught:
        load_settings(root_path=given)
    assert "\n" not in str(caught.value)
    assert load_settings(root_path="/a/films-2.0").root_path == "/a/films-2.0"


def test_the_addresses_of_the_page() -> None:
    assert load_settings().addresses == ("http://127.0.0.1:7860",)
    behind = load_settings(public_origins="https://rec.example.org", root_path="/films", port=7001)
    assert behind.addresses == ("https://rec.example.org/films/", "http://127.0.0.1:7001/films/")


def test_mcp_is_for_this_machine_only() -> None:
    assert load_settings(mcp=True).mcp
    exposed = [{"password": "long enough", "host": "0.0.0.0"}, {"public_origins": "https://rec.example.org"}]
    for given in ({"password": "long enough"}, *exposed):
        with pytest.raises(UserError, match="mcp has no log-in"):
            load_settings(mcp=True, **given)


def test_assignments() -> None:
    assert parse_assignments(["queue=8", "session-minutes = 2"]) == {"queue": "8", "session_minutes": "2"}
    with pytest.raises(UserError, match="name=value"):
        parse_assignments(["queue"])
    for secret in ("password", "backend-key"):
        with pytest.raises(UserError, match="list of processes"):
            parse_assignments([f"{secret}=abc"])


def test_limits_reach_the_conversation() -> None:
    limits = conversation_limits(load_settings(k=5, turns=3, message_chars=150, reply_tokens=7, reply_seconds=1.5))
    assert (limits.k, limits.default_k, limits.turns) == (5, 5, 3)
    assert (limits.message_chars, limits.reply_tokens, limits.reply_seconds) == (150, 7, 1.5)


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert [name for name in Settings.model_fields if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--config", "gone.toml"], "gone.toml"),
        (["--set", "prot=7001"], "did you mean 'port'"),
        (["--set", "port=7001", "--port", "0"], "setting port is '0'"),
        (["--set", "password=long enough"], "list of processes"),
        (["--set", "queue"], "name=value"),
        (["--host", "0.0.0.0"], "LLMREC_PASSWORD"),
        (["--mcp", "--host", "0.0.0.0"], "LLMREC_PASSWORD"),
    ],
)
def test_mistakes_end_the_command_at_once(
    words: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["llmrec", "chat", *words])
    with pytest.raises(SystemExit) as stop:
        main.main()
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert named in error
    assert len(error.splitlines()) == 1


def test_a_host_of_any_length_is_one_short_line() -> None:
    with pytest.raises(UserError, match="is open to other machines") as error:
        load_settings(host="1" + "[" * 3000 + "27.0.0.1")
    assert len(str(error.value)) < 300
