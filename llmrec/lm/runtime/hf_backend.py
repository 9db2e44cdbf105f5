"""Architectures that `body` does not know, run by transformers' own code, one sequence at a time.

Slower (keys and values are copied at every pass), but whatever transformers can run is right here too: masks and
positions are given, so beams still share one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from llmrec.lm.runtime.kv_cache import Layout, Part
from llmrec.lm.runtime.onednn import Products, packed_body
from llmrec.lm.runtime.transformer import Body, Check, is_lean, layout_of, lean_body


def body_of(lm: Any, products: Products = "float32") -> Body:
    """How to run a causal language model of transformers: lean where its family is known, on packed weights if it can.

    `products` is the number format of the matrix products where the weights are packed.

    A matter of a millisecond, but for the first time after the weights changed.
    """
    return packed_body(lm, lean_body(lm), products) if is_lean(lm) else GenericBody(layout_of(lm), lm)


@dataclass(frozen=True, eq=False)
class GenericBody:
    """Any causal language model of transformers that takes a four-dimensional mask."""

    layout: Layout
    lm: Any

    def forward(
        self, x: torch.Tensor, parts: Sequence[Part], last_only: bool = False, check: Check | None = None
    ) -> torch.Tensor:
        """See `Body`; `check` is called before each sequence."""
        out = []
        for part, rows in zip(parts, x.split([len(part) for part in parts]), strict=True):
            if check is not None:
                check()
            hidden = self._one(rows, part)
            out.append(hidden[-1:] if last_only else hidden)
        return torch.cat(out).float()

    def _one(self, x: torch.Tensor, part: Part) -> torch.Tensor:
        memory, old = part.memory, part.memory.length
        cache = DynamicCache()
        if old:
            for index, (keys, values) in enumerate(memory.data[:, :, None, :, :old]):
                cache.update(keys, values, index)
        out: torch.Tensor = self.lm.base_model(
            inputs_embeds=x[None].to(self.layout.dtype),
            attention_mask=self._masks(part),
            position_ids=part.positions[None],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[0]
        layers: list[Any] = list(cache.layers)
        for index, layer in enumerate(layers):
            memory.write(index, layer.keys[0, :, old:].transpose(0, 1), layer.values[0, :, old:].transpose(0, 1))
        memory.advance(part.positions)
        return out

    def _masks(self, part: Part) -> torch.Tensor | dict[str, torch.Tensor]:
        """Additive masks float[1, 1, n, t]: one for each kind of layer where a model has several, else one."""
        config = self.lm.config.get_text_config()
        window, kinds = getattr(config, "sliding_window", None), set(getattr(config, "layer_types", None) or ())
        if not kinds:
            return self._additive(part.seen(window))
        return {k: self._additive(part.seen(window if k == "sliding_attention" else None)) for k in kinds}

    def _additive(self, seen: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(seen.shape, dtype=self.layout.dtype, device=seen.device)
        return zeros.masked_fill_(~seen, torch.finfo(self.layout.dtype).min)[None, None]
