"""What attribution costs against the model's plain forward pass over the same outputs."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.padding import pad_right
from wherefrom.attribution.offline import BATCH_TOKENS
from wherefrom.attribution.query import TokenizedQuery
from wherefrom.evaluation.estimates import Estimate

T = TypeVar("T")
#: Outputs that are timed, and pairs of passes.
OUTPUTS = 64
PAIRS = 5


def overhead(
    attributor: LanguageAttributor,
    language: LanguageModel,
    prepared: Sequence[TokenizedQuery],
    *,
    made_of: str,
) -> dict[str, Estimate]:
    """Seconds of attribution over seconds of a plain forward pass: median of alternating pairs after one that warms up.

    The range of the pairs stands instead of an interval.
    """
    some = prepared[:OUTPUTS]
    batches = [
        [some[index] for index in batch] for batch in pack_rows([one.tokens for one in some], BATCH_TOKENS)
    ]
    scoring, citing = [], []
    for number in range(PAIRS + 1):
        plain = sum(plain_pass(language, batch) for batch in batches)
        scored = _seconds(lambda: _score(attributor, batches))
        cited = _seconds(lambda: _cite(attributor, batches))
        if number:
            scoring.append(scored / plain)
            citing.append(cited / plain)
    note = f"range of {PAIRS} pairs instead of an interval"
    return {
        name: Estimate(
            statistics.median(ratios), (min(ratios), max(ratios)), len(some), "outputs", made_of, note
        )
        for name, ratios in (
            ("signals, search and scores over a plain forward pass", scoring),
            ("whole audits, with spans and overlaps, over a plain forward pass", citing),
        )
    }


def timed(work: Callable[[], T], *, clock: Callable[[], float] = time.monotonic) -> tuple[T, float]:
    """What the work gives, and its seconds.

    Args:
        work: is called once.
        clock: `time.process_time` counts processor time, which other processes on the machine change far less.
    """
    started = clock()
    return work(), clock() - started


def folder_bytes(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())


def _seconds(work: Callable[[], None]) -> float:
    def to_its_end() -> None:
        work()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # a GPU goes on when the call has returned

    return max(timed(to_its_end, clock=time.perf_counter)[1], 1e-9)


@torch.inference_mode()
def plain_pass(language: LanguageModel, batch: Sequence[TokenizedQuery]) -> float:
    """Seconds of the model's plain forward pass over one padded batch."""
    ids, mask = pad_right([one.row.ids for one in batch], language.device)
    return _seconds(lambda: language.model(input_ids=ids, attention_mask=mask, use_cache=False))


def _score(attributor: LanguageAttributor, batches: Sequence[Sequence[TokenizedQuery]]) -> None:
    for batch in batches:
        for one in attributor.signals(batch):
            attributor.score(one)


def _cite(attributor: LanguageAttributor, batches: Sequence[Sequence[TokenizedQuery]]) -> None:
    for batch in batches:
        attributor.attribute(batch, top_k=10, opponents=3)
