"""Downloads models from the Hugging Face Hub and pushes them there.

Downloads are untrusted until they are verified. Only the files that the manifest names are downloaded, as plain files
into a separate directory (the Hub's cache consists of links, which artifacts do not allow). Every hash is checked
before the directory gets its final name. Authentication is left to huggingface_hub.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub

from llmrec.checkpoint.card import fill_card
from llmrec.checkpoint.pretrained import MODEL_KIND, read_config, read_settings
from llmrec.data.dataset import DATASET_KIND, DOWNLOADABLE, dataset_directory
from llmrec.errors import ArtifactError, RequestError
from llmrec.storage import atomic
from llmrec.storage.artifacts import MANIFEST, read_manifest, write_artifact, write_json_atomic
from llmrec.storage.network import PATIENCE, SourceError, failure_reason, refuse_web_pages, wrap_network_errors
from llmrec.storage.registry import RESOURCES, cache_home, cache_lock, offline_setting

BESIDE_MODEL = "beside-the-model"  # data name in a pushed model for data in the same repository
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
_MOST_FILES, _MANIFEST_LIMIT = 1000, 16 << 20


def resolve_model(name_or_path: str | Path, revision: str = "main") -> Path:
    """Return the path of a local model directory, or of a Hub model `org/name`, which is downloaded if necessary.

    Raises:
        ArtifactError: the Hub has no such model, or does not answer and there is no earlier download, or the download
            is not a valid artifact.
    """
    path, text = Path(name_or_path), str(name_or_path)
    if path.exists() or not _REPO.fullmatch(text) or path.is_absolute():
        return path
    if not _NAME.fullmatch(revision):
        raise ArtifactError(f"revision {revision!r} should be a branch, a tag or a commit")
    root = cache_home() / "hub" / text.replace("/", "--") / revision.replace("/", "--")
    with cache_lock(f"hub-{text.replace('/', '--')}"):
        return _fetched(text, revision, root)


def data_of(model: Path) -> str:
    """Return the name or directory of a model's data, which may have been downloaded with the model.

    Raises:
        ArtifactError: not a model directory, or its data was not pushed with it.
    """
    name = str(read_settings(model)["data"])
    if name != BESIDE_MODEL:
        return name
    data = model.with_name("data")
    if not data.is_dir():
        raise ArtifactError(f"{model} came without its data; give the prepared data it was trained on: data=...")
    return str(data)


def push_to_hub(
    model: Path,
    repo_id: str,
    *,
    with_data: bool = False,
    base: str | None = None,
    results: Sequence[dict[str, Any]] = (),
    private: bool = False,
    message: str = "Upload llmrec model",
) -> str:
    """Upload a model directory in one commit, with results filled into its card; returns the commit's URL.

    Args:
        model: a local model directory.
        repo_id: `org/name`; created if it does not exist.
        with_data: also upload the prepared data, with titles, user ids and histories.
        base: where others find the base model, such as `org/name`; needed if the model names a local directory.
        results: results from `card.load_results`.
        private: whether a new repository is private.
        message: commit message.

    Raises:
        RequestError: an invalid name, offline mode, data that may not be redistributed, or a base model that others
            cannot find.
        ArtifactError: a damaged directory, or the Hub refuses the upload.
    """
    if not _REPO.fullmatch(repo_id):
        raise RequestError(f"{repo_id!r} should be org/name")
    if forbidden := offline_setting():
        raise RequestError(f"{repo_id}: the Hub may not be asked (offline: {forbidden})")
    with tempfile.TemporaryDirectory(prefix="llmrec-push-") as folder:
        staged = Path(folder) / "model"
        stage_upload(model, staged, with_data, base, results)
        try:
            with wrap_network_errors():
                api = huggingface_hub.HfApi()
                api.create_repo(repo_id, private=private, exist_ok=True)
                done = api.upload_folder(repo_id=repo_id, folder_path=staged, commit_message=message)
        except SourceError as error:
            raise ArtifactError(f"{repo_id}: the Hub did not take it: {error}") from None
    return str(getattr(done, "commit_url", done))


def stage_upload(
    model: Path, out: Path, with_data: bool, base: str | None, results: Sequence[dict[str, Any]] = ()
) -> None:
    """Write the files that `push_to_hub` uploads, without local paths and with the card filled in.

    The arguments are those of `push_to_hub`.
    """
    manifest = read_manifest(model, MODEL_KIND)
    config = read_config(model)
    own, data = str(config["base"]["id"]), data_of(model)
    if base is None and own not in RESOURCES and (Path(own).exists() or not _REPO.fullmatch(own)):
        raise RequestError(f"the base model is {own!r}, which others cannot find: say where it is, base=org/name")
    if with_data and data in DOWNLOADABLE:
        raise RequestError(f"{data} may not be passed on; leave it out: it is fetched where it is needed")
    named = base or own
    config["base"]["id"] = named
    config["settings"]["data"] = data if data in DOWNLOADABLE else BESIDE_MODEL
    meta = dict(manifest.meta)
    if "recipe" in meta:
        meta["recipe"] = {**meta["recipe"], **({"base": named} if "base" in meta["recipe"] else {})}
    with write_artifact(out, MODEL_KIND, manifest.fingerprints, meta) as new:
        for name in manifest.files:
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(model / name, new / name)
        (new / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        card = (model / "README.md").read_text(encoding="utf-8").replace(own, named)
        (new / "README.md").write_text(fill_card(card, results), encoding="utf-8")
    if with_data:
        source = dataset_directory(data)
        read_manifest(source, DATASET_KIND)
        shutil.copytree(source, out / "data")


def _fetched(repo_id: str, revision: str, root: Path) -> Path:
    model, note = root / "model", root / "commit.json"
    if forbidden := offline_setting():
        if model.is_dir():
            return model
        raise ArtifactError(
            f"no model {repo_id!r} on this machine, and the Hub may not be asked (offline: {forbidden}); "
            "unset that once where there is a network"
        )
    try:
        with wrap_network_errors():
            commit = str(huggingface_hub.HfApi().model_info(repo_id, revision=revision, timeout=PATIENCE).sha)
    except SourceError as error:
        if model.is_dir():  # the Hub does not answer; an earlier download is complete and is verified when loaded
            return model
        raise ArtifactError(f"no model {repo_id!r}: neither a directory here nor on the Hub: {error}") from None
    if model.is_dir() and note.is_file() and json.loads(note.read_text()) == {"commit": commit}:
        return model
    try:
        if _download(repo_id, commit, "", MODEL_KIND, model)["settings"]["data"] == BESIDE_MODEL:
            _download_data(repo_id, commit, root / "data")
    except SourceError as error:
        raise ArtifactError(f"{repo_id}: the Hub did not give it: {error}") from None
    write_json_atomic(note, {"commit": commit})
    return model


def _download_data(repo_id: str, commit: str, target: Path) -> None:
    with wrap_network_errors():
        there = huggingface_hub.HfApi().file_exists(repo_id, f"data/{MANIFEST}", revision=commit)
    if there:
        _download(repo_id, commit, "data/", DATASET_KIND, target)


def _download(repo_id: str, commit: str, prefix: str, kind: str, target: Path) -> dict[str, Any]:
    """Download the files of one manifest and put them in place together; returns a model's configuration."""

    def get(name: str) -> Path:
        with wrap_network_errors():
            found = huggingface_hub.hf_hub_download(repo_id, prefix + name, revision=commit, etag_timeout=PATIENCE)
        if not name.endswith(".md"):  # a card may begin with HTML
            refuse_web_pages(Path(found))
        return Path(found)

    with atomic.replace_directory(target) as new:
        shutil.copyfile(get(MANIFEST), new / MANIFEST)
        for name in _names(new / MANIFEST, repo_id):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(get(name), new / name)
        read_manifest(new, kind)
        return read_config(new) if kind == MODEL_KIND else {}


def _names(manifest: Path, repo_id: str) -> list[str]:
    """Return the file names of an untrusted manifest.

    Raises:
        ArtifactError: not a manifest, too many files, or a name that could lead out of the directory.
    """
    try:
        if manifest.stat().st_size > _MANIFEST_LIMIT:
            raise ValueError(f"over {_MANIFEST_LIMIT} bytes")
        names = list(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{repo_id}: {MANIFEST} is not one of llmrec: {failure_reason(error)}") from None
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == MANIFEST or len(names) > _MOST_FILES:
            raise ArtifactError(
                f"{repo_id}: {MANIFEST} names {str(name)[:80]!r} among {len(names)} files; it is not fetched"
            )
    return names
