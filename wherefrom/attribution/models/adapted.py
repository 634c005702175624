r"""Reads the form `adapter` off a model: for each adapted linear layer and each completion token what the adapter saw (u) and what it should have said (v).

    y = W x + s B A x            u_t = A x_t          v_t = (s B)' d (sum of the row's explained token losses) / d y_t

Both are r numbers, read at every completion token t, whichever of them the loss counts. sum_t v_t u_t' [r, r] is the gradient of a matrix put between s B and A, so the kernel over (u, v) is the one over (a, b) of the other
forms (`kernel`), with one group per adapted layer.

The model is read **half-way through its fine-tune**, with the adapter at strength .5: what a model knows by heart has no error left at its final weights,
and the sign of an influence read there is noise (SmolLM2, a planted falsehood: a third of the guilty rows negative at strength 1, none at .5). No second model
is needed: the audited model has the whole adapter merged, and while it is read each adapted layer gives back half of it, y - .5 s B u. Losses and hidden
states are those of this point.

References:
    LoGra (arXiv:2405.13954) puts r x r matrices between random or principal directions; here they are those that training moved.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor

from wherefrom.attribution.models.adjoint import Adjoint
from wherefrom.attribution.models.lora import AdaptedLinear, block_of
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import (
    Pass,
    Places,
    SignalReader,
    Signals,
    Similarity,
    segment_mean,
    unit_rms,
)
from wherefrom.errors import UnusableModel

#: Strength of the adapter at the point that is read.
STRENGTH = 0.5


@dataclass
class Caught:
    """What the hooks of one layer saw in the pass with a graph, `[B, W, r]`."""

    states: list[Tensor] = field(default_factory=list)
    errors: list[Tensor] = field(default_factory=list)
    #: Where the graph starts in this layer: nothing before it has one.
    start: Tensor | None = None


class AdapterReader(SignalReader):
    """Reads u and v off one model with its adapter merged; `Signals.a` is u and `Signals.b` is v, one layer per adapted linear."""

    def __init__(
        self,
        language: LanguageModel,
        adapted: Sequence[AdaptedLinear],
        *,
        similarity_layer: int,
        strength: float = STRENGTH,
        similarity: Similarity = "hidden",
        context: bool = False,
        first_block: int | None = None,
    ) -> None:
        """Prepare a model for reading.

        Args:
            language: the audited model, adapter merged.
            adapted: its adapted layers.
            similarity_layer: hidden state for similarity.
            strength: of the adapter at the point that is read.
            similarity: whether that hidden state is pooled, or u of all layers laid end to end.
            context: whether what error signals are predicted from is read too (`adjoint`).
            first_block: the first block whose adapted layers are read; None for all. Those before are weakened as well, and the graph starts behind them.

        Raises:
            UnusableModel: no adapted layer is read.
        """
        self.with_context = context
        self._similarity = similarity
        self._in_prompt = False
        self._all = tuple(adapted)
        self._adapted = tuple(one for one in adapted if _is_from(one.name, first_block))
        if not self._adapted:
            raise UnusableModel(f"the adapter adapts no layer from block {first_block} on")
        self._modules = dict(language.model.named_modules())
        self._missing = 1.0 - strength
        super().__init__(language, form="activation", layers=(), similarity_layer=similarity_layer)

    @property
    def adapted(self) -> tuple[AdaptedLinear, ...]:
        """The adapted layers that are read, in the order of the signals."""
        return self._adapted

    @property
    def names(self) -> tuple[str, ...]:
        """Names of these layers, in the order of the signals."""
        return tuple(layer.name for layer in self._adapted)

    @property
    def ranks(self) -> tuple[int, ...]:
        """Directions of each of them that are read; the signals are filled up with zeros to the largest."""
        return tuple(layer.rank for layer in self._adapted)

    def reads(self, row: TokenRow) -> tuple[bool, ...]:
        """All completion tokens: a loss of some of them reaches those before through attention, so spans restrict the loss and not the tokens."""
        return (True,) * len(row.explained)

    def read(self, rows: Sequence[TokenRow]) -> Signals:
        """Signals of a batch of rows: u and v `[S, G, r]`, where layers of lower rank are filled up with zeros."""
        with torch.enable_grad(), self._hooked() as caught:
            done = self._forward(rows)
            explained = Places.find(rows, done.first)
            losses, errors = self._backward(done, explained, caught)
        read = Places.flagged(rows, done.first, [self.reads(row) for row in rows])
        u, v = (
            self._of_layers(side, read)
            for side in ([one.states for one in caught], [one.errors for one in caught])
        )
        context = None
        if self.with_context:
            wrong = errors if done.logits is None else self._output_errors(done, explained)[1]
            context = self._context(rows, done, read, wrong)
        return self._signals(rows, done, u, v, losses=losses, context=context)

    def _forward(self, rows: Sequence[TokenRow]) -> Pass:
        """The pass over the model, split where that gives the same."""
        return self._split(rows) if self.split_pass else self._plain(rows)

    def _backward(self, done: Pass, explained: Places, caught: Sequence[Caught]) -> tuple[Tensor, Tensor]:
        """Losses of the explained tokens and the gradient that the pass back began with; the hooks keep what is wanted of it."""
        losses, ends, errors = self._ends(done, explained)
        starts = [one.start for one in caught if one.start is not None]
        torch.autograd.grad(ends, starts, errors, allow_unused=True)
        return losses, errors

    def _of_layers(self, caught: Sequence[list[Tensor]], read: Places) -> Tensor:
        """What the hooks of all layers kept, at the tokens that are read, `[S, G, r]`."""
        pairs = zip(caught, self._adapted, strict=True)
        return _stacked([self._here(read.of(self._once(one, layer))) for one, layer in pairs])

    def _signals(
        self,
        rows: Sequence[TokenRow],
        done: Pass,
        u: Tensor,
        v: Tensor,
        *,
        losses: Tensor,
        context: Tensor | None,
    ) -> Signals:
        """Signals from u and v, with what is read at the explained tokens alone: pooled states and losses."""
        lengths = tuple(sum(row.explained) for row in rows)
        if self._similarity == "adapter":
            states = u[self._counted(rows)].flatten(1)
        else:
            hidden = done.hidden[self._similarity_layer].detach()
            states = self._here(Places.find(rows, done.first).of(hidden))
        return Signals(
            u,
            v,
            tuple(len(row.explained) for row in rows),
            segment_mean(states, lengths),
            segment_mean(losses[:, None], lengths)[:, 0],
            context,
        )

    @torch.no_grad()
    def _context(self, rows: Sequence[TokenRow], done: Pass, read: Places, errors: Tensor) -> Tensor:
        """X of `adjoint` at the tokens that are read, `[S, 2 D]`, from the output errors of the explained ones."""
        own = errors.new_zeros(len(read.row), errors.shape[1])
        own[self._counted(rows)] = errors
        held = self._here(read.of(done.hidden[self._similarity_layer].detach()))
        return torch.cat([own, unit_rms(held)], dim=1)

    def _counted(self, rows: Sequence[TokenRow]) -> Tensor:
        """Places, among the completion tokens of all rows, of those that the loss counts."""
        flags = [flag for row in rows for flag in row.explained]
        return torch.tensor([place for place, flag in enumerate(flags) if flag], device=self._device)

    def _output_errors(self, done: Pass, explained: Places) -> tuple[Tensor, Tensor]:
        """Losses `[S]` of the explained tokens and their gradients with respect to the last hidden state, `[S, D]`."""
        if done.logits is None:
            return self._of_head(explained.of(done.hidden[-1]).detach(), explained)
        return self._of_logits(done.logits.detach(), explained)

    def _ends(self, done: Pass, explained: Places) -> tuple[Tensor, Tensor, Tensor]:
        """Losses `[S]`; the tensor where the gradient starts, and the loss' gradient with respect to it."""
        if done.logits is not None:
            losses = self._losses(done.logits, explained)
            return self._here(losses.detach()), losses, torch.ones_like(losses)
        ends = explained.of(done.hidden[-1])
        losses, errors = self._output_errors(done, explained)
        return losses, ends, errors.to(ends)

    @contextmanager
    def _hooked(self) -> Iterator[list[Caught]]:
        """The model with its adapter at the strength that is read; what each adapted layer sees and should have said is kept."""
        caught = {layer.name: Caught() for layer in self._adapted}
        handles = [
            self._modules[layer.name].register_forward_hook(
                partial(self._at_layer, layer, caught.get(layer.name))
            )
            for layer in (
                self._all if self._missing else self._adapted
            )  # at full strength nothing is weakened
        ]
        try:
            yield list(caught.values())
        finally:
            for handle in handles:
                handle.remove()

    def _at_layer(
        self,
        layer: AdaptedLinear,
        caught: Caught | None,
        _module: Any,
        inputs: tuple[Tensor, ...],
        output: Tensor,
    ) -> Tensor:
        """A forward hook: weakens the adapter, and keeps u of a pass over completions now and v when the gradient comes.

        What is given back, m s B u with m = 1 - strength, has the gradient -m v with respect to u, so backpropagation itself computes v.
        """
        if self._in_prompt and not self._missing:
            return output
        seen = inputs[0].float()
        states = torch.nn.functional.linear(seen, layer.low)  # [B, W, r]
        whole = self._as_backpropagated(layer)
        starts = caught is not None and torch.is_grad_enabled() and not output.requires_grad
        if starts and whole:
            states.requires_grad = True
        weakened = output
        if self._missing:
            weakened = output - (self._missing * layer.added(states, output)).to(output.dtype)
        if caught is None:
            return weakened
        if starts and not whole:
            weakened.requires_grad = True
        if starts:
            caught.start = states if whole else weakened
        if not self._in_prompt:
            self._keep(layer, caught, seen=seen, states=states, weakened=weakened)
        return weakened

    def _keep(
        self, layer: AdaptedLinear, caught: Caught, *, seen: Tensor, states: Tensor, weakened: Tensor
    ) -> None:
        """Keep u of a pass over completions, and v when the gradient comes."""
        caught.states.append(self._states_read(layer, seen, states))
        if not weakened.requires_grad:
            return
        if self._as_backpropagated(layer):
            states.register_hook(lambda gradient: caught.errors.append(gradient / -self._missing))
        else:
            weakened.register_hook(lambda gradient: caught.errors.append(gradient.float() @ layer.read_high))

    @staticmethod
    def _states_read(layer: AdaptedLinear, seen: Tensor, states: Tensor) -> Tensor:
        """U in the directions that are read, where `states` is A x."""
        read = states if layer.read_low is layer.low else torch.nn.functional.linear(seen, layer.read_low)
        return read.detach()

    def _as_backpropagated(self, layer: AdaptedLinear) -> bool:
        """Whether the gradient of u, which comes by what is given back alone, has v in it."""
        return layer.read_low is layer.low and layer.lengths is None and bool(self._missing)

    def _inputs(self, ids: Tensor) -> dict[str, Tensor]:
        """Token ids: the graph starts at the first adapted layers that are read."""
        return {"input_ids": ids}

    def _fill_cache(
        self, prompts: Sequence[tuple[int, ...]]
    ) -> tuple["transformers.DynamicCache | None", Tensor | None]:
        """As of the other forms; what the layers see of prompts is not kept."""
        self._in_prompt = True
        try:
            return super()._fill_cache(prompts)
        finally:
            self._in_prompt = False

    @staticmethod
    def _once(values: list[Tensor], layer: AdaptedLinear) -> Tensor:
        """The one value that a layer gave in a pass.

        Raises:
            UnusableModel: the layer was not run, was run more than once, or does not keep rows and positions apart.
        """
        if len(values) != 1 or values[0].dim() != 3:
            raise UnusableModel(
                f"the adapted layer {layer.name} is not run once for every token, so the form `adapter` cannot read it; "
                "choose --form activation or forward"
            )
        return values[0]

    def _probe(self) -> bool:
        """As of the other forms, at the point that is read."""
        with self._hooked():
            return super()._probe()


