r"""What the engine reads off the model for each explained token: what it held (a) and what it got wrong (b).

Positions t are those whose next token is an explained completion token (the last prompt token counts, the end-of-turn token
does not). With h_t^l = hidden_states[l][t] (l = 0 is the embedding, the last one is final-normed):

    a_t^l = h_t^l / rms(h_t^l)
    form `forward`:     b_t   = (softmax(logits_t) - onehot(y_t)) @ W_unembed            the same for every layer
    form `activation`:  b_t^l = d (sum of the row's explained token losses) / d h_t^l

The pass is split where the model allows it: tokens that all rows share are run once, prompts without gradients fill a
key-value cache, and only the completion region builds logits and a graph. d loss / d h_t for t in the region depends on
positions >= t alone, so nothing is lost. A model whose cache or head does not reproduce its plain forward pass (checked once
on a probe) takes the plain pass; so does one with sliding-window attention, whose window would count the padding between
prompt and region. What is done with a and b is in `whitening` and `kernel`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
import transformers
from torch import Tensor

from wherefrom.attribution.models.head import head_errors
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import UnusableModel

Form = Literal["forward", "activation"]
#: Which states similarity compares: a hidden state, or what an adapter saw in all of its layers.
Similarity = Literal["hidden", "adapter"]

#: Largest difference of a logit between the split and the plain pass for the split pass to be used.
PROBE_TOLERANCE = 2e-3
#: Tokens of the run that shows whether a model looks ahead.
_CAUSAL_TOKENS = 6
#: Largest change of a logit by a later token, as a share of the largest logit, that counts as rounding.
_AHEAD = 1e-4


@dataclass(frozen=True)
class Signals:
    """Signals of a batch; the tokens of all rows that are read stand behind each other (`SignalReader.reads`)."""

    #: `[S, La, D]` float32, unit RMS.
    a: Tensor
    #: `[S, Lb, D]` float32; Lb is 1 for form `forward`.
    b: Tensor
    #: Tokens of each row that are read, summing to S.
    lengths: tuple[int, ...]
    #: `[B, D]` mean over the explained positions of the states that similarity compares.
    pooled: Tensor
    #: `[B]` mean loss of the explained tokens, nats.
    loss: Tensor
    #: `[S, F]` what error signals are predicted from (`models.adjoint`); None where nobody asked.
    context: Tensor | None = None


@dataclass(frozen=True)
class Pass:
    """One pass through the model over a padded region of each row."""

    hidden: list[Tensor]  # layers + 1 tensors [B, W, D]
    logits: Tensor | None  # [B, W, V], or None: the head is applied to the explained positions only
    first: tuple[int, ...]  # column of the position that predicts each row's first completion token


#: Settings of models (GPT-Neo) whose windows count the cache's columns, padding included, without the cache saying so.
_WINDOW_SETTINGS = ("attention_types", "window_size")


@dataclass(frozen=True)
class Places:
    """Where tokens of completions are predicted, and what they are; tensors `[S]`."""

    row: Tensor
    column: Tensor
    targets: Tensor

    @classmethod
    def find(cls, rows: Sequence[TokenRow], first: Sequence[int]) -> Self:
        """The places of all rows' explained tokens, where `first` is as in `Pass`."""
        return cls.flagged(rows, first, [row.explained for row in rows])

    @classmethod
    def flagged(cls, rows: Sequence[TokenRow], first: Sequence[int], flags: Sequence[Sequence[bool]]) -> Self:
        """The places of those completion tokens that are flagged."""
        found = [
            (index, first[index] + step, row.ids[row.start + step])
            for index, row in enumerate(rows)
            for step, flag in enumerate(flags[index])
            if flag
        ]
        table = torch.tensor(found, dtype=torch.long)  # [S, 3]
        return cls(table[:, 0], table[:, 1], table[:, 2])

    def of(self, values: Tensor) -> Tensor:
        """Values `[B, W, D]` at the places, `[S, D]`."""
        return values[self.row, self.column]


