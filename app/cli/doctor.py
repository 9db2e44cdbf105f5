"""`llmrec doctor`: checks what llmrec and its chat need on this machine, with advice for what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from llmrec.app.server import writable_paths
from llmrec.app.server.settings import Settings, bind_socket, load_settings
from llmrec.errors import UserError
from llmrec.storage import registry
from llmrec.storage.registry import RESOURCES, cache_home, offline_setting

# the lowest releases without known vulnerabilities in the parts used here
FLOORS = {"torch": "2.10", "transformers": "5.0", "peft": "0.19", "gradio": "6.31"}
# the same directory as recommender.SHIPPED, found without loading torch
_SHIPPED = Path(registry.__file__).resolve().parents[2] / "checkpoints" / "ml-100k"
_MEMORY_GB = 4.0
_DISK_GB = 2.0


@dataclass(frozen=True)
class CheckResult:
    """Result of one check: whether it passed, its name, what was found, and advice if it failed."""

    ok: bool
    name: str
    found: str
    advice: str = ""


def run_checks() -> list[CheckResult]:
    """Run all checks; nothing is downloaded or changed."""
    python = platform.python_version()
    findings = [_judged(_numbers(python) >= (3, 11), "python", python, "use Python 3.11 or later")]
    findings += [_package(name, floor) for name, floor in FLOORS.items()]
    findings += [_threads(), _memory(), _disk()]
    findings += [_resource(name) for name in RESOURCES]
    return [*findings, _checkpoint(), _network(), _home(), *_chat()]


def _judged(ok: bool, name: str, found: str, advice: str) -> CheckResult:
    return CheckResult(ok, name, found, "" if ok else advice)


def _package(name: str, floor: str) -> CheckResult:
    try:
        found = version(name)
    except PackageNotFoundError:
        return CheckResult(False, name, "not installed", f"pip install '{name}>={floor}'")
    return _judged(_numbers(found) >= _numbers(floor), name, found, f"pip install '{name}>={floor}'")


def _numbers(release: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: 2.13.0+cpu -> (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", release)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _threads() -> CheckResult:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS")
    return CheckResult(True, "threads", f"{usable} cores" + (f", OMP_NUM_THREADS={asked}" if asked else ""))


def _memory() -> CheckResult:
    try:
        gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, OSError, ValueError):
        return CheckResult(True, "memory", "cannot be read on this system")
    return _judged(gigabytes >= _MEMORY_GB, "memory", f"{gigabytes:.1f} GB", f"{_MEMORY_GB:.0f} GB are needed")


def _disk() -> CheckResult:
    place = cache_home()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    advice = f"free {_DISK_GB:.0f} GB, or point LLMREC_HOME at another disk"
    return _judged(free >= _DISK_GB, "disk", f"{free:.1f} GB free at {cache_home()}", advice)


def _resource(name: str) -> CheckResult:
    there = (cache_home() / "files" / name / "manifest.json").is_file()
    forbidden = offline_setting()
    advice = "nothing: it is fetched when first needed"
    if forbidden:
        advice = f"{forbidden} forbids to fetch it: unset that once where there is a network"
    return _judged(there, name, "cached" if there else "not cached yet", advice)


def _checkpoint() -> CheckResult:
    advice = "run `llmrec train ml-100k --recipe ml-100k --out checkpoints/ml-100k`, or give --model"
    return _judged(_SHIPPED.is_dir(), "checkpoint", str(_SHIPPED) if _SHIPPED.is_dir() else "no shipped model", advice)


def _home() -> CheckResult:
    why = writable_paths.directory_problem(cache_home())
    advice = "set LLMREC_HOME to a folder that can be written"
    return _judged(not why, "home", why or f"{cache_home()} can be written", advice)


def _chat() -> list[CheckResult]:
    """Check what `llmrec chat` needs with the settings from the environment and from the file in LLMREC_CONFIG."""
    try:
        settings = load_settings()
        temporary = writable_paths.temporary_directory()
    except UserError as error:
        return [CheckResult(False, "settings", str(error), "mend it: `llmrec chat` would not start")]
    why = writable_paths.directory_problem(temporary)
    advice = f"set {writable_paths.TEMPORARY} to a folder that can be written"
    found = [_judged(not why, "temporary files", why or f"{temporary} can be written", advice)]
    if settings.feedback != "off":
        why = writable_paths.file_problem(settings.feedback)
        advice = "set LLMREC_FEEDBACK to a file that can be written, or to off"
        found.append(_judged(not why, "feedback", why or f"{settings.feedback} can be written", advice))
    return [*found, _port(settings)]


def _port(settings: Settings) -> CheckResult:
    try:
        bind_socket(settings).close()
    except UserError as error:
        return CheckResult(
            False, "port", str(error), "end what uses it, or set LLMREC_PORT; a chat that runs uses it, too"
        )
    return CheckResult(True, "port", f"{settings.host}:{settings.port} is free")


def _network() -> CheckResult:
    return CheckResult(True, "network", f"not used ({offline_setting()})" if offline_setting() else "may be used")
