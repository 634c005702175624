r"""Reads what the adapter's own matrices would learn from a row at the final weights: sketches of the gradients of A and s B.

    dL/dA = sum_t v_t x_t'   [r, I]          dL/d(s B) = sum_t d_t u_t'   [O, r]          d_t = dL/dy_t,  v_t = (s B)' d_t,  u_t = A x_t

over all tokens t of prompt and completion, for each adapted layer that the form `adapter` reads, and in its directions (`lora.AdaptedLinear`). The cores of that form look
along A and B, at completion tokens, half-way through the fine-tune (`models.adapted`). These are what a training step on the row would change, at the end of the fine-tune. The two err
differently, so the order shown adds them up.

Each gradient is thousands of numbers; a sketch (`gradient_sketch`) is taken while the pass goes back, so that no gradient outlives its layer.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.gradient_sketch import NUMBERS, GradientSketch
from wherefrom.attribution.models.adapted import AdapterReader, Caught
from wherefrom.attribution.models.lora import AdaptedLinear
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.padding import pad_right
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Pass, Places, Signals, Similarity

#: Tokens, padding included, whose pass is remembered at once to go back through it.
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
        probed: bool | None = None,
    ) -> None:
        """See `AdapterReader`.

        Args:
            language: the audited model, adapter merged.
            adapted: its adapted layers.
            similarity_layer: any hidden state; nothing is pooled here.
            first_block: the first block whose adapted layers are read.
            probed: what the probe of another reader of this model has found; None to probe.
        """
        self._probed = probed
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

    def sketches(self, rows: Sequence[TokenRow]) -> Tensor:
        """Sketches of a batch of rows, `[B, M, D]` float32 on the model's (first) device: A and s B of each layer in turn."""
        packs = pack_rows([len(row.ids) for row in rows], GRAPH_TOKENS)
        found = torch.zeros(len(rows), len(self._sketch), NUMBERS, device=self._device)
        for pack in packs:
            found[pack] = self._of_pack([rows[place] for place in pack])
        return found

    def _of_pack(self, rows: Sequence[TokenRow]) -> Tensor:
        self._found = {}
        try:
            with torch.enable_grad(), self._hooked() as caught:
                done = self._whole(rows) if self.split_pass else self._plain(rows)
                self._backward(done, Places.find(rows, done.first), caught)
            nothing = torch.zeros(len(rows), NUMBERS, device=self._device)
            found = [self._found.get(number, nothing) for number in range(len(self._sketch))]
            return torch.stack(found, dim=1)
        finally:
            self._found = {}

    def _whole(self, rows: Sequence[TokenRow]) -> Pass:
        """The pass over whole rows, without the head; padding is behind them, so that no gradient comes from it."""
        ids, mask = pad_right([row.ids[:-1] for row in rows], self._device)
        out = self._decoder(input_ids=ids, attention_mask=mask, use_cache=False)
        return Pass([out.last_hidden_state], None, tuple(row.start - 1 for row in rows))

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
        errors = gradient.float()  # [B, W, O]
        v = errors @ layer.read_high
        own = errors if layer.lengths is None else errors * layer.lengths
        number = self._numbers[layer.name]
        for place, matrix in ((number, v.transpose(1, 2) @ seen), (number + 1, own.transpose(1, 2) @ u)):
            self._found[place] = self._here(self._sketch.of(place, matrix))


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
    ) -> None:
        """See `AdapterReader`."""
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
            probed=self.split_pass,
        )

    def read(self, rows: Sequence[TokenRow]) -> Signals:
        """Signals of a batch of rows, sketches of the final gradients among them."""
        return replace(super().read(rows), final=self._final.sketches(rows))
