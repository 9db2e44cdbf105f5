"""Load and soak of the real application, with the tiny toy model, on loopback: a server process and many clients.

Usage: python tests/load_app.py [--clients 50] [--minutes 10] [--turns 1000] [--out load.json] [--model DIR]
`make soak` runs ten minutes, `make soak-shipped` the model in checkpoints. The server is a process of its own, as
`llmrec chat` starts it, so that its memory, threads and files are its own. --turns first speaks so many turns through
one client (bounded conversations, one after the other), then all clients speak at once for the minutes. --model
serves a saved model instead of the toy.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

HERE = Path(__file__).resolve().parent
SAYS = ("only {genre}", "from {year} on", "something else", "more", "why the first one?", "give me 3", "a {genre} tale")
PATIENCE = 120.0


@dataclass
class Seen:
    """What all clients met; guarded by the lock."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"answered": [], "refused": []})
    outcomes: Counter[str] = field(default_factory=Counter)
    mixed: int = 0
    invented: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def serve(port: int, model: str) -> None:
    """The server process: the toy model, or a saved one."""
    sys.path.insert(0, str(HERE))
    from llmrec.app.server.serve import create_app, serve_app
    from llmrec.app.server.settings import bind_socket, load_settings
    from llmrec.recommender import Recommender

    if model:
        recommender = Recommender.from_pretrained(model)
    else:
        from toy_recommender import make_recommender

        recommender = make_recommender()
    small = {} if model else {"reply_tokens": 8}  # the toy's words say nothing: few of them do
    # so few visitors are remembered that their places are taken in the first tenth of the run: growth after it leaks
    settings = load_settings(
        port=port, sessions=100, **small, feedback=str(Path(os.environ["LLMREC_HOME"]) / "feedback.sqlite")
    )
    serve_app(create_app(recommender, settings), bind_socket(settings))


def start(model: str, home: str) -> tuple[psutil.Process, str]:
    """A server that answers, and its address."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {**os.environ, "LLMREC_HOME": home, "HF_HUB_OFFLINE": "1", "LLMREC_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, __file__, "--serve", str(port), "--model", model], env=environment)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 300
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/config", timeout=5).status_code == 200:
                return psutil.Process(process.pid), url
        except httpx.HTTPError:
            time.sleep(0.3)
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}")
    process.kill()
    raise SystemExit("the server did not answer within five minutes")


class Caller:
    """One visitor after the other over one HTTP connection."""

    def __init__(self, url: str, chat: int, number: int, seen: Seen) -> None:
        self.url, self.chat, self.seen = url, chat, seen
        self.rng, self.name = random.Random(number), f"c{number}"
        self.http = httpx.Client(timeout=PATIENCE)
        self.visits = self.spoken = 0
        self.genre = ""
        self.filters: set[str] = set()

    def turn(self) -> None:
        """Say one thing and check that the answer is this visitor's own."""
        if self.spoken % 12 == 0:  # a new visitor, with one marker in their conversation from the first message on
            self.visits += 1
            self.genre = self.rng.choice(("Comedy", "Horror"))
        session = f"{self.name}v{self.visits}"
        first = self.spoken % 12 == 0
        text = SAYS[0] if first else self.rng.choice(SAYS[2:6])
        self.spoken += 1
        started = time.perf_counter()
        outcome, answer = self._ask(session, text.format(genre=self.genre.casefold(), year=1990))
        self._note(outcome, time.perf_counter() - started, answer)
        if first and outcome != "answered":
            self.spoken -= 1  # the marker was never said: the next message says it
            time.sleep(self.rng.random())

    def _ask(self, session: str, text: str) -> tuple[str, Any]:
        body = {"data": [text, ""], "fn_index": self.chat, "session_hash": session}
        try:
            joined = self.http.post(f"{self.url}/gradio_api/queue/join", json=body)
            if joined.status_code != 200:
                return f"refused {joined.status_code}", None
            door = f"{self.url}/gradio_api/queue/data"
            with self.http.stream("GET", door, params={"session_hash": session}) as stream:
                for line in stream.iter_lines():
                    if line.startswith("data:") and '"process_completed"' in line:
                        event = json.loads(line[5:])
                        good = event.get("success")
                        return ("answered", event["output"]["data"][0]) if good else ("refused in words", event)
            return "cut off", None
        except httpx.HTTPError as error:
            return f"lost {type(error).__name__}", None

    def _note(self, outcome: str, seconds: float, answer: Any) -> None:
        with self.seen.lock:
            self.seen.outcomes[outcome] += 1
            if outcome == "answered":
                self.seen.seconds["answered"].append(seconds)
                self.seen.mixed += answer["filters"] != [self.genre]
                ids = [one["item_id"] for one in answer["items"] or ()]
                self.seen.invented += len(set(ids)) != len(ids)
            elif outcome.startswith("refused"):
                self.seen.seconds["refused"].append(seconds)


