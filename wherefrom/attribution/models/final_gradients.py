r"""Reads what the adapter's own matrices would learn from a row at the final weights: sketches of the gradients of A and s B.

    dL/dA = sum_t v_t x_t'   [r, I]          dL/d(s B) = sum_t d_t u_t'   [O, r]          d_t = dL/dy_t,  v_t = (s B)' d_t,  u_t = A x_t

for each adapted layer that the form `adapter` reads, and in its directions (`lora.AdaptedLinear`). The cores of that form look along A and B, half-way through the fine-tune
(`models.adapted`). These are the gradients themselves, at the end of the fine-tune. The two err differently, so the order shown adds them up.

The sums run over the tokens t that predict the completion and over some tokens of the prompt before them (`PROMPT_TOKENS`). What comes before those is a constant: d_t depends on later
tokens alone, so the split pass of the other forms gives these sums exactly, with the rest of the prompt run forward only and the prefix that rows share run once.

Each gradient is thousands of numbers; a sketch (`gradient_sketch`) is taken while the pass goes back, so that no gradient outlives its layer.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from wherefrom.attribution.batching import pack_rows, pass_tokens
from wherefrom.attribution.gradient_sketch import NUMBERS, GradientSketch
from wherefrom.attribution.models.adapted import AdapterReader, Caught
from wherefrom.attribution.models.lora import AdaptedLinear
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Places, Signals, Similarity

#: Tokens of the prompt, right before the completion, whose gradients count too.
PROMPT_TOKENS = 16
#: Tokens, padding included, whose pass is remembered at once to go back through it, on a CPU.
GRAPH_TOKENS = 1024
#: Strength of the adapter at the point that is read.
FINAL = 1.0


class FinalGradientReader(AdapterReader):
    """Reads sketches off the audited model, with a pass of its own."""

    def __init__(
        self,
        language: LanguageModel,
        adapted: Sequence[AdaptedLinear],
        *,
        similarity_layer: int,
        first_block: int | None = None,
        prompt_tokens: int | None = PROMPT_TOKENS,
        probed: bool | None = None,
    ) -> None:
        """See `AdapterReader`.

        Args:
            language: the audited model, adapter merged.
            adapted: its adapted layers.
            similarity_layer: any hidden state; nothing is pooled here.
            first_block: the first block whose adapted layers are read.
            prompt_tokens: how many tokens of the prompt count; None for all, as in bundles of before.
            probed: what the probe of another reader of this model has found; None to probe.
        """
        self._prompt_tokens, self._probed = prompt_tokens, probed
        super().__init__(
            language, adapted, similarity_layer=similarity_layer, strength=FINAL, first_block=first_block
        )
        shapes = [
            shape
            for layer in self.adapted
            for shape in ((layer.rank, layer.read_low.shape[1]), (len(layer.read_high), layer.rank))
        ]
        self._sketch = GradientSketch(shapes, self.device)
        self._numbers = {layer.name: 2 * place for place, layer in enumerate(self.adapted)}
        self._found: dict[int, Tensor] = {}
        #: Column of each row's first token that counts, where a pass reaches back into tokens before it; else None.
        self._first: Tensor | None = None

    def sketches(self, rows: Sequence[TokenRow]) -> Tensor:
        """Sketches of a batch of rows, `[B, M, D]` float32 on the model's (first) device: A and s B of each layer in turn."""
        wide = [self._widened(row) for row in rows]
        graph = [row.completion_tokens if self.split_pass else len(row.ids) for row in wide]
        found = torch.zeros(len(rows), len(self._sketch), NUMBERS, device=self._device)
        for pack in pack_rows(graph, pass_tokens(self.device, GRAPH_TOKENS)):
            found[pack] = self._of_pack([wide[place] for place in pack])
        return found

    def _widened(self, row: TokenRow) -> TokenRow:
        """The row with the tokens of its prompt that count before its completion; they are not explained."""
        prompt = row.start - 1  # the first token has no predecessor
        more = prompt if self._prompt_tokens is None else min(self._prompt_tokens, prompt)
        return replace(row, start=row.start - more, explained=(False,) * more + row.explained)

    def _of_pack(self, rows: Sequence[TokenRow]) -> Tensor:
        self._found = {}
        try:
            with torch.enable_grad(), self._hooked() as caught:
                done = self._forward(rows)
                self._first = torch.tensor(done.first, device=self.device) if any(done.first) else None
                self._backward(done, Places.find(rows, done.first), caught)
            nothing = torch.zeros(len(rows), NUMBERS, device=self._device)
            found = [self._found.get(number, nothing) for number in range(len(self._sketch))]
            return torch.stack(found, dim=1)
        finally:
            self._found = {}

    def _probe(self) -> bool:
        """Whether the head is a plain product; the adapter's strength does not matter to that."""
        return super()._probe() if self._probed is None else self._probed

    def _keep(
        self,
        layer: AdaptedLinear,
        caught: Caught,  # noqa: ARG002  # of the overridden method
        *,
        seen: Tensor,
        states: Tensor,
        weakened: Tensor,
    ) -> None:
        """Sketch both gradients when the pass comes back to the layer."""
        if weakened.requires_grad:
            held, u = seen.detach(), self._states_read(layer, seen, states)
            weakened.register_hook(lambda gradient: self._take(layer, held, u, gradient=gradient))

    @torch.no_grad()
    def _take(self, layer: AdaptedLinear, seen: Tensor, u: Tensor, *, gradient: Tensor) -> None:
        errors = self._counted_alone(gradient.float())  # [B, W, O]
        v = errors @ layer.read_high
        own = errors if layer.lengths is None else errors * layer.lengths
        number = self._numbers[layer.name]
        for place, matrix in ((number, v.transpose(1, 2) @ seen), (number + 1, own.transpose(1, 2) @ u)):
            self._found[place] = self._here(self._sketch.of(place, matrix))

    def _counted_alone(self, errors: Tensor) -> Tensor:
        """Errors `[B, W, O]` with zeros where a pass that was not split reaches back into tokens that do not count."""
        if self._first is None:
            return errors
        columns = torch.arange(errors.shape[1], device=errors.device)
        return errors * (columns >= self._first.to(errors.device)[:, None])[..., None]


class TwoPointReader(AdapterReader):
    """Reads u and v half-way through the fine-tune, and the sketches at its end."""

    def __init__(
        self,
        language: LanguageModel,
        adapted: Sequence[AdaptedLinear],
        *,
        similarity_layer: int,
        similarity: Similarity = "hidden",
        first_block: int | None = None,
        prompt_tokens: int | None = PROMPT_TOKENS,
    ) -> None:
        """See `AdapterReader` and `FinalGradientReader`."""
        super().__init__(
            language,
            adapted,
            similarity_layer=similarity_layer,
            similarity=similarity,
            first_block=first_block,
        )
        self._final = FinalGradientReader(
            language,
            adapted,
            similarity_layer=similarity_layer,
            first_block=first_block,
            prompt_tokens=prompt_tokens,
            probed=self.split_pass,
        )

    def read(self, rows: Sequence[TokenRow]) -> Signals:
        """Signals of a batch of rows, sketches of the final gradients among them."""
        return replace(super().read(rows), final=self._final.sketches(rows))
