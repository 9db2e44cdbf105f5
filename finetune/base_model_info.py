"""Looks up the configuration and tokenizer of a base model without its weights, even if it is not on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen3Config

from llmrec.errors import WeightsError
from llmrec.lm.base_models import DEFAULT, BaseModelFiles, base_model
from llmrec.lm.model import RecModel
from llmrec.storage.download import hide_progress_bars
from llmrec.storage.network import check_reachable
from llmrec.storage.registry import offline_setting

_SMOL: dict[str, Any] = {
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
_QWEN: dict[str, Any] = {
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


def _llama(hidden: int, layers: int, heads: int, key_heads: int, intermediate: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=intermediate,
        **_SMOL,
    )


# published sizes (Allal et al., 2025, SmolLM2; Yang et al., 2025, Qwen3), for plans without the files
KNOWN: dict[str, Any] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": _llama(576, 30, 9, 3, 1536),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _llama(960, 32, 15, 5, 2560),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _llama(2048, 24, 32, 32, 8192),
    "Qwen/Qwen3-0.6B": Qwen3Config(hidden_size=1024, intermediate_size=3072, **_QWEN),
    "Qwen/Qwen3-1.7B": Qwen3Config(hidden_size=2048, intermediate_size=6144, **_QWEN),
    "Qwen/Qwen3-4B": Qwen3Config(
        hidden_size=2560, intermediate_size=9728, **{**_QWEN, "num_hidden_layers": 36, "num_attention_heads": 32}
    ),
}


@dataclass(frozen=True, eq=False)
class BaseModelInfo:
    """The parts of a base model that a plan needs.

    Attributes:
        id: the name that the caller gave.
        config: the transformers configuration.
        tokenizer: the model's own tokenizer, or the default base model's if `stand_in` says so.
        files: the files on this machine; None if they must be fetched first.
        stand_in: describes what was substituted for the model's own files; "" if nothing was.
    """

    id: str
    config: Any
    tokenizer: Any
    files: BaseModelFiles | None
    stand_in: str = ""


def find_base_model(name: str) -> BaseModelInfo:
    """Find a base model without fetching weights from the Hub; only the default model is fetched if it is missing.

    For a Hub id that is not on this machine, the small files are fetched. If that fails and the model is in `KNOWN`, it
    is described by its published sizes and the default base model's tokenizer.

    Raises:
        WeightsError: there is no model of that name, or a Hub id is not on this machine, cannot be fetched and is not
            in `KNOWN`.
    """
    if not _is_hub_id(name):
        files = base_model(name)
        return BaseModelInfo(name, *_small_files(files.dir, name), files)
    cached = _cached(name)
    if cached is not None:
        return BaseModelInfo(name, *_small_files(cached, name), BaseModelFiles(name, cached, ""))
    try:
        if not offline_setting():
            _ask(name)
            return BaseModelInfo(name, *_small_files(name, name), None)
    except WeightsError:
        pass  # no network, or not there: the table below may still know it
    if name not in KNOWN:
        raise WeightsError(
            f"base model {name!r} is not on this machine and cannot be had; described without files are: "
            + ", ".join(KNOWN)
        )
    _, tokenizer = _small_files(base_model(DEFAULT).dir, DEFAULT)
    return BaseModelInfo(
        name, KNOWN[name], tokenizer, None, f"published sizes, and text cut by the tokenizer of {DEFAULT}"
    )


def fetch_base_model(name: str) -> BaseModelFiles:
    """Fetch a base model for a training run, as `base_models.base_model` does, with advice in the error message.

    Raises:
        WeightsError: the model is not on this machine and cannot be fetched; the message says what was tried and what
            to do.
    """
    try:
        return base_model(name)
    except WeightsError as error:
        if not _is_hub_id(name):
            raise
        said = re.sub(r"<urlopen error |\[Errno -?\d+\] |>", "", str(error))  # noise for the reader of the message
        raise WeightsError(
            f"{said}. Tried were the cache of this machine and {_endpoint()}. Try again with a network, set "
            "HF_ENDPOINT to a mirror or log in with `hf auth login` where the model asks for that; or copy the model's "
            f"directory here and write its path as `base` in the recipe, or take base: {DEFAULT}, which is in a package"
        ) from None


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def check_architecture(config: Any) -> None:
    """Refuse an architecture that lacks the linear layers that LoRA is applied to; no weights are allocated.

    Raises:
        WeightsError: the architecture lacks some of these layers, which the message names, or is not a causal language
            model.
    """
    with torch.device("meta"):
        try:
            skeleton: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
        except ValueError:
            kind = getattr(config, "model_type", type(config).__name__)
            raise WeightsError(
                f"{kind!r} is not a causal language model; use one of the Llama, Qwen3 or Gemma3 kind"
            ) from None
    RecModel.check_layers(skeleton)


def _ask(name: str) -> None:
    import huggingface_hub

    check_reachable(huggingface_hub.hf_hub_url(name, "config.json"))


def _small_files(where: Path | str, name: str) -> tuple[Any, Any]:
    """Load the configuration and the tokenizer from a directory or for a Hub id."""
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": isinstance(where, Path)}
    try:
        with hide_progress_bars():
            return AutoConfig.from_pretrained(where, **options), AutoTokenizer.from_pretrained(where, **options)
    except Exception as error:  # a damaged file can raise any exception of the parsers
        raise WeightsError(f"base model {name} does not load: {' '.join(str(error).split())[:200]}") from error


def _cached(name: str) -> Path | None:
    """Return the cache directory of a Hub model whose weights were fetched earlier, or None."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    weights = [try_to_load_from_cache(name, f"model.safetensors{tail}") for tail in ("", ".index.json")]
    if not isinstance(config, str) or not any(isinstance(one, str) for one in weights):
        return None
    return Path(config).parent
