"""Saved artifacts: directories written atomically, described by a manifest and verified before use.

`write_artifact` fills a hidden sibling directory and then renames it to its final name, so a reader sees either the old
artifact or the new one, never a mixture. On Linux the two directories are exchanged in one system call (`renameat2`
with RENAME_EXCHANGE). Elsewhere the old directory is moved aside first. If a writer dies between the two renames, the
next reader or writer moves the old directory back. Artifacts consist of Parquet, safetensors and JSON files. Files that
could run code when loaded (pickles, Python source, `auto_map`) are refused on writing and on reading.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np

from llmrec.errors import ArtifactError
from llmrec.storage import atomic

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None

FORMAT = 1
MANIFEST = "manifest.json"
_REFUSED = re.compile(
    r"\.(pkl|pickle|pt|pth|bin|ckpt|joblib|dill|npz|h5|keras|py|pyc|so|dll|dylib)(?=\.|$)", re.IGNORECASE
)
RECORDED = ("llmrec", "numpy", "torch", "transformers", "peft")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """The description that is saved with an artifact; `files` maps a relative name to (sha256 hex, bytes)."""

    kind: str
    fingerprints: Mapping[str, str]
    meta: Mapping[str, Any]
    files: Mapping[str, tuple[str, int]]
    versions: Mapping[str, str]


def fingerprint_bytes(*chunks: bytes) -> str:
    """Return the sha256 hex of the chunks, each preceded by its length, so that their boundaries matter."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(len(chunk).to_bytes(8, "little"))
        digest.update(chunk)
    return digest.hexdigest()


def fingerprint_arrays(**arrays: np.ndarray[Any, Any]) -> str:
    """Return one sha256 hex over names, dtypes, shapes and little-endian bytes; the order of arrays does not matter."""
    chunks: list[bytes] = []
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        if array.dtype.hasobject:
            raise ArtifactError(f"array {name!r} has dtype object, which has no fingerprint; give numbers")
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        header = f"{name}\0{array.dtype.str}\0{arrays[name].shape}"
        chunks += [header.encode(), array.tobytes()]
    return fingerprint_bytes(*chunks)


def sha256_file(path: Path) -> str:
    """Return the sha256 hex of a file, read in chunks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def write_artifact(
    path: Path,
    kind: str,
    fingerprints: Mapping[str, str] | None = None,
    meta: Mapping[str, JSON] | None = None,
    own_place: bool = False,
) -> Iterator[Path]:
    """Yield an empty directory to fill; after a clean exit it replaces `path` in one step, together with a manifest.

    An exception inside, or while files are synced, leaves the previous artifact in place. Files may be in nested
    directories. Symlinks and file types that can run code are refused. A non-empty directory at `path` is replaced only
    if it is an artifact of the same kind that holds no files except those in its manifest; any other directory belongs
    to the user. With `own_place`, for caches and working directories of llmrec, damaged artifacts are replaced as well:
    it is enough that the directory has a file with the name of a manifest.

    Raises:
        ArtifactError: a file is refused, or `path` may not be replaced.
    """
    check_replaceable(path, None if own_place else kind)
    with atomic.replace_directory(Path(os.path.realpath(path))) as directory:
        yield directory
        files = [(name, directory / name) for name in _listing(directory)]
        manifest: dict[str, JSON] = {
            "format": FORMAT,
            "kind": kind,
            "fingerprints": dict(fingerprints or {}),
            "meta": dict(meta or {}),
            "files": {name: {"sha256": sha256_file(one), "bytes": one.stat().st_size} for name, one in files},
            "versions": _versions(),
        }
        manifest["self"] = _seal(manifest)
        (directory / MANIFEST).write_bytes(_json_bytes(manifest))


def read_manifest(path: Path, kind: str, verify: bool = True) -> Manifest:
    """Read and check the manifest of the artifact at `path`; with `verify`, also check every file's sha256.

    Raises:
        ArtifactError: no such directory, another kind or format, a missing, extra or changed file (the message has both
            hashes), a symlink, or a file type that can run code.
    """
    path = Path(path)
    atomic.recover_directory(Path(os.path.realpath(path)))
    if not path.is_dir():
        raise ArtifactError(f"no artifact at {path}: the directory does not exist")
    names = _listing(path)
    manifest = _parse(path, kind)
    missing, extra = sorted(set(manifest.files) - set(names)), sorted(set(names) - set(manifest.files))
    if missing:
        raise ArtifactError(f"{path}: file {missing[0]!r} is listed in {MANIFEST} but missing")
    if extra:
        raise ArtifactError(f"{path}: file {extra[0]!r} is not listed in {MANIFEST}; remove it")
    for name, (digest, size) in manifest.files.items():
        actual = (path / name).stat().st_size
        if actual != size and not verify:
            raise ArtifactError(f"{path}: file {name!r} has {actual} bytes, {MANIFEST} says {size}")
        if verify and (found := sha256_file(path / name)) != digest:
            raise ArtifactError(f"{path}: file {name!r} was changed: sha256 is {found}, {MANIFEST} says {digest}")
    return manifest


def expect_fingerprint(manifest: Manifest, name: str, actual: str, what: str) -> None:
    """Check that `actual` equals the fingerprint `name` that is recorded in an artifact's manifest.

    Raises:
        ArtifactError: the fingerprints differ or none is recorded; the message names both.
    """
    expected = manifest.fingerprints.get(name)
    if expected is None:
        raise ArtifactError(f"this {manifest.kind} artifact records no fingerprint of its {what} ({name!r})")
    if expected != actual:
        raise ArtifactError(
            f"this {manifest.kind} artifact was made with another {what}: "
            f"it expects fingerprint {expected[:16]}, the {what} given has {actual[:16]}"
        )


def write_json_atomic(path: Path, value: JSON) -> None:
    """Write indented JSON atomically, see `write_bytes_atomic`; NaN and infinities are refused."""
    write_bytes_atomic(path, _json_bytes(value))


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader sees either the old bytes or the new ones, even after a power cut."""
    atomic.replace_file(Path(path), data)


