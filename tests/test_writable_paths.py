"""A place that cannot be written is named before the chat tells its address, with the setting that moves it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from test_cli import fake, run  # noqa: F401 (fake is a fixture)

from llmrec.app.cli import doctor
from llmrec.app.server import writable_paths
from llmrec.app.server.settings import load_settings
from llmrec.errors import UserError
from llmrec.storage import download
from llmrec.storage.registry import cache_home


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMREC_FEEDBACK", str(tmp_path / "home" / "feedback.sqlite"))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "temporary"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("LLMREC_PORT", str(probe.getsockname()[1]))


def spoil(place: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a place unwritable, for root too; returns what is in the way."""
    target = tmp_path / {"LLMREC_HOME": "home", "GRADIO_TEMP_DIR": "temporary", "LLMREC_FEEDBACK": "kept"}[place]
    monkeypatch.setenv(place, str(target / "feedback.sqlite" if place == "LLMREC_FEEDBACK" else target))
    if place == "LLMREC_HOME":
        monkeypatch.setenv("LLMREC_FEEDBACK", str(target / "feedback.sqlite"))
    if how == "a file is in its place":
        target.write_text("x")
        return target
    target.mkdir()
    original, opened = tempfile.TemporaryFile, os.open

    def refused(path: object) -> bool:
        return Path(str(path)).is_relative_to(target)

    def temporary(*given: object, **how: object):
        if refused(how["dir"]):
            raise OSError(30, "Read-only file system")
        return original(*given, **how)

    def opening(path: object, flags: int, *more: object, **how: object) -> int:
        if refused(path) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system", str(path))
        return opened(path, flags, *more, **how)

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary)
    monkeypatch.setattr(os, "open", opening)
    return target


WAYS = ["a file is in its place", "a read-only file system"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("place", ["LLMREC_HOME", "LLMREC_FEEDBACK", "GRADIO_TEMP_DIR"])
def test_the_chat_names_the_place_and_tells_no_address(
    fake: object,  # noqa: F811
    place: str,
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("llmrec.app.server.serve.serve_app", lambda *given: pytest.fail("it was served"))
    target = spoil(place, how, tmp_path, monkeypatch)
    code, _, error = run("chat", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert str(target) in error and place in error, error
    assert "Traceback" not in error and "http://" not in error and "loading the model" not in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("place", ["LLMREC_HOME", "LLMREC_FEEDBACK", "GRADIO_TEMP_DIR"])
def test_doctor_finds_what_the_chat_would_stumble_over(
    place: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spoil(place, how, tmp_path, monkeypatch)
    bad = {one.name: one for one in doctor.run_checks() if not one.ok and one.name not in doctor.RESOURCES}
    names = {"LLMREC_HOME": {"home", "feedback"}, "LLMREC_FEEDBACK": {"feedback"}}.get(place, {"temporary files"})
    assert set(bad) - {"checkpoint", "memory", "disk"} == names
    for name in names:
        assert str(target) in bad[name].found
        assert "can be written" in bad[name].advice
    assert any(place in one.advice for one in bad.values())


def test_doctor_is_content_with_a_fresh_machine_and_leaves_nothing(tmp_path: Path) -> None:
    found = {one.name: one for one in doctor.run_checks()}
    assert all(found[name].ok for name in ("home", "temporary files", "feedback", "port")), found
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_is_wrong_with_port_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("LLMREC_PORT", str(taken.getsockname()[1]))
        (port,) = [one for one in doctor.run_checks() if one.name == "port"]
        assert not port.ok
        assert str(taken.getsockname()[1]) in port.found
    monkeypatch.setenv("LLMREC_QUEUE", "0")
    (settings,) = [one for one in doctor.run_checks() if one.name == "settings"]
    assert not settings.ok
    assert "queue" in settings.found


def test_an_address_is_told_only_when_the_page_is_made(
    fake: object,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def create(*given: object) -> None:
        raise OSError(28, "No space left on device", "/full")

    monkeypatch.setattr("llmrec.app.server.serve.create_app", create)
    code, _, error = run("chat", monkeypatch=monkeypatch, capsys=capsys)
    assert code == 2
    assert "http://" not in error
    assert error.splitlines()[-1] == "error: No space left on device: /full"


@pytest.mark.parametrize("how", WAYS)
def test_a_fetch_into_such_a_home_names_it(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = spoil("LLMREC_HOME", how, tmp_path, monkeypatch)
    with pytest.raises(UserError, match="set LLMREC_HOME") as error:
        download.fetch("ml-100k", progress=False)
    assert str(target) in str(error.value)


def test_no_home_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(cls: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("LLMREC_HOME")
    monkeypatch.setattr(Path, "home", classmethod(none))
    with pytest.raises(UserError, match="set LLMREC_HOME"):
        cache_home()


def test_folders_of_another_user_are_noticed(tmp_path: Path) -> None:
    """Under a user who may not write there: as root every folder is writable."""
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    (theirs / "feedback.sqlite").write_bytes(b"")
    code = (
        "import os, pathlib, sys, tempfile\n"
        "from llmrec.app.server.writable_paths import directory_problem, file_problem\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "os.chdir('/')\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "else: folder.chmod(0o555); (folder / 'feedback.sqlite').chmod(0o444)\n"
        "directories = [directory_problem(folder), directory_problem(folder / 'a' / 'b')]\n"
        "print([*directories, file_problem(folder / 'feedback.sqlite')])\n"
    )
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        if os.getuid() == 0 and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o011)
    done = subprocess.run([sys.executable, "-c", code, str(theirs)], capture_output=True, text=True, check=False)
    assert done.stdout.count("Permission denied") == 3, done.stdout + done.stderr


def test_the_settings_say_where_feedback_goes(tmp_path: Path) -> None:
    writable_paths.check_writable(load_settings())
    assert (tmp_path / "home" / "feedback.sqlite").is_file()
