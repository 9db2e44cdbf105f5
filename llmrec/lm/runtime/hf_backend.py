"""Runs any causal language model of Hugging Face transformers, one sequence at a time.

This is the backend for architectures that `transformer` does not run natively. It is slower, because keys and values
are copied in every pass. Attention masks and positions are passed explicitly, so beams still share one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from llmrec.lm.runtime.kv_cache import Chunk, KVLayout
from llmrec.lm.runtime.onednn import MatmulDtype, prepacked_transformer
from llmrec.lm.runtime.transformer import CancelCheck, Transformer, is_native, kv_layout, native_transformer


def build_transformer(lm: Any, matmul_dtype: MatmulDtype = "float32") -> Transformer:
    """Build the fastest forward pass for a causal language model of Hugging Face transformers.

    For the families that `transformer` knows, that is a native one, on prepacked weights where possible; otherwise it
    is an `HFTransformer`. Building takes about a millisecond, except for the first time after the weights have changed.

    Args:
        lm: the causal language model.
        matmul_dtype: number format of the matrix products; only used where the weights are prepacked.
    """
    return (
        prepacked_transformer(lm, native_transformer(lm), matmul_dtype)
        if is_native(lm)
        else HFTransformer(kv_layout(lm), lm)
    )


@dataclass(frozen=True, eq=False)
class HFTransformer:
    """Any causal language model of Hugging Face transformers that accepts a four-dimensional mask."""

    layout: KVLayout
    lm: Any

    def forward(
        self, x: torch.Tensor, chunks: Sequence[Chunk], last_only: bool = False, check: CancelCheck | None = None
    ) -> torch.Tensor:
        """See `Transformer`; `check` is called before each sequence."""
        out = []
        for chunk, rows in zip(chunks, x.split([len(chunk) for chunk in chunks]), strict=True):
            if check is not None:
                check()
            hidden = self._one(rows, chunk)
            out.append(hidden[-1:] if last_only else hidden)
        return torch.cat(out).float()

    def _one(self, x: torch.Tensor, chunk: Chunk) -> torch.Tensor:
        cache, old = chunk.cache, chunk.cache.length
        dynamic = DynamicCache()
        if old:
            for index, (keys, values) in enumerate(cache.data[:, :, None, :, :old]):
                dynamic.update(keys, values, index)
        out: torch.Tensor = self.lm.base_model(
            inputs_embeds=x[None].to(self.layout.dtype),
            attention_mask=self._masks(chunk),
            position_ids=chunk.positions[None],
            past_key_values=dynamic,
            use_cache=True,
        ).last_hidden_state[0]
        layers: list[Any] = list(dynamic.layers)
        for index, layer in enumerate(layers):
            cache.write(index, layer.keys[0, :, old:].transpose(0, 1), layer.values[0, :, old:].transpose(0, 1))
        cache.advance(chunk.positions)
        return out

    def _masks(self, chunk: Chunk) -> torch.Tensor | dict[str, torch.Tensor]:
        """Return additive masks float[1, 1, n, t]: one for each kind of layer if the model has several, else one."""
        config = self.lm.config.get_text_config()
        window, kinds = getattr(config, "sliding_window", None), set(getattr(config, "layer_types", None) or ())
        if not kinds:
            return self._additive(chunk.visible_keys(window))
        return {k: self._additive(chunk.visible_keys(window if k == "sliding_attention" else None)) for k in kinds}

    def _additive(self, seen: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(seen.shape, dtype=self.layout.dtype, device=seen.device)
        return zeros.masked_fill_(~seen, torch.finfo(self.layout.dtype).min)[None, None]
