"""The configurations of docs/deploy.md, in nginx and in Caddy, as they stand there but for ports and certificates."""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser_world import FLAGS, World, chromium, served
from fakes import FakeRecommender, films
from gradio_client import Client

from llmrec.app.server.settings import load_settings

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "deploy.md").read_text(encoding="utf-8")
NAME, PASSWORD = "rec.example.org", "correct horse"
PROGRAMS = {name: shutil.which(name) or shutil.which(name, path="/usr/sbin") for name in ("nginx", "caddy")}
OPENSSL = shutil.which("openssl")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for the name of the documentation, and its key."""
    if OPENSSL is None:
        pytest.skip("openssl is not installed: no certificate for the proxy")
    folder = tmp_path_factory.mktemp("certificate")
    paths = folder / "cert.pem", folder / "key.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    words += ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run([OPENSSL, *words, "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    for path in paths:
        path.chmod(0o644)  # nginx may work as another user
    return paths


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def swapped(text: str, *pairs: tuple[str, str]) -> str:
    """Replace what differs on a test machine; each has to be there."""
    for old, new in pairs:
        assert old in text, f"the documentation no longer says {old!r}"
        text = text.replace(old, new)
    return text


def documented(kind: str) -> str:
    (block,) = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


def nginx(folder: Path, app: int, public: int, root: str, certificate: tuple[Path, Path]) -> list[str]:
    text = swapped(
        documented("nginx"),
        ("listen 443 ssl", f"listen 127.0.0.1:{public} ssl"),
        ("listen 80;", f"listen 127.0.0.1:{port()};"),
        ("127.0.0.1:7860", f"127.0.0.1:{app}"),
        (f"/etc/letsencrypt/live/{NAME}/fullchain.pem", str(certificate[0])),
        (f"/etc/letsencrypt/live/{NAME}/privkey.pem", str(certificate[1])),
        ("/var/log/nginx/llmrec.log", str(folder / "access.log")),
    )
    if root:
        assert "`location /films/ {` instead of `location / {`" in PAGE
        text = swapped(text, ("location / {", f"location {root}/ {{"))
    (folder / "llmrec.conf").write_text(text)
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ {places} include {folder}/llmrec.conf; }}\n"
    )
    return [
        str(PROGRAMS["nginx"]),
        "-p",
        str(folder),
        "-c",
        str(folder / "nginx.conf"),
        "-e",
        str(folder / "start.log"),
    ]


def caddy(folder: Path, app: int, public: int, root: str, certificate: tuple[Path, Path]) -> list[str]:
    text = swapped(
        documented("caddy"),
        (f"\n{NAME} {{\n", f"\nhttps://{NAME}:{public} {{\n    tls {certificate[0]} {certificate[1]}\n"),
        ("127.0.0.1:7860", f"127.0.0.1:{app}"),
        ("    servers {", "    admin off\n    auto_https disable_redirects\n    servers {"),
    )
    if root:
        assert "`reverse_proxy /films/* 127.0.0.1:7860 {`" in PAGE
        assert "`redir /films /films/`" in PAGE
        text = swapped(text, ("    reverse_proxy ", f"    redir {root} {root}/\n    reverse_proxy {root}/* "))
    (folder / "Caddyfile").write_text(text)
    return [str(PROGRAMS["caddy"]), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@dataclass
class Proxied:
    """An application behind a proxy.

    Attributes:
        world: the application itself.
        public: port of the proxy.
        root: path of the site.
        folder: what the proxy wrote.
    """

    world: World
    public: int
    root: str
    folder: Path

    def client(self, **headers: str) -> httpx.Client:
        """A client that asks the proxy as if its name led here."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        made = httpx.Client(
            base_url=f"https://127.0.0.1:{self.public}{self.root}",
            headers={"host": NAME, **headers},
            verify=context,
            timeout=4,
            event_hooks={"request": [lambda one: one.extensions.update(sni_hostname=NAME)]},
        )
        return made

    def direct(self) -> httpx.Client:
        return httpx.Client(base_url=f"{self.world.url}{self.root}", timeout=4)