def _json_bytes(value: JSON) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _seal(manifest: Mapping[str, JSON]) -> str:
    """Return the sha256 of the manifest's own content, which reveals changes to it."""
    content = {name: value for name, value in manifest.items() if name != "self"}
    return fingerprint_bytes(json.dumps(content, sort_keys=True).encode())


def _versions() -> dict[str, str]:
    found = {}
    for name in RECORDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_replaceable(path: Path, kind: str | None) -> None:
    """Raise ArtifactError if `path` is anything but an artifact of this kind; None accepts any kind and state."""
    target = Path(os.path.realpath(path))
    atomic.recover_directory(target)
    blocked = next((one for one in (target, *target.parents) if one.exists() and not one.is_dir()), None)
    if blocked is not None:
        raise ArtifactError(f"{blocked} is a file; give a directory to write to")
    if target.exists() and any(target.iterdir()) and (why := _not_ours(target, kind)):
        raise ArtifactError(f"{target} {why}; it is not replaced: give another directory")


def _not_ours(target: Path, kind: str | None) -> str:
    """Return why a non-empty directory may not be replaced; "" if it may."""
    if not (target / MANIFEST).is_file():
        return f"holds files but no {MANIFEST}"
    if kind is None:
        return ""
    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
        found, listed = manifest["kind"], {MANIFEST, *manifest["files"]}
    except (ValueError, TypeError, LookupError, OSError, RecursionError):
        return f"has a {MANIFEST} that llmrec did not write"
    if found != kind:
        return f"is an artifact of kind {found!r:.80}, not {kind!r}"
    names = {one.relative_to(target).as_posix() for one in target.rglob("*") if not one.is_dir()}
    strange = sorted(names - listed)
    return f"holds {strange[0]!r:.200}, which its {MANIFEST} does not list" if strange else ""


def _listing(root: Path) -> list[str]:
    """Return the sorted relative names of all files except the top manifest; refuses symlinks and files with code."""
    names: list[str] = []
    pending = [root]
    while pending:
        for entry in os.scandir(pending.pop()):
            name = Path(entry.path).relative_to(root).as_posix()
            if entry.is_symlink():
                raise ArtifactError(f"{root}: {name!r} is a symlink; an artifact holds plain files only")
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                raise ArtifactError(f"{root}: {name!r} is neither a file nor a directory")
            elif name != MANIFEST:
                _refuse_code(root, name)
                names.append(name)
    return sorted(names)


def _refuse_code(root: Path, name: str) -> None:
    """Refuse files that can make a loader run code."""
    pure = PurePosixPath(name)
    if bad := _REFUSED.search(pure.name):
        raise ArtifactError(f"{root}: {name!r} is refused: {bad[0]} files can run code when loaded")
    if pure.suffix.lower() == ".npy" and _npy_has_objects(root / name):
        raise ArtifactError(f"{root}: {name!r} is refused: it is not an .npy file of plain numbers")
    if pure.name.endswith("config.json") and _asks_for_code(root / name):
        raise ArtifactError(
            f"{root}: {name!r} is refused: it is not plain JSON, or its auto_map asks for code to be run"
        )


def _npy_has_objects(path: Path) -> bool:
    try:
        return bool(np.load(path, mmap_mode="r", allow_pickle=False).dtype.hasobject)
    except (ValueError, OSError, EOFError):
        return True


def _asks_for_code(path: Path) -> bool:
    """Return whether a config has `auto_map` or `custom_pipelines` at any depth; True also if it cannot be parsed."""
    try:
        pending = [json.loads(path.read_bytes())]
    except (ValueError, OSError, RecursionError):
        return True
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if not {"auto_map", "custom_pipelines"}.isdisjoint(value):
                return True
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return False


def _parse(path: Path, kind: str) -> Manifest:
    try:
        raw = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is not an artifact: it has no {MANIFEST}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ArtifactError(f"{path}/{MANIFEST} cannot be read: {error}") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise ArtifactError(f"{path}: artifact format {found!r:.80} is unknown; this version reads format {FORMAT}")
    if raw.get("kind") != kind:
        raise ArtifactError(f"{path} is an artifact of kind {raw.get('kind')!r:.80}; one of kind {kind!r} is needed")
    if raw.get("self") != (seal := _seal(raw)):
        raise ArtifactError(f"{path}/{MANIFEST} was changed: its sha256 is {seal}, it says {raw.get('self')!s:.80}")
    try:
        files = {name: (_digest(e["sha256"]), int(e["bytes"])) for name, e in raw["files"].items()}
        prints, versions = dict(raw["fingerprints"]), dict(raw["versions"])
        manifest = Manifest(kind, prints, dict(raw["meta"]), files, versions)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}/{MANIFEST} is malformed: {error!r:.200}") from None
    for name in files:
        if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
            raise ArtifactError(f"{path}/{MANIFEST} names {name!r:.200}, which is outside the directory")
    return manifest


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{value!r} is not a sha256")
    return value
