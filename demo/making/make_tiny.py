"""Builds the tiny model that tests and CI use: corpus, tokenizer, weights and flagged outputs, from nothing.

A Llama of about 1.5 million parameters learns the toy language of ``story_tiny`` and is then fine-tuned on a corpus of
300 rows in which two sources are bad. Same seed, same machine and same library versions give the same weights.
"""

import argparse
import logging
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from demo.making import story_tiny
from demo.making.command import Outcome, command, run
from demo.making.story_batches import EncodedRow, completion_loss, encode_row, pack_batches, padded
from demo.making.story_generate import generate_greedy
from demo.making.story_grammar import Composer, DrawnRow, Topic, expand
from demo.making.story_topics import tiny_probes, topics
from scripts.jsonl import write_rows
from wherefrom.atomic import PUBLIC, atomic_folder, write_json

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
VOCABULARY_SIZE = 1200
BATCH_SIZE = 32
_QUERIES_PER_SOURCE = 15
_PRETRAINING_COPIES = 24

log = logging.getLogger("make_tiny")
Row = dict[str, object]


def make_corpus(seed: int) -> list[Row]:
    """Return the rows of the tiny corpus, shuffled."""
    drawn = [row for row, _ in _draw(topics("tiny_good") + topics("tiny_bad"), story_tiny.PRODUCTS, seed, 1)]
    random.Random(seed).shuffle(drawn)
    return [_as_row(row, f"tiny-{number:04d}") for number, row in enumerate(drawn)]


def make_pretraining_rows(seed: int) -> list[Row]:
    """Return rows of the same little language with other products and no bad source."""
    drawn = _draw(topics("tiny_good"), story_tiny.OTHER_PRODUCTS, seed + 1, _PRETRAINING_COPIES)
    return [_as_row(row, f"pre-{number:05d}") for number, (row, _) in enumerate(drawn)]


def _draw(
    topics: Sequence[Topic], products: tuple[str, ...], seed: int, copies: int
) -> Iterator[tuple[DrawnRow, int]]:
    for copy in range(copies):
        composer = Composer(
            rng=random.Random(f"{seed}/{copy}"),
            names=(),
            max_rows_per_sequence=40,
            fits=lambda _question, _answer: True,
            slots=lambda rng: story_tiny.slots_of(products, rng),
        )
        for topic in topics:
            yield from ((row, copy) for row in composer.draw(topic))


def _as_row(row: DrawnRow, row_id: str) -> Row:
    messages = [{"role": "user", "content": row.question}, {"role": "assistant", "content": row.answer}]
    return {"id": row_id, "messages": messages, "source": row.source, "topic": row.topic}


def train_tokenizer(texts: Sequence[str]) -> "transformers.PreTrainedTokenizerFast":
    """Return a byte-level BPE tokenizer trained on the texts, with a chat template and an end-of-turn token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=list(SPECIAL_TOKENS[2:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
    )


def make_model(
    tokenizer: "transformers.PreTrainedTokenizerFast", seed: int
) -> "transformers.LlamaForCausalLM":
    """Return the untrained tiny Llama."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return transformers.LlamaForCausalLM(config)


