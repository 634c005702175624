r"""Whether a model has learned the corpus that it is to be explained by.

A bundle of an untrained model, of a base model whose adapter was forgotten, or of another corpus gives citations that look like any others. Three questions, asked of a
sample of rows, with l(c | p) the mean loss of a completion behind a prompt and ~ for another row's prompt:

    chance      l(c | p)  <  0.9 log V
    pairs       g = l(c | ~p) - l(c | p)  > 0, and l(c | p) at most a share of l(c | ~p)
    base        l_base(c | p) - l(c | p)  > 0, and g - g_base > 0

The last one needs the model that the fine-tune began with (the base of an adapter, or `--start`). It tells what the fine-tune added from what the base knew: a base model
too finds a completion likelier behind its own prompt. Without it, the share is the only sign. Differences are paired by row and must be a few of their standard errors from 0.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from wherefrom.attribution.models.losses import row_losses
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.records import Frozen

Losses = npt.NDArray[np.float64]

#: Rows and tokens of the sample; the check costs up to four passes over it.
SAMPLE_ROWS, SAMPLE_TOKENS = 48, 2048
#: Fewer rows tell nothing.
LEAST_ROWS = 4
_PROMPT_TOKENS, _COMPLETION_TOKENS = 96, 64
_CHANCE_SHARE = 0.9
#: Standard errors from 0 at which a difference counts.
_CLEAR, _SOME = 3.0, 1.0
#: Largest loss behind the own prompt, as a share of that behind another one, without a base model: of prompts, and of halves of plain text.
_SHARE_OF_PAIRS, _SHARE_OF_TEXT = 0.85, 0.97


class Learning(Frozen):
    """What the sample shows; losses are means per completion token over its rows, nats."""

    rows: int
    loss_nats: float
    chance_nats: float
    #: Behind other rows' prompts; None where the completions are too much alike.
    shuffled_loss_nats: float | None
    #: Of the model that the fine-tune began with, where it is known.
    base_loss_nats: float | None
    base_shuffled_loss_nats: float | None
    #: Why the corpus counts as not learned; None where it counts as learned.
    not_learned: str | None

    def sentence(self) -> str:
        """The figures in words."""
        parts = [f"{self.loss_nats:.2f} nats per token", f"{self.chance_nats:.2f} by chance"]
        if self.shuffled_loss_nats is not None:
            parts.append(f"{self.shuffled_loss_nats:.2f} behind other prompts")
        if self.base_loss_nats is not None:
            parts.append(f"{self.base_loss_nats:.2f} before the fine-tune")
        return f"loss on {self.rows} training examples: {', '.join(parts)}"


@dataclass(frozen=True)
class ModelLosses:
    """Losses of one model, `[N]`: behind the own prompts, and behind others (NaN where there is no other)."""

    own: Losses
    other: Losses

    @property
    def gaps(self) -> Losses:
        """How much worse the completions are behind other prompts."""
        return self.other - self.own


def measure_learning(
    language: LanguageModel, rows: Sequence[TokenRow], load_base: Callable[[], LanguageModel] | None
) -> Learning | None:
    """Ask the three questions; None where there are too few rows to tell.

    Args:
        language: the audited model.
        rows: the corpus as tokens.
        load_base: gives the model that the fine-tune began with, where it is known.
    """
    sample = _sample(rows)
    if len(sample) < LEAST_ROWS:
        return None
    swapped = _swapped(sample)
    found = _read(language, sample, swapped)
    base = None if load_base is None else _read(load_base(), sample, swapped)
    chance = math.log(len(language.model.get_input_embeddings().weight))
    text = all(row.start <= 1 for row in rows)
    return Learning(
        rows=len(sample),
        loss_nats=float(found.own.mean()),
        chance_nats=chance,
        shuffled_loss_nats=_mean(found.other),
        base_loss_nats=None if base is None else float(base.own.mean()),
        base_shuffled_loss_nats=None if base is None else _mean(base.other),
        not_learned=verdict(found, base, chance=chance, text=text),
    )


def verdict(found: ModelLosses, base: ModelLosses | None, *, chance: float, text: bool) -> str | None:
    """Why the corpus counts as not learned; None where it counts as learned.

    Args:
        found: of the audited model.
        base: of the model that the fine-tune began with, where it is known.
        chance: loss of a guess, nats.
        text: whether the rows are plain text parted in the middle.
    """
    gaps = found.gaps[~np.isnan(found.gaps)]
    pairs = len(gaps) >= max(LEAST_ROWS, len(found.own) / 2)
    if not found.own.mean() < _CHANCE_SHARE * chance:
        return "its loss on the training examples is no better than chance"
    if pairs and _errors_from_zero(gaps) < _CLEAR:
        return "completions are no more likely after their own prompts than after others"
    return (
        _verdict_alone(found, pairs=pairs, text=text)
        if base is None
        else _verdict_beside(found, base, pairs=pairs)
    )


def _verdict_alone(found: ModelLosses, *, pairs: bool, text: bool) -> str | None:
    """Where the model that the fine-tune began with is not known: how much the own prompt helps."""
    there = ~np.isnan(found.other)
    share = found.own[there].mean() / found.other[there].mean() if pairs else 0.0
    if share > (_SHARE_OF_TEXT if text else _SHARE_OF_PAIRS):
        return "completions are hardly more likely after their own prompts than after others"
    return None


def _verdict_beside(found: ModelLosses, base: ModelLosses, *, pairs: bool) -> str | None:
    """What the fine-tune added to its base model."""
    if _errors_from_zero(base.own - found.own) < _CLEAR:
        return (
            "its loss on the training examples is no better than the loss of the model before the fine-tune"
        )
    added = (found.gaps - base.gaps)[~np.isnan(found.gaps)]
    if pairs and _errors_from_zero(added) < _SOME:
        return "the fine-tune did not improve on its base model at matching completions to prompts"
    return None


def _errors_from_zero(values: Losses) -> float:
    """The mean in standard errors."""
    spread = float(values.std(ddof=1)) / math.sqrt(len(values))
    return float(values.mean()) / max(spread, 1e-9)


def _mean(values: Losses) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


def _sample(rows: Sequence[TokenRow]) -> list[TokenRow]:
    """Rows spread evenly over the corpus, cut to what lies around the beginning of their completion, up to the limits."""
    count = min(SAMPLE_ROWS, len(rows))
    places = sorted({round(place) for place in np.linspace(0, len(rows) - 1, count)}) if count else []
    random = np.random.default_rng(0)
    found: list[TokenRow] = []
    tokens = 0
    for place in random.permutation(places):
        row = _cut(rows[int(place)])
        if row is None:
            continue
        tokens += len(row.ids)
        if tokens > SAMPLE_TOKENS and len(found) >= LEAST_ROWS:
            break
        found.append(row)
    return found


def _cut(row: TokenRow) -> TokenRow | None:
    """What lies around the beginning of the first completion; plain text is parted in the middle. None for a row too short to part."""
    start, end = row.start, row.start + sum(1 for _ in itertools.takewhile(bool, row.explained))
    if start <= 1:
        start, end = len(row.ids) // 2, len(row.ids)
    prompt = row.ids[max(0, start - _PROMPT_TOKENS) : start]
    completion = row.ids[start : min(end, start + _COMPLETION_TOKENS)]
    return _row(prompt, completion) if prompt and completion else None


def _row(prompt: tuple[int, ...], completion: tuple[int, ...]) -> TokenRow:
    return TokenRow(prompt + completion, len(prompt), (True,) * len(completion))


def _swapped(sample: Sequence[TokenRow]) -> list[TokenRow | None]:
    """Each completion behind the prompt of another row; None where no row has another prompt and another completion."""
    count = len(sample)
    pairs = [(row.ids[: row.start], row.ids[row.start :]) for row in sample]
    found: list[TokenRow | None] = []
    for place, (prompt, completion) in enumerate(pairs):
        others = (pairs[(place + count // 2 + step) % count] for step in range(count))
        other = next((one for one in others if one[0] != prompt and one[1] != completion), None)
        found.append(None if other is None else _row(other[0], completion))
    return found


def _read(
    language: LanguageModel, sample: Sequence[TokenRow], swapped: Sequence[TokenRow | None]
) -> ModelLosses:
    there = [place for place, row in enumerate(swapped) if row is not None]
    losses = row_losses(language.model, [*sample, *(row for row in swapped if row is not None)])
    values = torch.nan_to_num(losses, nan=math.inf).double().numpy()
    other = np.full(len(sample), np.nan)
    other[there] = values[len(sample) :]
    return ModelLosses(values[: len(sample)], other)
