"""The model that is trained, saved and served: language model, LoRA, item tokens, user adapter, sequential encoder.

The language model is used as published: its word embeddings, tied LM head and tokenizer do not change. Item tokens have
a tied table of their own (`items`): its rows are the input embeddings of item tokens, and the logits of a level are the
hidden state times that level's rows. Within a path only codes of the next level can follow, so item logits cost 64
columns instead of 49 thousand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from llmrec.encoders.sequential import SequenceEncoder
from llmrec.errors import WeightsError
from llmrec.lm.item_tokens import ItemVocab
from llmrec.lm.rendering import Renderer
from llmrec.lm.runtime.onednn import MatmulDtype
from llmrec.lm.user_adapter import UserAdapter
from llmrec.semantic_ids.residual_kmeans import SemanticIds

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of what is added to the base model."""

    lora_rank: int = 16
    lora_alpha: int = 32
    user_slots: int = 1
    adapter_width: int = 256

    def lora(self) -> LoraConfig:
        """The peft configuration: every linear layer of the transformer."""
        return LoraConfig(r=self.lora_rank, lora_alpha=self.lora_alpha, target_modules=list(LORA_TARGETS), bias="none")


class RecModel(nn.Module):
    """A language model over words, item tokens and user vectors in one sequence.

    Args:
        lm: a causal language model of transformers; LoRA is injected into it here.
        tokenizer: its tokenizer.
        ids: semantic IDs of the catalogue.
        encoder: the trained sequential encoder.
        config: sizes.

    Attributes:
        matmul_dtype: number format of matrix products for decoding and scoring items; may be changed at any time.
    """

    matmul_dtype: MatmulDtype = "float32"

    def __init__(
        self, lm: nn.Module, tokenizer: Any, ids: SemanticIds, encoder: SequenceEncoder, config: ModelConfig
    ) -> None:
        super().__init__()
        self.config, self.tokenizer, self.encoder = config, tokenizer, encoder
        lm.requires_grad_(False)
        self.check_layers(lm)
        self.lm: Any = cast(Any, inject_adapter_in_model(config.lora(), lm))
        for name, parameter in self.lm.named_parameters():
            if "lora_" in name:  # always float32, whatever the base's dtype: bfloat16 would lose small steps
                parameter.data = parameter.data.float()
        self.word_embedding: Any = self.lm.get_input_embeddings()
        hidden = self.word_embedding.weight.shape[1]
        self.vocab = ItemVocab(self.word_embedding.weight.shape[0], ids)
        self.items = nn.Embedding(len(self.vocab), hidden)
        self.item_scale = nn.Parameter(torch.ones(ids.depth))
        self.adapter = UserAdapter(encoder.config.dim, hidden, config.user_slots, config.adapter_width)
        self.renderer = Renderer(tokenizer, self.vocab, config.user_slots, encoder.config.dim)
        self.eval()

    @staticmethod
    def check_layers(lm: nn.Module) -> None:
        """Refuse a language model that lacks linear layers to which LoRA is added.

        Raises:
            WeightsError: a layer is missing.
        """
        found = {name.rsplit(".", 1)[-1] for name, _ in lm.named_modules()}
        missing = [name for name in LORA_TARGETS if name not in found]
        if missing:
            raise WeightsError(
                f"{type(lm).__name__} has no layers {', '.join(missing)}: supported are models of the Llama, Qwen3 and "
                "Gemma3 kind"
            )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.items.weight.device

    def init_embeddings(self, user_map: np.ndarray, seed: int) -> None:
        """Initialise item embeddings and the adapter's linear part from the codebook by one shared random projection.

        Similar centroids get similar embeddings. Their scale is that of the word embeddings; another scale would cost
        hundreds of steps. User vectors are projected by the same columns as item vectors, so a soft token starts near
        the codes that the encoder ranks first. `user_map` float[d, c] maps a user vector to the last c dimensions of
        the joint vectors (`numerics.whitening` of the item vectors).
        """
        codebook = self.vocab.ids.codebook
        depth, size, dims = codebook.shape
        hidden = self.items.weight.shape[1]
        rng = np.random.default_rng(seed)
        projection = rng.normal(0, 1, (dims, hidden)) / np.sqrt(dims)
        centred = codebook - codebook.mean(axis=1, keepdims=True)
        rows = centred.reshape(depth * size, dims) @ projection
        std = float(self.word_embedding.weight.detach().float().std())
        level = rows.reshape(depth, -1).std(axis=1).repeat(size)[:, None]
        offset = rng.normal(0, 0.5 * std, (depth, 1, hidden)).repeat(size, axis=1).reshape(rows.shape)
        values = rows / np.maximum(level, 1e-8) * std + offset  # the offset distinguishes the levels
        norm = next(p for n, p in self.lm.base_model.named_parameters() if n == "norm.weight")
        rms = float(norm.detach().float().pow(2).mean().sqrt())
        with torch.no_grad():
            self.items.weight.copy_(torch.from_numpy(values.astype(np.float32)))
            # logits of unit variance: unscaled, the loss starts at 17 nats per item; uniform guessing has 7.4
            self.item_scale.fill_(1.0 / (rms * std * hidden**0.5))
        columns = user_map @ projection[-user_map.shape[1] :]
        spread = np.sqrt((columns**2).sum(axis=0).mean())  # the adapter's norm gives each dimension unit variance
        self.adapter.init_from(columns / max(spread, 1e-8) * std)

    def embed(self, ids: torch.Tensor, users: torch.Tensor) -> torch.Tensor:
        """Return input embeddings float[b, t, hidden] of ids int[b, t]; `users` float[r, d] fill the slots in order."""
        base, slot = self.vocab.base, self.renderer.user_slot
        x = self.word_embedding(ids.clamp(max=base - 1)).float()
        is_item = (ids >= base) & (ids < slot)
        x = torch.where(is_item[..., None], self.items((ids - base).clamp(0, len(self.vocab) - 1)), x)
        is_slot = ids == slot
        if len(users):
            soft = self.adapter(users).reshape(-1, x.shape[-1]).to(x.dtype)
            x = x.masked_scatter(is_slot[..., None], soft)
        return x

    def hidden(self, embeds: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Return the last hidden states float[b, t, hidden], after the final norm; kwargs go to the transformer."""
        out: torch.Tensor = self.lm.base_model(inputs_embeds=embeds, **kwargs).last_hidden_state
        return out

    def level_logits(self, hidden: torch.Tensor, level: int) -> torch.Tensor:
        """float[..., hidden] -> float[..., size]: logits of the codes of one level."""
        size = self.vocab.ids.size
        return (hidden @ self.items.weight[level * size : (level + 1) * size].T) * self.item_scale[level]

    def word_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float[..., hidden] -> float[..., words]: logits of the base model's LM head, without item tokens."""
        out: torch.Tensor = self.lm.get_output_embeddings()(hidden)
        return out

    @property
    def word_table(self) -> torch.Tensor:
        """float[words, hidden]: the frozen output embeddings."""
        out: torch.Tensor = self.lm.get_output_embeddings().weight
        return out

    def lora_layers(self) -> Iterator[LoraLayer]:
        """The layers with LoRA."""
        for module in self.lm.modules():
            if isinstance(module, LoraLayer):
                yield module

    def merge(self) -> None:
        """Merge LoRA into the weights for inference: the same function with a quarter fewer operations per token."""
        for layer in self.lora_layers():
            if not layer.merged:
                layer.merge()

    @contextmanager
    def base_only(self) -> Iterator[None]:
        """Disable LoRA inside the context, for comparison with the base model and for the KL term of training.

        Raises:
            RuntimeError: LoRA is merged into the weights.
        """
        layers = list(self.lora_layers())
        if any(layer.merged for layer in layers):
            raise RuntimeError("the adapter is merged into the weights; load the model again without merging")
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Named trainable parameters: LoRA, item tokens, user adapter."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def added(self) -> dict[str, nn.Parameter]:
        """Named parameters that were added to the base model, trainable or frozen."""
        return {name: p for name, p in self.named_parameters() if _added(name)}

    def added_state(self) -> dict[str, torch.Tensor]:
        """Values of all added parameters, by name."""
        return {name: p.detach() for name, p in self.added().items()}

    def load_added(self, state: dict[str, torch.Tensor]) -> None:
        """Load what `added_state` returns; raises WeightsError unless names and shapes match exactly."""
        own = self.added()
        if set(own) != set(state):
            odd = sorted(set(own) ^ set(state))[:3]
            raise WeightsError(f"the saved weights do not fit this model: {', '.join(odd)}")
        with torch.no_grad():
            for name, p in own.items():
                if p.shape != state[name].shape:
                    raise WeightsError(f"{name}: saved {tuple(state[name].shape)}, this model has {tuple(p.shape)}")
                p.copy_(state[name].float())


def _added(name: str) -> bool:
    return "lora_" in name or name.startswith(("items.", "item_scale", "adapter."))


def model_config_dict(config: ModelConfig) -> dict[str, int]:
    """Convert to plain values for a manifest."""
    return asdict(config)