class SignalReader:
    """Reads signals off one model, in one form, at chosen layers."""

    def __init__(
        self, language: LanguageModel, *, form: Form, layers: Sequence[int], similarity_layer: int
    ) -> None:
        self._language = language
        self._model = language.model
        self._decoder = getattr(self._model, self._model.base_model_prefix, self._model)
        self._head = self._model.get_output_embeddings()
        self.form = form
        self.layers = tuple(layers)
        self._similarity_layer = similarity_layer
        _check_readable(language)
        self.split_pass = self._probe()

    def reads(self, row: TokenRow) -> tuple[bool, ...]:
        """Which completion tokens of a row have signals: the explained ones."""
        return row.explained

    def read(self, rows: Sequence[TokenRow]) -> Signals:
        """Signals of a batch of rows; each row's values do not depend on the other rows (up to rounding)."""
        with torch.set_grad_enabled(self.form == "activation"):
            done = self._split(rows) if self.split_pass else self._plain(rows)
            places = Places.find(rows, done.first)
            losses, b = (
                self._by_head(done, places)
                if done.logits is None
                else self._by_logits(done.logits, done, places)
            )
        lengths = tuple(sum(row.explained) for row in rows)
        held = torch.stack(
            [places.of(done.hidden[layer].detach()) for layer in self.layers], dim=1
        )  # [S, La, D]
        a = unit_rms(held)
        pooled = segment_mean(places.of(done.hidden[self._similarity_layer].detach()), lengths)
        return Signals(a, b, lengths, pooled, segment_mean(losses[:, None], lengths)[:, 0])

    def _by_head(self, done: Pass, places: Places) -> tuple[Tensor, Tensor]:
        """Losses `[S]` and b `[S, Lb, D]` where the head was left out: it is applied here, in blocks."""
        final = places.of(done.hidden[-1])
        weight, bias = self._head.weight, getattr(self._head, "bias", None)
        losses, errors = head_errors(final.detach(), places.targets, weight=weight, bias=bias)
        if self.form == "forward":
            return losses, errors[:, None]
        return losses, self._gradients(done, places, final, errors)

    def _by_logits(self, logits: Tensor, done: Pass, places: Places) -> tuple[Tensor, Tensor]:
        """The same where the model gave its logits, which need not be a plain product with the head's weight."""
        logits = places.of(logits)
        losses = torch.nn.functional.cross_entropy(logits, places.targets, reduction="none")
        if self.form == "activation":
            return losses.detach(), self._gradients(done, places, losses, torch.ones_like(losses))
        surplus = torch.softmax(logits, dim=-1)  # [S, V]
        surplus[torch.arange(len(places.targets)), places.targets] -= 1.0
        return losses, (surplus @ self._head.weight)[:, None]

    def _gradients(self, done: Pass, places: Places, ends: Tensor, errors: Tensor) -> Tensor:
        """Gradients at the layers read, `[S, La, D]`, of what has the gradient `errors` with respect to `ends`."""
        hidden = [done.hidden[layer] for layer in self.layers]
        gradients = torch.autograd.grad(ends, hidden, errors)
        return torch.stack([places.of(gradient) for gradient in gradients], dim=1)

    def _plain(self, rows: Sequence[TokenRow]) -> Pass:
        """The model's own forward pass over whole rows, padded on the right."""
        ids, mask = _pad_right([row.ids[:-1] for row in rows])
        inputs = self._inputs(ids)
        out = self._model(**inputs, attention_mask=mask, output_hidden_states=True, use_cache=False)
        return Pass(list(out.hidden_states), out.logits, tuple(row.start - 1 for row in rows))

    def _split(self, rows: Sequence[TokenRow]) -> Pass:
        """Shared prefix once, prompts without gradients, then the region that predicts the completions."""
        cache, seen = self._fill_cache([row.ids[: row.start - 1] for row in rows])
        ids, region_mask = _pad_right([row.ids[row.start - 1 : -1] for row in rows])
        starts = torch.tensor([row.start - 1 for row in rows])
        last = torch.tensor(
            [len(row.ids) - 2 for row in rows]
        )  # padding gets no place behind the model's longest
        positions = torch.minimum(starts[:, None] + torch.arange(ids.shape[1]), last[:, None])  # [B, W]
        mask = region_mask if seen is None else torch.cat([seen, region_mask], dim=1)
        out = self._decoder(
            **self._inputs(ids),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            output_hidden_states=True,
        )
        hidden = list(out.hidden_states)
        hidden[-1] = out.last_hidden_state
        return Pass(hidden, None, (0,) * len(rows))

    @torch.no_grad()
    def _fill_cache(
        self, prompts: Sequence[tuple[int, ...]]
    ) -> tuple["transformers.DynamicCache | None", Tensor | None]:
        """Keys and values of the prompts (without their last token) and the mask of the cached columns `[B, C]`."""
        shared = common_prefix(prompts)
        if max(map(len, prompts)) == 0:
            return None, None
        cache = transformers.DynamicCache(config=self._model.config)
        if shared:
            self._decoder(
                input_ids=torch.tensor([prompts[0][:shared]]), past_key_values=cache, use_cache=True
            )
            cache.batch_repeat_interleave(len(prompts))
        seen = torch.ones(len(prompts), shared, dtype=torch.long)
        rest = [prompt[shared:] for prompt in prompts]
        if max(map(len, rest)) > 0:
            ids, mask = _pad_right(rest)
            seen = torch.cat([seen, mask], dim=1)
            positions = (shared + torch.arange(ids.shape[1]))[None].expand(len(rest), -1)
            self._decoder(
                input_ids=ids,
                attention_mask=seen,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            )
        return cache, seen

    def _inputs(self, ids: Tensor) -> dict[str, Tensor]:
        """Token ids, or for form `activation` their embeddings with a graph behind them."""
        if self.form == "forward":
            return {"input_ids": ids}
        return {
            "inputs_embeds": self._model.get_input_embeddings()(ids)
            .detach()
            .requires_grad_(requires_grad=True)
        }

    @torch.no_grad()
    def _probe(self) -> bool:
        """Whether the split pass gives the plain pass's logits on three rows of unequal lengths."""
        vocabulary = (
            int(self._head.weight.shape[0]) if isinstance(getattr(self._head, "weight", None), Tensor) else 0
        )
        if vocabulary == 0 or self._head.weight.shape[1] != self._language.hidden_size:
            return False
        ids = [(7 * step * step + 3) % vocabulary for step in range(16)]
        rows = [
            TokenRow(tuple(ids), 9, (True,) * 7),
            TokenRow(tuple(ids[:4] + ids[9:]), 7, (True,) * 4),
            TokenRow(tuple(ids[:12]), 5, (True,) * 7),
        ]
        if any(getattr(self._model.config, name, None) for name in _WINDOW_SETTINGS):
            return False
        try:
            if any(transformers.DynamicCache(config=self._model.config).is_sliding):
                return False
            split, plain = self._split(rows), self._plain(rows)
        except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError):
            return False  # a model without this kind of cache
        if plain.logits is None:
            return False
        states = Places.find(rows, split.first).of(split.hidden[-1])
        logits = torch.nn.functional.linear(states, self._head.weight, getattr(self._head, "bias", None))
        difference = logits - Places.find(rows, plain.first).of(plain.logits)
        return float(difference.abs().max()) <= PROBE_TOLERANCE


