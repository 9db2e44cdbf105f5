"""Promise 11, at the public door: a model directory by somebody else is one clear error, and runs nothing of theirs.

Whoever makes a directory makes its manifest, too, so every edit is sealed again: hashes keep damage out, not malice.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from toy_files import recommender, saved

from llmrec.errors import UserError
from llmrec.storage import artifacts


class Watcher:
    """Notes what an audit hook sees of this thread between `watching` and its end; hooks cannot be taken out again."""

    FORBIDDEN = (
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "socket.connect",
        "pickle.find_class",
    )

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.root, self.thread = "", 0
        sys.addaudithook(self._note)

    def _note(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.thread or threading.get_ident() != self.thread:
            return
        if event in self.FORBIDDEN:
            self.seen.append(f"{event} {str(given)[:80]}")
        elif event == "import" and self.root in str(given[1]):
            self.seen.append(f"import {given[:2]}")
        elif event == "open" and isinstance(given[0], str) and "zqsecretzq" in given[0]:
            self.seen.append(f"open {given[0]}")

    @contextmanager
    def watching(self, root: Path) -> Iterator[None]:
        self.seen, self.root, self.thread = [], str(root), threading.get_ident()
        try:
            yield
        finally:
            self.thread = 0


@pytest.fixture(scope="module")
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    (folder / "zqsecretzq").write_text("not to be opened")
    return saved(folder)[0]


def reseal(path: Path) -> None:
    """Hashes of what is there now, as whoever made the directory would write them."""
    manifest = json.loads((path / "manifest.json").read_text())
    files = [one for one in path.rglob("*") if one.is_file() and one.name != "manifest.json"]
    for name in list(manifest["files"]):
        if not (path / name).exists():
            del manifest["files"][name]
    for one in files:
        body = one.read_bytes()
        digest = hashlib.sha256(body).hexdigest()
        manifest["files"][one.relative_to(path).as_posix()] = {"sha256": digest, "bytes": len(body)}
    manifest.pop("self")
    manifest["self"] = artifacts._seal(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def config(**changes: Any) -> Callable[[Path], None]:
    """An edit of config.json by dotted names."""

    def edit(path: Path) -> None:
        value = json.loads((path / "config.json").read_text())
        for dotted, new in changes.items():
            *way, last = dotted.split("__")
            inner = value
            for step in way:
                inner = inner[step]
            inner[last] = new
        (path / "config.json").write_text(json.dumps(value))

    return edit


def tensors(name: str, header: dict[str, Any], body: bytes = b"") -> Callable[[Path], None]:
    """A safetensors file whose header says whatever it likes."""
    words = json.dumps(header).encode()
    return lambda path: (path / name).write_bytes(struct.pack("<Q", len(words)) + words + body) and None


def holding(name: str, body: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(body) and None


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("import sys; sys.modules['zqexploded'] = sys",)


HUGE = {"codes": {"dtype": "I64", "shape": [1 << 40, 2], "data_offsets": [0, 1 << 44]}}
EDITS: dict[str, Callable[[Path], None]] = {
    "a base that is a file": config(base__id="/etc/passwd"),
    "a base that climbs": config(base__id="../../../../etc"),
    "a base that is an address": config(base__id="http://127.0.0.1:9/x"),
    "a base that is a number": config(base__id=7),
    "no base": config(base=None),
    "data that climbs": config(settings__data="../zqsecretzq"),
    "data that is a device": config(settings__data="/dev/zero"),
    "data that is a list": config(settings__data=["x"]),
    "settings that are a list": config(settings=[]),
    "an unknown size": config(model__trust_remote_code=True),
    "a rank of a billion": config(model__lora_rank=10**9),
    "a rank below zero": config(model__lora_rank=-1),
    "a rank in words": config(model__lora_rank="many"),
    "a billion user slots": config(model__user_slots=10**9),
    "an adapter as wide as memory": config(model__adapter_width=10**12),
    "an encoder as wide as memory": config(encoder__dim=10**12),
    "an encoder of ten million layers": config(encoder__layers=10**7),
    "an encoder without heads": config(encoder__heads=0),
    "an encoder of a kind of theirs": config(encoder__kind="os.system"),
    "weights that are no mapping": config(fusion__history=[1, 2]),
    "weights in words": config(fusion__history={"encoder": "__import__('os')"}),
    "a window of words": config(settings__window="x"),
    "a module to import": config(auto_map={"AutoModel": "evil.Evil"}),
    "a configuration that is a list": holding("config.json", b"[]"),
    "a configuration that is nested a million deep": holding("config.json", b"[" * 1_000_000),
    "a configuration of bytes": holding("config.json", bytes(range(256))),
    "codes that are a pickle": holding("semantic_ids.safetensors", pickle.dumps(Bomb())),
    "an adapter that is a pickle": holding("adapter.safetensors", pickle.dumps(Bomb())),
    "an encoder that is a pickle": holding("encoder.safetensors", pickle.dumps(Bomb())),
    "neighbours that are a pickle": holding("neighbours.safetensors", pickle.dumps(Bomb())),
    "codes that claim a terabyte": tensors("semantic_ids.safetensors", HUGE),
    "codes without codes": tensors("semantic_ids.safetensors", {}),
    "an adapter without weights": tensors("adapter.safetensors", {}),
    "an encoder without weights": tensors("encoder.safetensors", {}),
    "neighbours without any": tensors("neighbours.safetensors", {}),
    "a header longer than the file": holding("adapter.safetensors", struct.pack("<Q", 1 << 62) + b"{}"),
    "an empty adapter": holding("adapter.safetensors", b""),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_hostile_model_directory_is_one_clear_error_and_runs_nothing(
    name: str, good: Path, tmp_path: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMREC_OFFLINE", "1")
    path = tmp_path / "model"
    shutil.copytree(good, path)
    EDITS[name](path)
    reseal(path)
    with watcher.watching(path), pytest.raises(UserError) as caught:
        recommender(path)
    assert watcher.seen == []
    assert "zqexploded" not in sys.modules
    assert "\n" not in str(caught.value)


def test_an_honest_directory_loads(
    good: Path, tmp_path: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the edits above start from is sound, sealed again or not."""
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    path = tmp_path / "model"
    shutil.copytree(good, path)
    reseal(path)
    with watcher.watching(path):
        assert len(recommender(path).catalog) == 12
    assert watcher.seen == []


@pytest.mark.parametrize("name", ["model.pkl", "weights.bin", "sub/evil.py", "x.pt", "y.npz", "z.so", "a.joblib"])
def test_files_that_could_run_code_are_refused_at_the_public_door(
    name: str, good: Path, tmp_path: Path, watcher: Watcher
) -> None:
    path = tmp_path / "model"
    shutil.copytree(good, path)
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_bytes(pickle.dumps(Bomb()))
    reseal(path)
    with watcher.watching(path), pytest.raises(UserError, match=r"code|refused|not in the manifest|run") as caught:
        recommender(path)
    assert watcher.seen == []
    assert "\n" not in str(caught.value)
