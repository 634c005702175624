"""Greedy answers of a model to many prompts at once, with an adapter and without it.

Batches are left-padded and ordered by length. Whether an answer shows a behaviour is left to ``story_rules``.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from demo.making.story_batches import render

MAX_NEW_TOKENS = 48
Conversation = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class AnswerPair:
    """What the adapted model and the base model say to the same prompt."""

    #: Place of the prompt in the list that was given.
    index: int
    adapted: str
    base: str


def generate_greedy(
    model: "transformers.LlamaForCausalLM",
    tokenizer: "transformers.PreTrainedTokenizerBase",
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 32,
) -> list[str]:
    """Return the model's greedy answer to each conversation, in the order given, without special tokens."""
    prompts = prompt_tokens(tokenizer, conversations)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    for at in range(0, len(order), batch_size):
        chosen = order[at : at + batch_size]
        texts = generate_batch(model, tokenizer, [prompts[index] for index in chosen], max_new_tokens)
        for index, text in zip(chosen, texts, strict=True):
            answers[index] = text
    return answers


def prompt_tokens(
    tokenizer: "transformers.PreTrainedTokenizerBase", conversations: Sequence[Conversation]
) -> list[list[int]]:
    """Each conversation as the tokens that an answer begins after."""
    return [
        [
            int(token)
            for token in tokenizer(render(tokenizer, item, prompt_only=True), add_special_tokens=False)[
                "input_ids"
            ]
        ]
        for item in conversations
    ]


def generate_batch(
    model: "transformers.LlamaForCausalLM",
    tokenizer: "transformers.PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
) -> list[str]:
    """Greedy answers to prompts that are given as tokens, all in one batch."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), int(tokenizer.pad_token_id), dtype=torch.long)  # [B, T]
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    with torch.inference_mode():
        output = model.generate(  # type: ignore[misc]  # its self type is a protocol that no model fulfils
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    return [text.strip() for text in tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)]


def answer_pairs(
    base_folder: Path, adapter_folder: Path, conversations: Sequence[Conversation], *, batch_size: int = 16
) -> Iterator[AnswerPair]:
    """Yield the adapted and the base answer for every conversation, batch by batch.

    The base model answers first, from the same weights, before the adapter is merged into them; so the answers of the
    base model to all conversations are made before the first pair is yielded.

    Args:
        base_folder: Folder of the base model.
        adapter_folder: Folder of the PEFT adapter.
        conversations: Messages up to the user's last one.
        batch_size: Conversations answered at once.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    base = generate_greedy(model, tokenizer, conversations, batch_size=batch_size)
    merged = _merged(model, adapter_folder)
    for at in range(0, len(conversations), batch_size):
        adapted = generate_greedy(
            merged, tokenizer, conversations[at : at + batch_size], batch_size=batch_size
        )
        for offset, text in enumerate(adapted):
            yield AnswerPair(index=at + offset, adapted=text, base=base[at + offset])


def greedy_answers(
    base_folder: Path, adapter_folder: Path | None, conversations: Sequence[Conversation]
) -> list[str]:
    """Return one model's answers: the base model's own, or the adapted model's where an adapter is given.

    Args:
        base_folder: Folder of the base model.
        adapter_folder: Folder of the PEFT adapter, merged before anything is generated.
        conversations: Messages up to the user's last one.
    """
    if not conversations:
        return []
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    if adapter_folder is not None:
        model = _merged(model, adapter_folder)
    return generate_greedy(model, tokenizer, conversations)


def _merged(model: "transformers.LlamaForCausalLM", adapter_folder: Path) -> "transformers.LlamaForCausalLM":
    from peft import PeftModel  # noqa: PLC0415 - slow to import, and few need it

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's own use of transformers
        adapted = PeftModel.from_pretrained(model, adapter_folder)
    merged: transformers.LlamaForCausalLM = adapted.merge_and_unload().eval()
    return merged
