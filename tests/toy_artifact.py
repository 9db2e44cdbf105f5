"""A toy artifact, and what a reader sees of it."""

import json
from pathlib import Path

from llmrec.storage.artifacts import read_manifest, write_artifact


def save(path: Path, word: str) -> None:
    with write_artifact(path, "toy", {"catalog": "ab" * 32}, {"word": word}) as directory:
        (directory / "a.json").write_text(json.dumps(word))
        (directory / "nested").mkdir()
        (directory / "nested" / "b.txt").write_text(word)


def word_of(path: Path) -> str:
    manifest = read_manifest(path, "toy")
    words = {json.loads((path / "a.json").read_text()), (path / "nested" / "b.txt").read_text()}
    assert words == {manifest.meta["word"]}, "a mixture of two artifacts"
    return str(manifest.meta["word"])


def neighbours(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir() if entry.name != path.name)
