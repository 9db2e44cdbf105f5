"""A persistent cache of text embeddings, keyed by the content of each text.

Training, `items add` and the first use of a model share one SQLite file, so only the new texts of a grown catalogue
must be embedded. Vectors are written as they are computed, so interrupted embedding resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.encoders.text import Embedder
from llmrec.progress import Counter, Say, to_stderr

FILE = "text-vectors.sqlite"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS vectors (embedder TEXT, key BLOB, vector BLOB, crc INTEGER, "
    "PRIMARY KEY (embedder, key)) WITHOUT ROWID"
)
_CHUNK = 256  # texts that are embedded and written together: a few seconds of MiniLM on one core
_CUT = 1200  # characters after which MiniLM truncates a text, approximately
_START = 50  # fixed cost of a text, in characters


def embed_catalog(catalog: Catalog, embedder: Embedder, cache: Path | None, say: Say = to_stderr) -> np.ndarray:
    """float32[n, d] of `catalog.describe(row)`, see `embed_texts`."""
    return embed_texts([catalog.describe(row) for row in range(len(catalog))], embedder, cache, say)


def embed_texts(texts: Sequence[str], embedder: Embedder, cache: Path | None, say: Say = to_stderr) -> np.ndarray:
    """Return text vectors float32[n, d], L2-normalised: from the cache, or else embedded and written to it.

    If the cache cannot be read or written, texts are embedded again. A damaged cache is replaced.

    Args:
        texts: to embed; duplicates are allowed.
        embedder: computes the vectors.
        cache: directory of the cache; None for none.
        say: progress callback.
    """
    keys = [_key(text) for text in texts]
    found = _read(cache, _owner(embedder), keys, embedder.dim)
    new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
    # group texts of similar length, for embedders that pad or batch by length
    order = sorted(new, key=lambda key: len(new[key]))
    counter = Counter(say, "text vectors", sum(_cost(text) for text in new.values()))
    done = 0
    for start in range(0, len(order), _CHUNK):
        chunk = order[start : start + _CHUNK]
        made = np.asarray(embedder.encode([new[key] for key in chunk]), np.float32)
        fresh = dict(zip(chunk, made, strict=True))
        found |= fresh
        _write(cache, _owner(embedder), fresh)
        done += sum(_cost(new[key]) for key in chunk)
        counter.at(done, f"{start + len(chunk):,} of {len(order):,} new texts embedded")
    return np.stack([found[key] for key in keys]) if keys else np.zeros((0, embedder.dim), np.float32)


def missing_texts(catalog: Catalog, embedder: str, dim: int, cache: Path) -> list[str]:
    """The distinct descriptions of a catalogue that are not in the cache."""
    texts = {_key(text): text for text in (catalog.describe(row) for row in range(len(catalog)))}
    found = _read(cache, f"{embedder}/{dim}", list(texts), dim)
    return [text for key, text in texts.items() if key not in found]


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _owner(embedder: Embedder) -> str:
    return f"{embedder.name}/{embedder.dim}"


def _cost(text: str) -> int:
    return min(len(text), _CUT) + _START


def _read(cache: Path | None, owner: str, keys: Sequence[bytes], dim: int) -> dict[bytes, np.ndarray]:
    """Return cached vectors by key; missing and damaged ones are left out."""
    if cache is None or not (cache / FILE).is_file():
        return {}
    try:
        with closing(_open(cache)) as file:
            return dict(_rows(file, owner, keys, dim))
    except sqlite3.OperationalError:  # locked for too long, or not readable
        return {}
    except sqlite3.DatabaseError:  # damaged, or no database at all: it is only a cache
        with suppress(OSError):
            (cache / FILE).unlink()
        return {}


def _rows(file: sqlite3.Connection, owner: str, keys: Sequence[bytes], dim: int) -> Iterator[tuple[bytes, np.ndarray]]:
    for key in keys:
        line = file.execute("SELECT vector, crc FROM vectors WHERE embedder = ? AND key = ?", (owner, key)).fetchone()
        if line is not None and len(line[0]) == 4 * dim and zlib.crc32(line[0]) == line[1]:
            yield key, np.frombuffer(line[0], "<f4").astype(np.float32)


def _write(cache: Path | None, owner: str, vectors: Mapping[bytes, np.ndarray]) -> None:
    if cache is None:
        return
    stored = {key: vector.astype("<f4").tobytes() for key, vector in vectors.items()}
    with suppress(sqlite3.Error, OSError):  # read-only, full or locked: see `embed_texts`
        cache.mkdir(parents=True, exist_ok=True)
        with closing(_open(cache)) as file, file:
            file.execute(_TABLE)
            rows = [(owner, key, data, zlib.crc32(data)) for key, data in stored.items()]
            file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)


def _open(cache: Path) -> sqlite3.Connection:
    return sqlite3.connect(cache / FILE, timeout=10.0)