@torch.no_grad()
def _check_readable(language: LanguageModel) -> None:
    """Refuse a model whose hidden states cannot be compared with each other, or that looks ahead.

    Raises:
        UnusableModel: its hidden states have several widths, or a token changes the logits of the tokens before it.
    """
    vocabulary = len(language.model.get_input_embeddings().weight)
    ids = torch.arange(_CAUSAL_TOKENS).remainder(vocabulary).repeat(2, 1)
    ids[1, -1] = vocabulary - 1
    out = language.model(input_ids=ids, output_hidden_states=True, use_cache=False)
    widths = sorted({state.shape[-1] for state in out.hidden_states or ()})
    if widths != [language.hidden_size]:
        found_widths = ", ".join(map(str, widths)) or "none"
        raise UnusableModel(
            f"{language.base_folder}: the hidden states are {found_widths} wide, but the model declares {language.hidden_size}; models that project their states "
            "between layers (such as OPT-350m) cannot be explained"
        )
    before = out.logits[:, :-1]
    if float((before[0] - before[1]).abs().max()) > _AHEAD * float(before.abs().max()):
        raise UnusableModel(
            f"{language.base_folder}: a token changes the logits of the tokens before it; only causal language models can be explained"
        )


def common_prefix(sequences: Sequence[tuple[int, ...]]) -> int:
    """Number of leading tokens that all sequences share."""
    first, last = (
        min(sequences),
        max(sequences),
    )  # what these two share, all that stand between them share too
    for index, (one, other) in enumerate(zip(first, last, strict=False)):
        if one != other:
            return index
    return min(len(first), len(last))


def unit_rms(states: Tensor) -> Tensor:
    """Hidden states divided by their root mean square along the last axis."""
    return states / states.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-12)


def segment_mean(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean over consecutive segments: `[S, D]` and lengths summing to S give `[B, D]`."""
    return torch.stack([part.mean(dim=0) for part in values.split(list(lengths))])


def _pad_right(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids padded with 0 and their mask, both `[B, W]`."""
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    for index, sequence in enumerate(sequences):
        ids[index, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[index, : len(sequence)] = 1
    return ids, mask