@contextmanager
def proxied(program: str, root: str, password: str, folder: Path, certificate: tuple[Path, Path]) -> Iterator[Proxied]:
    if PROGRAMS[program] is None:
        pytest.skip(f"{program} is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    settings = load_settings(public_origins=[f"https://{NAME}"], root_path=root, password=password or None)
    with served(FakeRecommender(films()), settings) as world:
        public = port()
        words = {"nginx": nginx, "caddy": caddy}[program](folder, world.port, public, root, certificate)
        with (folder / "output.log").open("w") as output:
            running = subprocess.Popen(words, stdout=output, stderr=output, cwd=folder, env={"HOME": str(folder)})
        try:
            until = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", public), 1).close()
                    break
                except OSError:
                    said = "".join(one.read_text() for one in folder.glob("*.log"))
                    assert running.poll() is None and time.monotonic() < until, said
                    time.sleep(0.02)
            yield Proxied(world, public, root, folder)
        finally:
            running.terminate()
            running.wait(10)


def events(client: httpx.Client, session: str) -> Iterator[dict[str, Any]]:
    """What the page is sent while it waits."""
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line[5:])


def logged_in(at: Proxied, password: str) -> httpx.Client:
    client = at.client(origin=f"https://{NAME}")
    if password:
        assert client.get("/config").status_code == 401
        wrong = client.post("/login", data={"username": "llmrec", "password": "wrong horse"})
        assert wrong.status_code == 400
        right = client.post("/login", data={"username": "llmrec", "password": password})
        assert right.status_code == 200
        cookies = right.headers.get_list("set-cookie")
        assert cookies
        assert all("; secure" in one.lower() for one in cookies)
    return client


PROXIES = [
    pytest.param(program, root, password, id=f"{program}{root or '/'}{' with a password' if password else ''}")
    for program in PROGRAMS
    for root in ("", "/films")
    for password in ("", PASSWORD)
]