def state(process: psutil.Process) -> tuple[float, int, int]:
    """Resident megabytes, threads and open descriptors of the server."""
    return process.memory_info().rss / 2**20, process.num_threads(), process.num_fds()


def speak(caller: Caller, until: float, process: psutil.Process, most: int | None, every: int) -> list[Any]:
    """Take turns until the time or the number is up; the server's state now and then."""
    states = []
    while time.monotonic() < until and (most is None or sum(caller.seen.outcomes.values()) < most):
        caller.turn()
        if every and sum(caller.seen.outcomes.values()) % every == 0:
            states.append(state(process))
    return states


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the worst, in seconds."""
    if not seconds:
        return {}
    found = np.percentile(np.array(seconds), (50, 95, 99, 100))
    return {f"seconds_{name}": float(value) for name, value in zip(("p50", "p95", "p99", "worst"), found, strict=True)}


def growth(states: list[tuple[float, int, int]]) -> dict[str, float]:
    """From the second tenth of the run (caches are full) to its last: medians, so that one garbage pause is none."""
    if len(states) < 10:
        return {}
    tenth = len(states) // 10
    early, late = np.median(states[tenth : 2 * tenth], axis=0), np.median(states[-tenth:], axis=0)
    return {
        "memory_mb": float(late[0]), "memory_growth": float(late[0] / early[0] - 1),
        "threads": float(late[1]), "threads_growth": float(late[1] - early[1]),
        "files": float(late[2]), "files_growth": float(late[2] - early[2]),
    }  # fmt: skip


def soak(process: psutil.Process, url: str, chat: int, turns: int) -> dict[str, float]:
    """So many turns by one client."""
    seen = Seen()
    states = speak(Caller(url, chat, 0, seen), time.monotonic() + 3600, process, turns, max(turns // 100, 1))
    return {"turns": float(sum(seen.outcomes.values())), **_told(seen), **growth(states)}  # an hour may end it before


def flood(process: psutil.Process, url: str, chat: int, clients: int, minutes: float) -> dict[str, float]:
    """All clients at once for the minutes."""
    seen, until = Seen(), time.monotonic() + 60 * minutes
    callers = [Caller(url, chat, 1 + number, seen) for number in range(clients)]
    threads = [threading.Thread(target=speak, args=(one, until, process, None, 0), daemon=True) for one in callers]
    for thread in threads:
        thread.start()
    states = []
    while time.monotonic() < until:
        time.sleep(min(max(minutes * 60 / 100, 0.2), max(until - time.monotonic(), 0.0) + 0.01))
        states.append(state(process))
    for thread in threads:
        thread.join(PATIENCE)
    return {"clients": float(clients), "minutes": minutes, **_told(seen), **growth(states)}


def _told(seen: Seen) -> dict[str, float]:
    refused = [count for name, count in seen.outcomes.items() if name.startswith("refused")]
    lost = [count for name, count in seen.outcomes.items() if name.startswith(("lost", "cut"))]
    quick = {f"refusal_{name}": value for name, value in percentiles(seen.seconds["refused"]).items()}
    counts = {"answered": seen.outcomes["answered"], "refused": sum(refused), "lost": sum(lost)}
    leaks = {"other_visitors_constraints": seen.mixed, "repeated_items": seen.invented}
    return {
        **{name: float(value) for name, value in {**counts, **leaks}.items()},
        **percentiles(seen.seconds["answered"]),
        **quick,
    }


def main() -> int:
    """Serve, soak, flood, write; 1 when something was lost, mixed or grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=1000)
    parser.add_argument("--model", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", type=int)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.model)
        return 0
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        process, url = start(given.model, home)
        try:
            listed = httpx.get(f"{url}/config").json()["dependencies"]
            chat = next(one["id"] for one in listed if one.get("api_name") == "chat")
            found = {f"soak_{k}": v for k, v in soak(process, url, chat, given.turns).items()}
            found |= {f"load_{k}": v for k, v in flood(process, url, chat, given.clients, given.minutes).items()}
        finally:
            process.kill()
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    bad = {k: v for k, v in found.items() if k.endswith(("_lost", "_constraints", "_repeated_items")) and v}
    bad |= {k: v for k, v in found.items() if k.endswith("memory_growth") and v >= 0.05}
    bad |= {k: v for k, v in found.items() if k.endswith("files_growth") and v > 60}
    for name, value in bad.items():
        print(f"{name} is {value}", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
