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
from wherefrom.attribution.models.padding import pad_right
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
#: The same for both checks of a pass in bfloat16, which keeps eight bits: both are shares of the largest logit there.
_COARSE = 0.05


@dataclass(frozen=True)
class Signals:
    """Signals of a batch, float32 on the model's (first) device; the tokens of all rows that are read stand behind each other (`SignalReader.reads`)."""

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
    #: `[B, M, D]` sketches of the gradients of an adapter's matrices at the final weights (`models.final_gradients`), where they are read.
    final: Tensor | None = None

    @property
    def finite(self) -> bool:
        """Whether all values are numbers."""
        return all_finite(self.a, self.b, self.pooled, self.loss, self.final)


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
        return values[self.row.to(values.device), self.column.to(values.device)]


class SignalReader:
    """Reads signals off one model, in one form, at chosen layers."""

    def __init__(
        self, language: LanguageModel, *, form: Form, layers: Sequence[int], similarity_layer: int
    ) -> None:
        self._language = language
        self._model = language.model
        self._decoder = getattr(self._model, self._model.base_model_prefix, self._model)
        self._head = self._model.get_output_embeddings()
        self._device = language.device
        self.form = form
        self.layers = tuple(layers)
        self._similarity_layer = similarity_layer
        _check_readable(language)
        self.split_pass = self._probe()

    @property
    def device(self) -> torch.device:
        """Where signals come from."""
        return self._device

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
            [self._here(places.of(done.hidden[layer].detach())) for layer in self.layers], dim=1
        )  # [S, La, D]
        a = unit_rms(held)
        pooled = segment_mean(self._here(places.of(done.hidden[self._similarity_layer].detach())), lengths)
        return Signals(a, b, lengths, pooled, segment_mean(losses[:, None], lengths)[:, 0])

    def _by_head(self, done: Pass, places: Places) -> tuple[Tensor, Tensor]:
        """Losses `[S]` and b `[S, Lb, D]` where the head was left out: it is applied here, in blocks."""
        final = places.of(done.hidden[-1])
        losses, errors = self._of_head(final.detach(), places)
        if self.form == "forward":
            return losses, errors[:, None]
        return losses, self._gradients(done, places, final, errors.to(final))

    def _by_logits(self, logits: Tensor, done: Pass, places: Places) -> tuple[Tensor, Tensor]:
        """The same where the model gave its logits, which need not be a plain product with the head's weight."""
        if self.form == "activation":
            losses = self._losses(logits, places)
            found = self._gradients(done, places, losses, torch.ones_like(losses))
            return self._here(losses.detach()), found
        losses, errors = self._of_logits(logits, places)
        return losses, errors[:, None]

    def _of_logits(self, logits: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """The same as `_of_head` by the model's own logits."""
        surplus = torch.softmax(places.of(logits).float(), dim=-1)  # [S, V]
        targets = places.targets.to(surplus.device)
        surplus[torch.arange(len(targets), device=surplus.device), targets] -= 1.0
        weight = self._head.weight.to(surplus)
        return self._here(self._losses(logits, places)), self._here(surplus @ weight)

    def _of_head(self, states: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """Losses `[S]` and output errors `[S, D]` of final states, float32 on the model's device."""
        weight, bias = self._head.weight, getattr(self._head, "bias", None)
        losses, errors = head_errors(
            states.to(weight.device), places.targets.to(weight.device), weight=weight, bias=bias
        )
        return self._here(losses), self._here(errors)

    @staticmethod
    def _losses(logits: Tensor, places: Places) -> Tensor:
        """Losses `[S]` by the model's own logits, float32."""
        chosen = places.of(logits).float()
        return torch.nn.functional.cross_entropy(chosen, places.targets.to(chosen.device), reduction="none")

    def _here(self, values: Tensor) -> Tensor:
        """Values as float32 on the model's (first) device."""
        return values.to(self._device, torch.float32)

    def _gradients(self, done: Pass, places: Places, ends: Tensor, errors: Tensor) -> Tensor:
        """Gradients at the layers read, `[S, La, D]`, of what has the gradient `errors` with respect to `ends`."""
        hidden = [done.hidden[layer] for layer in self.layers]
        gradients = torch.autograd.grad(ends, hidden, errors)
        return torch.stack([self._here(places.of(gradient)) for gradient in gradients], dim=1)

    def _plain(self, rows: Sequence[TokenRow]) -> Pass:
        """The model's own forward pass over whole rows, padded on the right."""
        ids, mask = pad_right([row.ids[:-1] for row in rows], self._device)
        inputs = self._inputs(ids)
        out = self._model(**inputs, attention_mask=mask, output_hidden_states=True, use_cache=False)
        return Pass(list(out.hidden_states), out.logits, tuple(row.start - 1 for row in rows))

    def _split(self, rows: Sequence[TokenRow]) -> Pass:
        """Shared prefix once, prompts without gradients, then the region that predicts the completions."""
        cache, seen = self._fill_cache([row.ids[: row.start - 1] for row in rows])
        ids, region_mask = pad_right([row.ids[row.start - 1 : -1] for row in rows], self._device)
        starts, last = torch.tensor(
            [[row.start - 1, len(row.ids) - 2] for row in rows], device=self._device
        ).T  # padding gets no place behind the model's longest
        steps = torch.arange(ids.shape[1], device=self._device)
        positions = torch.minimum(starts[:, None] + steps, last[:, None])  # [B, W]
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
            ids = torch.tensor([prompts[0][:shared]], device=self._device)
            self._decoder(input_ids=ids, past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(prompts))
        seen = torch.ones(len(prompts), shared, dtype=torch.long, device=self._device)
        rest = [prompt[shared:] for prompt in prompts]
        if max(map(len, rest)) > 0:
            ids, mask = pad_right(rest, self._device)
            seen = torch.cat([seen, mask], dim=1)
            steps = torch.arange(ids.shape[1], device=self._device)
            positions = (shared + steps)[None].expand(len(rest), -1)
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
        states = Places.find(rows, split.first).of(split.hidden[-1]).to(self._head.weight)
        logits = torch.nn.functional.linear(states, self._head.weight, getattr(self._head, "bias", None))
        expected = Places.find(rows, plain.first).of(plain.logits).to(logits.device)
        exact = logits.dtype is torch.float32
        bound = PROBE_TOLERANCE if exact else _COARSE * float(expected.abs().max())
        return float((logits - expected).abs().max()) <= bound


@torch.no_grad()
def _check_readable(language: LanguageModel) -> None:
    """Refuse a model whose hidden states cannot be compared with each other, or that looks ahead.

    Raises:
        UnusableModel: its hidden states have several widths, or a token changes the logits of the tokens before it.
    """
    vocabulary = len(language.model.get_input_embeddings().weight)
    ids = torch.arange(_CAUSAL_TOKENS, device=language.device).remainder(vocabulary).repeat(2, 1)
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
    rounding = _AHEAD if before.dtype is torch.float32 else _COARSE
    if float((before[0] - before[1]).abs().max()) > rounding * float(before.abs().max()):
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


def all_finite(*values: Tensor | None) -> bool:
    """Whether all values of all tensors are numbers; None counts as such."""
    return all(bool(torch.isfinite(one).all()) for one in values if one is not None)


def unit_rms(states: Tensor) -> Tensor:
    """Hidden states divided by their root mean square along the last axis."""
    return states / states.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-12)


def segment_mean(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Mean over consecutive segments: `[S, D]` and lengths summing to S give `[B, D]`."""
    return torch.stack([part.mean(dim=0) for part in values.split(list(lengths))])