@pytest.mark.parametrize(("program", "root", "password"), PROXIES)
def test_all_that_the_documentation_promises_of_a_proxy(
    program: str, root: str, password: str, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    with proxied(program, root, password, tmp_path / "proxy", certificate) as at:
        client = logged_in(at, password)
        the_page_and_its_assets_load(at, client)
        an_event_is_streamed(at, client)
        the_endpoints_answer(client)
        strangers_are_refused(at, client)
        headers_of_a_client_change_nothing(at, client)
        if program == "nginx":
            log = (at.folder / "access.log").read_text()
            assert "/gradio_api/queue/data" in log
            assert "session_hash" not in log
        if root:
            answer = httpx.Client.get(client, f"https://127.0.0.1:{at.public}{root}")
            assert answer.is_redirect
            assert answer.headers["location"].endswith(f"{root}/")
            assert at.direct().get(f"{at.world.url}/").status_code == 404


def the_page_and_its_assets_load(at: Proxied, client: httpx.Client) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "content-security-policy" in page.headers
    assert client.get("/config").json()["root"] == f"https://{NAME}{at.root}"
    found = set(re.findall(r"<(?:script|link)[^>]*(?:src|href)=\"([^\"]+)\"", page.text))
    assert any(one.endswith(".js") for one in found)
    assert any(one.endswith(".css") for one in found)
    for source in {*found, "page.js", "theme.css"}:
        address = httpx.URL(f"https://{NAME}{at.root}/").join(source)
        assert address.host == NAME, source
        assert str(address.path).startswith(f"{at.root}/"), source
        answer = client.get(f"https://127.0.0.1:{at.public}{address.raw_path.decode()}")
        assert answer.status_code == 200, source


def an_event_is_streamed(at: Proxied, client: httpx.Client) -> None:
    """The list comes while the words are still held back: a proxy that buffers would show nothing."""
    gate = at.world.recommender.gate = threading.Event()
    config = client.get("/config").json()
    submit = next(one for one in config["dependencies"] if any(t[1] == "submit" for t in one["targets"]))
    body = {"data": ["I loved Alien"], "fn_index": submit["id"], "session_hash": "abc123"}
    assert client.post("/gradio_api/queue/join", json=body).status_code == 200
    before, after = "", ""
    for event in events(client, "abc123"):
        if not gate.is_set():
            before += json.dumps(event)
            if "Aliens" in before:
                gate.set()
        else:
            after += json.dumps(event)
        if event["msg"] == "process_completed":
            break
    assert "Aliens" in before
    assert "process_completed" not in before
    assert '"success": true' in after


def the_endpoints_answer(client: httpx.Client) -> None:
    called = client.post("/gradio_api/call/recommend", json={"data": [["Alien"], "", "", 3, None]})
    answer = client.get(f"/gradio_api/call/recommend/{called.json()['event_id']}")
    assert "event: complete" in answer.text
    assert "Aliens" in answer.text


def strangers_are_refused(at: Proxied, client: httpx.Client) -> None:
    for origin in ("https://evil.example", f"http://{NAME}", f"https://{NAME}:8443", "null", f"https://x.{NAME}"):
        for method, path in (("POST", "/gradio_api/queue/join"), ("GET", "/config"), ("OPTIONS", "/config")):
            assert client.request(method, path, headers={"origin": origin}).status_code == 403, (origin, method)
    try:
        shown = client.get("/", headers={"host": "evil.example"}).text
    except httpx.HTTPError:
        shown = ""  # nginx hangs up
    assert "gradio" not in shown
    with at.direct() as direct:
        assert direct.get("/", headers={"host": "evil.example"}).status_code == 421
        assert direct.get("/", headers={"x-forwarded-host": "evil.example"}).status_code == 421
        assert direct.get("/", headers={"origin": "https://evil.example"}).status_code == 403
        assert direct.get("/").status_code in {200, 401}


def headers_of_a_client_change_nothing(at: Proxied, client: httpx.Client) -> None:
    forged = {
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "http",
        "x-forwarded-for": "203.0.113.9",
        "forwarded": "host=evil.example;proto=http",
        "x-gradio-server": "https://evil.example",
    }
    config = client.get("/config", headers=forged)
    assert config.json()["root"] == f"https://{NAME}{at.root}"
    assert "evil" not in config.text
    assert "evil" not in client.get("/", headers=forged).text


def test_under_a_path_the_page_and_programs_work_without_a_proxy_too() -> None:
    with served(FakeRecommender(films()), load_settings(root_path="/films")) as world:
        moved = httpx.get(f"{world.url}/films?__theme=dark")
        assert (moved.status_code, moved.headers["location"]) == (308, "/films/?__theme=dark")
        assert httpx.get(f"{world.url}/films/config").json()["root"] == f"{world.url}/films"
        outside = httpx.get(f"{world.url}/config")
        assert outside.status_code == 404
        assert "all lies below /films/" in outside.json()["detail"]
        assert httpx.get(f"{world.url}/films/openapi.json").json()["servers"] == [{"url": "/films"}]
        assert httpx.post(f"{world.url}/films/gradio_api/upload").status_code == 404
        found = Client(f"{world.url}/films", verbose=False).predict(["Alien"], "", "", 3, api_name="/recommend")
        assert found["items"][0]["title"] == "Aliens (1986)"


@pytest.mark.skipif(chromium() is None, reason="no browser on this machine")
@pytest.mark.parametrize("root", ["/films"])
def test_a_browser_talks_through_the_proxy(root: str, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    from playwright.sync_api import expect, sync_playwright

    with proxied("nginx", root, PASSWORD, tmp_path / "proxy", certificate) as at, sync_playwright() as driver:
        flags = [*FLAGS, f"--host-resolver-rules=MAP {NAME}:443 127.0.0.1:{at.public}"]
        browser = driver.chromium.launch(executable_path=chromium(), args=flags)
        page = browser.new_context(ignore_https_errors=True).new_page()
        strange: list[str] = []
        page.on("request", lambda one: strange.append(one.url) if not one.url.startswith(f"https://{NAME}") else None)
        page.on("response", lambda one: strange.append(f"{one.status} {one.url}") if one.status >= 403 else None)
        page.goto(f"https://{NAME}{root}/")
        page.get_by_label("username").fill("llmrec")
        page.get_by_label("password").fill(PASSWORD)
        page.get_by_role("button", name="Login").click()
        expect(page.locator("#cards .card").first).to_be_visible()
        box = page.locator("#box textarea")
        box.fill("I loved Alien")
        box.press("Enter")
        expect(page.locator("#cards")).to_contain_text("Aliens")
        expect(page.locator("#chat")).to_contain_text("They fit well.")
        assert [one for one in strange if not one.startswith(("data:", "blob:"))] == []
        browser.close()


def test_a_proxy_that_puts_its_own_name_for_the_host_says_which_was_asked(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = swapped(PAGE, ("proxy_set_header Host $host;", "proxy_set_header X-Forwarded-Host $host;"))
    monkeypatch.setattr(sys.modules[__name__], "PAGE", named)
    with proxied("nginx", "/films", "", tmp_path / "proxy", certificate) as at:
        client = logged_in(at, "")
        the_page_and_its_assets_load(at, client)
        the_endpoints_answer(client)
        strangers_are_refused(at, client)
        headers_of_a_client_change_nothing(at, client)