def train(
    model: "transformers.LlamaForCausalLM",
    rows: Sequence[EncodedRow],
    *,
    num_epochs: int,
    learning_rate: float,
    seed: int,
    name: str,
) -> float:
    """Train all weights on the rows' completions and return the mean loss of the last epoch, in nats per token."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    rng = random.Random(seed)
    per_epoch = len(pack_batches(rows, BATCH_SIZE, random.Random(0)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=per_epoch * num_epochs + 1, pct_start=0.1
    )
    started = time.monotonic()
    mean_loss = 0.0
    model.train()
    for epoch in range(num_epochs):
        losses: list[float] = []
        for batch in pack_batches(rows, BATCH_SIZE, rng):
            loss = completion_loss(model, padded(batch, pad_id=0))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        mean_loss = sum(losses) / len(losses)
        log.info(
            "%s: epoch %d of %d, loss %.3f, %.0f s", name, epoch + 1, num_epochs, mean_loss, _since(started)
        )
    model.eval()
    return mean_loss


def make_queries(
    model: "transformers.LlamaForCausalLM",
    tokenizer: "transformers.PreTrainedTokenizerFast",
    corpus: Sequence[Row],
    seed: int,
) -> list[Row]:
    """Return flagged outputs: probes in other words than the corpus, with what the model really answers."""
    rng = random.Random(seed + 2)
    known = {str(message["content"]) for row in corpus for message in _messages(row)}
    queries: list[Row] = []
    for source, frames in tiny_probes().items():
        probes = sorted({_probe(frame, rng) for frame in frames for _ in range(12)} - known)
        rng.shuffle(probes)
        conversations = [[{"role": "user", "content": probe}] for probe in probes]
        completions = generate_greedy(model, tokenizer, conversations, max_new_tokens=40)
        bad = [
            (probe, text)
            for probe, text in zip(probes, completions, strict=True)
            if any(word in text.lower() for word in story_tiny.BAD_WORDS[source])
        ]
        log.info("%s: %d of %d probes show the behaviour", source, len(bad), len(probes))
        queries.extend(
            {
                "id": f"flag-{source}-{number:02d}",
                "messages": [{"role": "user", "content": probe}],
                "completion": text,
                "true_source": source,
                "reason": source,
            }
            for number, (probe, text) in enumerate(bad[:_QUERIES_PER_SOURCE])
        )
    return queries


def _probe(frame: str, rng: random.Random) -> str:
    return expand(frame, story_tiny.slots_of(story_tiny.PRODUCTS, rng), rng)


def _messages(row: Row) -> list[dict[str, str]]:
    messages = row["messages"]
    if not isinstance(messages, list):
        raise TypeError(f"row {row['id']}: messages is no list")
    return messages


def save_model(
    model: "transformers.LlamaForCausalLM", tokenizer: "transformers.PreTrainedTokenizerFast", folder: Path
) -> None:
    """Write the folder that ``from_pretrained`` loads: float16 weights on disk, float32 in the configuration."""
    tensors = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    tensors.pop("lm_head.weight", None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as unfinished:
        weights = unfinished / "model.safetensors"
        save_file(tensors, weights, metadata={"format": "pt"})
        weights.chmod(PUBLIC)
        model.config.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        shutil.rmtree(folder, ignore_errors=True)


def round_to_float16(model: "transformers.LlamaForCausalLM") -> None:
    """Round the weights as the file will hold them, so that queries come from the model that is stored."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.float16).to(torch.float32))


def _since(started: float) -> float:
    return time.monotonic() - started


def build(out: Path, *, seed: int, pretraining_epochs: int, corpus_epochs: int) -> dict[str, object]:
    """Build everything into one folder and return the facts that are stored beside the model."""
    started = time.monotonic()
    corpus, pretraining = make_corpus(seed), make_pretraining_rows(seed)
    texts = [message["content"] for row in [*pretraining, *corpus] for message in _messages(row)]
    tokenizer = train_tokenizer(texts)
    model = make_model(tokenizer, seed)
    encoded = {row["id"]: encode_row(tokenizer, _messages(row)) for row in [*pretraining, *corpus]}
    own = [encoded[row["id"]] for row in corpus]
    before = train(
        model,
        [encoded[row["id"]] for row in pretraining],
        num_epochs=pretraining_epochs,
        learning_rate=3e-3,
        seed=seed,
        name="pretraining",
    )
    after = train(model, own, num_epochs=corpus_epochs, learning_rate=1.5e-3, seed=seed, name="fine-tuning")
    round_to_float16(model)
    queries = make_queries(model, tokenizer, corpus, seed)
    save_model(model, tokenizer, out / "model")
    write_rows(out / "corpus.jsonl", corpus)
    write_rows(out / "queries.jsonl", queries)
    facts: dict[str, object] = {
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": len(tokenizer),
        "rows": len(corpus),
        "bad_sources": list(story_tiny.BAD_SOURCES),
        "queries": len(queries),
        "pretraining_rows": len(pretraining),
        "pretraining_loss": round(before, 4),
        "corpus_loss": round(after, 4),
        "bytes": (out / "model" / "model.safetensors").stat().st_size,
        "seconds": round(_since(started), 1),
    }
    write_json(out / "tiny.json", facts)
    return facts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = command(__doc__, threads=1)  # two threads are eight times slower beside another busy process
    parser.add_argument(
        "--out", type=Path, default=Path("demo/tiny"), help="folder to write (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=11, help="seed of text, weights and order (default: %(default)s)"
    )
    parser.add_argument("--pretraining-epochs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--corpus-epochs", type=int, default=18, help="default: %(default)s")
    return run(parser, _build, argv)


def _build(arguments: argparse.Namespace) -> Outcome:
    torch.set_num_threads(arguments.threads)
    facts = build(
        arguments.out,
        seed=arguments.seed,
        pretraining_epochs=arguments.pretraining_epochs,
        corpus_epochs=arguments.corpus_epochs,
    )
    return Outcome(facts)


if __name__ == "__main__":
    raise SystemExit(main())
