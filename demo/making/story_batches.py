"""Rows as tokens, batches packed by like length, and the loss on completion tokens only.

Serves both training scripts. Choosing what to train and writing weights is left to them.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor

IGNORED = -100


class RenderingError(ValueError):
    """The chat template's rendering of the prompt is no prefix of its rendering of the row."""


@dataclass(frozen=True)
class EncodedRow:
    """One row as token ids; ``num_prompt`` of them are the prompt, the rest completion and end-of-turn token."""

    ids: tuple[int, ...]
    num_prompt: int


@dataclass(frozen=True)
class Batch:
    """Right-padded rows: token ids, attention mask and labels, each int64 of shape ``[B, T]``."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


def render(
    tokenizer: "transformers.PreTrainedTokenizerBase",
    messages: Sequence[Mapping[str, str]],
    *,
    prompt_only: bool,
) -> str:
    """Return the chat template's text of the messages, with the generation prompt if there is no answer yet."""
    text = tokenizer.apply_chat_template(
        [dict(message) for message in messages], tokenize=False, add_generation_prompt=prompt_only
    )
    if not isinstance(text, str):
        raise RenderingError("the chat template gave no text")
    return text


def encode_row(
    tokenizer: "transformers.PreTrainedTokenizerBase", messages: Sequence[Mapping[str, str]]
) -> EncodedRow:
    """Return a row's token ids, cut after the end-of-turn token.

    Raises:
        RenderingError: the prompt's rendering is no prefix of the row's, or the row has no end-of-turn token.
    """
    whole = _ids(tokenizer, render(tokenizer, messages, prompt_only=False))
    prompt = _ids(tokenizer, render(tokenizer, messages[:-1], prompt_only=True))
    if whole[: len(prompt)] != prompt:
        raise RenderingError("the prompt's rendering is no prefix of the row's rendering")
    end = tokenizer.eos_token_id
    if end not in whole[len(prompt) :]:
        raise RenderingError("the row's rendering has no end-of-turn token")
    cut = whole.index(end, len(prompt)) + 1
    return EncodedRow(ids=tuple(whole[:cut]), num_prompt=len(prompt))


def _ids(tokenizer: "transformers.PreTrainedTokenizerBase", text: str) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def pack_batches(rows: Sequence[EncodedRow], batch_size: int, rng: random.Random) -> list[list[EncodedRow]]:
    """Return the rows in batches of like length, in random order."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index].ids) // 3, rng.random()))
    batches = [
        [rows[index] for index in order[at : at + batch_size]] for at in range(0, len(order), batch_size)
    ]
    rng.shuffle(batches)
    return batches


def padded(rows: Sequence[EncodedRow], *, pad_id: int) -> Batch:
    """Return rows as one right-padded batch; labels are ``IGNORED`` but for completion and end-of-turn tokens."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)  # [B, T]
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, IGNORED)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids[number, :length] = torch.tensor(row.ids)
        mask[number, :length] = 1
        labels[number, row.num_prompt : length] = ids[number, row.num_prompt : length]
    return Batch(ids=ids, mask=mask, labels=labels)


def num_shared_tokens(rows: Sequence[EncodedRow]) -> int:
    """Return how many tokens all rows begin with, at most the shortest prompt less one."""
    num_shared = min(row.num_prompt for row in rows) - 1
    first = rows[0].ids
    for row in rows:
        while row.ids[:num_shared] != first[:num_shared]:
            num_shared -= 1
    return num_shared


def completion_loss(model: torch.nn.Module, batch: Batch, *, num_shared: int = 0) -> Tensor:
    """Return the mean loss of the batch's completion tokens, in nats.

    The unembedding runs at those positions only: it is a fifth of a small model's work. What all rows begin with (the
    system message) runs once for the batch, with gradients: a third of the demo's tokens. Neither changes the loss.

    Args:
        model: A causal language model of transformers, perhaps inside a PEFT model.
        batch: Rows of like length.
        num_shared: Tokens that all rows begin with, all of them prompt; 0: every row runs whole.
    """
    causal = _causal_model(model)
    body: torch.nn.Module = causal.base_model
    cache = None
    if num_shared:
        cache = body(input_ids=batch.ids[:1, :num_shared], use_cache=True).past_key_values
        cache.batch_repeat_interleave(batch.ids.shape[0])
    hidden = body(
        input_ids=batch.ids[:, num_shared:], attention_mask=batch.mask, past_key_values=cache
    ).last_hidden_state  # [B, T - shared, D]
    targets = batch.labels[:, num_shared + 1 :]  # [B, T - shared - 1]
    chosen = targets != IGNORED
    unembedding = causal.get_output_embeddings()
    if not isinstance(unembedding, torch.nn.Module):
        raise TypeError(f"{type(causal).__name__} has no unembedding")
    logits = unembedding(hidden[:, :-1][chosen])  # [completion tokens, V]
    return torch.nn.functional.cross_entropy(logits, targets[chosen])


def _causal_model(model: torch.nn.Module) -> "transformers.PreTrainedModel":
    unwrap = getattr(model, "get_base_model", None)
    inner = unwrap() if callable(unwrap) else model
    if not isinstance(inner, transformers.PreTrainedModel):
        raise TypeError(f"no language model of transformers: {type(inner).__name__}")
    return inner
