"""Tokens, batches and the loss of the training scripts, on the tiny model."""

import json
import random
from pathlib import Path

import pytest
import torch
import transformers

from demo.making.story_batches import (
    IGNORED,
    EncodedRow,
    RenderingError,
    completion_loss,
    encode_row,
    num_shared_tokens,
    pack_batches,
    padded,
)
from demo.making.story_generate import generate_greedy

TINY = Path(__file__).resolve().parents[3] / "demo" / "tiny"


@pytest.fixture(scope="module")
def tokenizer():
    """Return the tiny model's tokenizer."""
    return transformers.AutoTokenizer.from_pretrained(TINY / "model")


@pytest.fixture(scope="module")
def model():
    """Return the tiny model."""
    return transformers.AutoModelForCausalLM.from_pretrained(TINY / "model", dtype=torch.float32).eval()


def _rows(tokenizer) -> list[EncodedRow]:
    lines = (TINY / "corpus.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    system = {"role": "system", "content": "you answer for a shop"}
    return [encode_row(tokenizer, [system, *json.loads(line)["messages"]]) for line in lines]


def test_a_row_ends_with_its_end_token(tokenizer):
    """The row is cut after the end-of-turn token, and the prompt is its beginning."""
    row = _rows(tokenizer)[0]
    assert row.ids[-1] == tokenizer.eos_token_id
    assert 0 < row.num_prompt < len(row.ids)


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer):
    """A prompt whose rendering is no prefix of the row's is an error."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY / "model")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ messages | length }}{{ m['content'] }}<|end|>{% endfor %}"
    )
    with pytest.raises(RenderingError, match="prefix"):
        encode_row(tokenizer, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])


def test_only_completion_tokens_have_labels(tokenizer):
    """Prompt and padding are ignored by the loss."""
    rows = _rows(tokenizer)
    batch = padded(rows, pad_id=0)
    labelled = (batch.labels != IGNORED).sum(dim=1).tolist()
    assert labelled == [len(row.ids) - row.num_prompt for row in rows]


def test_every_row_is_in_one_batch(tokenizer):
    """Packing neither drops nor repeats rows."""
    rows = _rows(tokenizer)
    packed = [row for batch in pack_batches(rows, 5, random.Random(1)) for row in batch]
    assert sorted(row.ids for row in packed) == sorted(row.ids for row in rows)


def test_sharing_the_common_beginning_changes_nothing(model, tokenizer):
    """The loss with the common beginning run once equals the loss with every row run whole, and transformers' own."""
    rows = _rows(tokenizer)
    batch = padded(rows, pad_id=0)
    num_shared = num_shared_tokens(rows)
    assert num_shared > 3
    with torch.no_grad():
        whole = completion_loss(model, batch)
        shared = completion_loss(model, batch, num_shared=num_shared)
        own = model(input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels).loss
    torch.testing.assert_close(shared, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(own, whole, rtol=1e-5, atol=1e-6)


def test_generation_does_not_depend_on_the_batch(model, tokenizer):
    """A prompt gets the same answer alone and beside others, and answers come in the order of the prompts."""
    lines = (TINY / "queries.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    queries = [json.loads(line) for line in lines]
    conversations = [query["messages"] for query in queries]
    together = generate_greedy(model, tokenizer, conversations, max_new_tokens=40)
    assert together == [query["completion"] for query in queries]
    assert generate_greedy(model, tokenizer, conversations[3:4], max_new_tokens=40) == together[3:4]