class ForwardAdapterReader(AdapterReader):
    """Reads u off forward passes and predicts v from the output error and the states (`adjoint`); no gradient is formed."""

    def __init__(
        self,
        language: LanguageModel,
        adapted: Sequence[AdaptedLinear],
        *,
        similarity_layer: int,
        adjoint: Adjoint,
        strength: float = STRENGTH,
        similarity: Similarity = "hidden",
        first_block: int | None = None,
    ) -> None:
        self._adjoint = adjoint
        super().__init__(
            language,
            adapted,
            similarity_layer=similarity_layer,
            strength=strength,
            similarity=similarity,
            first_block=first_block,
        )

    @torch.no_grad()
    def read(self, rows: Sequence[TokenRow]) -> Signals:
        """Signals of a batch of rows: u, and v as the map predicts it, `[S, G, r]`."""
        with self._hooked() as caught:
            done = self._forward(rows)
        read = Places.flagged(rows, done.first, [self.reads(row) for row in rows])
        u = self._of_layers([one.states for one in caught], read)
        losses, errors = self._output_errors(done, Places.find(rows, done.first))
        v = self._adjoint.predict(self._context(rows, done, read, errors)).view(u.shape)
        return self._signals(rows, done, u, v, losses=losses, context=None)


def _is_from(name: str, first_block: int | None) -> bool:
    """Whether a layer stands in a block from that one on; layers outside of the blocks count."""
    block = block_of(name)
    return first_block is None or block is None or block >= first_block


def _stacked(values: Sequence[Tensor]) -> Tensor:
    """Values `[S, r_g]` of all layers, `[S, G, r]` with r the largest rank."""
    widest = max(one.shape[1] for one in values)
    return torch.stack([torch.nn.functional.pad(one, (0, widest - one.shape[1])) for one in values], dim=1)
