"""Finds and loads base language models: a resource by name, a local directory, a GGUF file, or a Hub id.

A GGUF file is dequantised once and cached as a plain float32 directory, which loads in a second instead of half a
minute. Only safetensors files are loaded, and code that comes with a model is never executed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrec.errors import ArtifactError, WeightsError
from llmrec.storage.artifacts import fingerprint_bytes, read_manifest, sha256_file, write_artifact
from llmrec.storage.download import fetch, hide_progress_bars, spinner
from llmrec.storage.network import PATIENCE, SourceError, check_reachable, refuse_web_pages, wrap_network_errors
from llmrec.storage.registry import RESOURCES, Resource, cache_home, cache_lock, offline_setting

DEFAULT = "smollm2-135m-instruct"
_KIND = "base"
_HUB_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "tokenizer*",
    "*.jinja",
    "merges.txt",
    "vocab.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True)
class BaseModelFiles:
    """The files of a base model on disk.

    Attributes:
        id: the name or path by which it was requested.
        dir: a plain Hugging Face directory.
        sha256: hash of the original weights (the GGUF file, or all safetensors files together).
    """

    id: str
    dir: Path
    sha256: str


def base_model(name_or_path: str, progress: bool = True) -> BaseModelFiles:
    """Find a base model; download and convert it if necessary.

    Raises:
        WeightsError: no model of that name, weights that are neither safetensors nor GGUF, or a failed download.
    """
    if name_or_path in RESOURCES:
        return _resource(RESOURCES[name_or_path], progress)
    path = Path(name_or_path).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        digest = sha256_file(path)
        return _converted(name_or_path, f"{path.stem}-{digest[:12]}", path, digest, progress)
    if path.is_dir():
        return _directory(name_or_path, path)
    if name_or_path.count("/") == 1 and not path.is_absolute() and not name_or_path.startswith("."):
        return _directory(name_or_path, _from_hub(name_or_path, progress))
    known = ", ".join(sorted(name for name, one in RESOURCES.items() if _gguf(one)))
    raise WeightsError(f"no base model {name_or_path!r}; give {known}, a directory, a .gguf file or a Hub id org/name")


def load_base(files: BaseModelFiles, **how: Any) -> tuple[Any, Any]:
    """Load (causal language model in eval mode, tokenizer) without network access and without remote code.

    `how` is passed to the loader of transformers; the default dtype is float32. The model's own generation config is
    replaced, because its sampling defaults break constrained beam search.

    Raises:
        WeightsError: the directory does not load.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with hide_progress_bars():
            model: Any = AutoModelForCausalLM.from_pretrained(
                files.dir, use_safetensors=True, **{"dtype": torch.float32, **how}, **options
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(files.dir, **options)
    except Exception as error:  # a damaged file may raise anything
        raise WeightsError(f"base model {files.id} at {files.dir} does not load: {error}") from error
    kept = {name: getattr(model.config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**kept)  # type: ignore[no-untyped-call]
    return model.eval(), tokenizer


def _gguf(resource: Resource) -> str | None:
    return next((name for name in resource.files if name.endswith(".gguf")), None)


def _resource(resource: Resource, progress: bool) -> BaseModelFiles:
    name = _gguf(resource)
    if name is None:
        raise WeightsError(f"{resource.name!r} is not a language model; use {DEFAULT!r}")
    digest = resource.files[name]
    cached = _cached(resource.name, digest)
    if cached is not None:  # the GGUF file itself is no longer needed
        return BaseModelFiles(resource.name, cached, digest)
    return _converted(resource.name, resource.name, fetch(resource.name, progress) / name, digest, progress)


def _cached(folder: str, digest: str) -> Path | None:
    """Return the converted directory if it is complete and was made from these weights, else None."""
    path = cache_home() / "base" / folder
    try:
        manifest = read_manifest(path, _KIND)
    except ArtifactError:
        return None
    return path if manifest.fingerprints.get("source") == digest else None


def _converted(id: str, folder: str, gguf: Path, digest: str, progress: bool) -> BaseModelFiles:
    with cache_lock(f"base-{folder}"):
        cached = _cached(folder, digest)
        if cached is None:
            cached = cache_home() / "base" / folder
            if cached.exists():
                (cached / "manifest.json").touch()  # damaged, but made by llmrec: marks it as replaceable
            with (
                spinner(f"{id}: converting to float32, once", progress),
                hide_progress_bars(),
                write_artifact(cached, _KIND, {"source": digest}, own_place=True) as new,
            ):
                _convert(gguf, new)
    return BaseModelFiles(id, cached, digest)


def _convert(gguf: Path, directory: Path) -> None:
    """Dequantise a GGUF file into a plain model directory.

    The weights are copied to a new model, because transformers marks the loaded one as quantised and refuses to save
    it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
        tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, **options)
    except Exception as error:  # a damaged file can make the parsers raise anything
        raise WeightsError(f"{gguf} cannot be read as a language model: {error}") from error
    settings = {k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"}
    plain = type(loaded)(type(loaded.config).from_dict(settings)).to(torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.tie_weights()
    plain.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _directory(id: str, path: Path) -> BaseModelFiles:
    if not (path / "config.json").is_file():
        raise WeightsError(f"{path} holds no config.json; give a Hugging Face model directory or a .gguf file")
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise WeightsError(
            f"{path} holds no .safetensors file; other formats can run code when loaded: convert it first"
        )
    digests = [sha256_file(one) for one in weights]
    whole = digests[0] if len(digests) == 1 else fingerprint_bytes(*(d.encode() for d in digests))
    return BaseModelFiles(id, path, whole)


def _from_hub(id: str, progress: bool) -> Path:
    import huggingface_hub

    forbidden = offline_setting()
    try:
        with spinner(f"{id}: from the Hub", progress), wrap_network_errors():
            if not forbidden:
                check_reachable(huggingface_hub.hf_hub_url(id, "config.json"))
            found = huggingface_hub.snapshot_download(
                id, allow_patterns=list(_HUB_FILES), local_files_only=bool(forbidden), etag_timeout=PATIENCE
            )
            refuse_web_pages(*filter(Path.is_file, Path(found).rglob("*")))
    except SourceError as error:
        if forbidden:
            raise WeightsError(
                f"base model {id!r} is not on this machine, and {forbidden} forbids to ask the Hub; "
                "unset it once where there is a network, or give a directory"
            ) from None
        raise WeightsError(f"base model {id!r}: the Hub did not give it: {error}") from None
    return Path(os.fspath(found))
