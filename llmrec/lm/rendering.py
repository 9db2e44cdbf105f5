"""Renders messages to token ids; the only place where text becomes ids.

A message consists of a role and typed parts. Structural tokens (role markers, item tokens, user slots) come only from
the types. The content of a `Text` is encoded by a second encoder, built from the same tokenizer file without its added
tokens. So no string, whether typed by a user or from a catalogue, can become a control token or an item token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from llmrec.errors import RequestError, WeightsError
from llmrec.lm.item_tokens import ItemVocab

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Text:
    """Plain text; if `loss` is true, its tokens are training targets."""

    text: str
    loss: bool = False


@dataclass(frozen=True)
class ItemRef:
    """An item of the catalogue, by row."""

    row: int
    loss: bool = False


@dataclass(frozen=True, eq=False)
class UserRef:
    """A collaborative user vector float32[d], which the user adapter turns into soft prompt tokens."""

    vector: np.ndarray


Part = Text | ItemRef | UserRef


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; an `open` message has no end marker, so the model continues it."""

    role: str
    parts: tuple[Part, ...]
    open: bool = False

    def __post_init__(self) -> None:
        """Check the role."""
        if self.role not in ROLES:
            raise RequestError(f"role '{self.role}' is not one of {', '.join(ROLES)}")


@dataclass(frozen=True, eq=False)
class Rendered:
    """The input of the model.

    Attributes:
        ids: int64[t], word tokens, item tokens and user slots.
        loss: bool[t], which ids are training targets.
        users: float32[r, d], the user vectors in the order of their slots.
    """

    ids: np.ndarray
    loss: np.ndarray
    users: np.ndarray


@dataclass(frozen=True)
class ChatFormat:
    """The chat format of a model family: the token ids that begin a conversation and open and close a turn."""

    begin: tuple[int, ...]
    opening: dict[str, tuple[int, ...]]
    closing: tuple[int, ...]
    stop: int


class Renderer:
    """Renders messages for one tokenizer and one item vocabulary."""

    def __init__(self, tokenizer: Any, vocab: ItemVocab, slots: int, user_dim: int) -> None:
        self.vocab, self.slots, self.user_dim = vocab, slots, user_dim
        self.user_slot = vocab.base + len(vocab)  # one id past every item token
        data = json.loads(tokenizer.backend_tokenizer.to_str())
        self.control = frozenset(int(t["id"]) for t in data["added_tokens"])
        self._decoder = tokenizer
        data["added_tokens"], data["post_processor"] = [], None
        data["truncation"], data["padding"] = None, None
        self._encoder = Tokenizer.from_str(json.dumps(data))
        self.chat = chat_format(tokenizer, self.encode_text)

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of a text, which never include a control token."""
        ids: list[int] = self._encoder.encode(text, add_special_tokens=False).ids
        if not self.control.isdisjoint(ids):  # some vocabularies can spell a control token by merges: drop it
            ids = [i for i in ids if i not in self.control]
        return ids

    def decode_text(self, ids: Sequence[int]) -> str:
        """Return the text of word tokens; control and item tokens are left out."""
        kept = [int(i) for i in ids if int(i) < self.vocab.base and int(i) not in self.control]
        return str(self._decoder.decode(kept, clean_up_tokenization_spaces=False))

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Return the token ids, loss mask and user vectors of a conversation."""
        ids: list[int] = list(self.chat.begin)
        loss = [False] * len(ids)
        users: list[np.ndarray] = []
        for message in messages:
            opening = self.chat.opening[message.role]
            ids += opening
            loss += [False] * len(opening)
            for part in message.parts:
                new = self._part(part, users)
                ids += new
                loss += [not isinstance(part, UserRef) and part.loss] * len(new)
            if not message.open:
                last = message.parts[-1] if message.parts else None
                ids += self.chat.closing
                # the end marker is a target if the text before it is, so that the model learns when to stop
                loss += [isinstance(last, Text) and last.loss] + [False] * (len(self.chat.closing) - 1)
        vectors = np.stack(users) if users else np.zeros((0, self.user_dim), np.float32)
        return Rendered(np.asarray(ids, np.int64), np.asarray(loss, bool), vectors.astype(np.float32))

    def _part(self, part: Part, users: list[np.ndarray]) -> list[int]:
        if isinstance(part, Text):
            return self.encode_text(part.text)
        if isinstance(part, ItemRef):
            if not 0 <= part.row < self.vocab.n_items:
                raise RequestError(f"row {part.row} is not in the catalogue of {self.vocab.n_items} items")
            return [int(t) for t in self.vocab.tokens[part.row]]
        if part.vector.shape != (self.user_dim,):
            raise RequestError(f"user vector of shape {part.vector.shape}; the encoder gives ({self.user_dim},)")
        users.append(part.vector)
        return [self.user_slot] * self.slots


_Family = tuple[str, str, str, str, str, dict[str, str]]
# ChatML, Gemma and Llama 3: begin, opening before the role, opening after it, end marker, text after it, renamed roles
_FAMILIES: tuple[_Family, ...] = (
    ("", "<|im_start|>", "\n", "<|im_end|>", "\n", {}),
    ("<bos>", "<start_of_turn>", "\n", "<end_of_turn>", "\n", {"assistant": "model", "system": "user"}),
    ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", "", {}),
)


def chat_format(tokenizer: Any, encode_text: Any) -> ChatFormat:
    """Return the chat format of the tokenizer's family, which is recognised by its control tokens.

    Raises:
        WeightsError: the tokenizer belongs to none of the families.
    """
    known = tokenizer.get_added_vocab()
    for begin, before, after, end, tail, renamed in _FAMILIES:
        if before not in known or end not in known:
            continue
        head = [known["<|end_header_id|>"]] if after.startswith("<|end_header_id|>") else []
        rest = encode_text(after.removeprefix("<|end_header_id|>"))
        opening = {role: (known[before], *encode_text(renamed.get(role, role)), *head, *rest) for role in ROLES}
        closing = (known[end], *(encode_text(tail) if tail else ()))
        return ChatFormat((known[begin],) if begin in known else (), opening, closing, known[end])
    raise WeightsError(
        f"the tokenizer has none of the chat markers {', '.join(f[1] for f in _FAMILIES)}: "
        "use an instruction-tuned model"
    )
