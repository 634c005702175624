r"""Whether the parts of the model that citations name matter to the output: the adapter is scaled to zero in them, and in others beside.

    d(P) = | loss(q; adapter zero in the parts P) - loss(q) |
    ratio = mean_q d(named parts of q) / mean_q mean_r d(as many parts drawn at random from those that are not named)

The parts of an output are those that its first citation names (`records.named_parts`): a run of neighbouring blocks, or some kinds of linear layers. Two controls
stand beside each: parts drawn at random, and the parts that *another* output names. The first asks whether the named parts matter more than others, the second
whether they are this output's own. Intervals are bootstraps over outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from wherefrom.attribution.explanation.modules import ModuleMap
from wherefrom.attribution.models.ablation import without_adapter
from wherefrom.attribution.models.lora import AdaptedLinear
from wherefrom.attribution.models.losses import row_losses
from wherefrom.attribution.models.render import TokenRow
from wherefrom.evaluation.estimates import Places, Values, bootstrap
from wherefrom.records import CitationDraft, named_parts

#: Draws of random parts per output.
DRAWS = 4
#: Outputs with named parts below which no ratio is given.
FEWEST = 5


@dataclass(frozen=True)
class NamedOutput:
    """An output and the parts that its first citation names."""

    row: TokenRow
    parts: tuple[str, ...]


@dataclass(frozen=True)
class PartsCheck:
    """Changes of the outputs' mean losses, nats, `[Q]`."""

    named: Values
    #: Mean over the draws.
    random: Values
    #: With the parts that the next output names that names others.
    others: Values

    def to_json(self) -> dict[str, Any]:
        """Mean changes, and both ratios with their intervals."""
        return {
            "outputs": len(self.named),
            "named_nats": float(self.named.mean()),
            "random_nats": float(self.random.mean()),
            "others_nats": float(self.others.mean()),
            "ratio_to_random": self._ratio(self.random),
            "ratio_to_others": self._ratio(self.others),
            "outputs_above_random": float((self.named > self.random).mean()),
        }

    def _ratio(self, control: Values) -> dict[str, Any]:
        def ratio(places: Places) -> float:
            return float(self.named[places].mean() / max(control[places].mean(), 1e-12))

        everyone = np.arange(len(self.named))
        return {"value": ratio(everyone), "interval": bootstrap(ratio, everyone.tolist())}


def named_outputs(
    rows: Sequence[TokenRow],
    citations: Sequence[Sequence[CitationDraft]],
    by: Literal["block", "linear"],
) -> list[NamedOutput]:
    """The outputs whose first citation names parts."""
    found = []
    for row, cited in zip(rows, citations, strict=True):
        first = next((one for one in cited if one.rank == 1), None)
        if first is not None and (parts := named_parts(first.modules, first.influence_score, by)):
            found.append(NamedOutput(row, parts))
    return found


def check_parts(
    model: Any,
    adapted: Sequence[AdaptedLinear],
    outputs: Sequence[NamedOutput],
    by: Literal["block", "linear"],
    *,
    seed: int = 0,
) -> PartsCheck:
    """Scale the named parts' adapter to zero, beside the two controls.

    Args:
        model: the audited model, adapter merged.
        adapted: its adapted layers.
        outputs: as `named_outputs` gives them.
        by: what the parts are.
        seed: of the draws.

    Raises:
        ValueError: too few outputs name parts.
    """
    if len(outputs) < FEWEST:
        raise ValueError(f"only {len(outputs)} outputs name parts; at least {FEWEST} are needed")
    places = ModuleMap.of([layer.name for layer in adapted])
    belongs = places.blocks if by == "block" else places.kinds
    every = list(dict.fromkeys(belongs))
    random = np.random.default_rng(seed)

    def loss(row: TokenRow, parts: Sequence[str]) -> float:
        layers = [layer for layer, part in zip(adapted, belongs, strict=True) if part in parts]
        with without_adapter(model, layers):
            return float(row_losses(model, [row])[0])

    named, drawn, others = [], [], []
    for place, one in enumerate(outputs):
        whole = loss(one.row, ())
        rest = [part for part in every if part not in one.parts]
        count = min(len(one.parts), len(rest))
        named.append(abs(loss(one.row, one.parts) - whole))
        draws = [random.choice(rest, size=count, replace=False).tolist() for _ in range(DRAWS)]
        drawn.append(np.mean([abs(loss(one.row, parts) - whole) for parts in draws]))
        others.append(abs(loss(one.row, _of_another(outputs, place)) - whole))
    return PartsCheck(np.array(named), np.array(drawn), np.array(others))


def _of_another(outputs: Sequence[NamedOutput], place: int) -> tuple[str, ...]:
    """Parts of the next output that names others; its own where all name the same."""
    own = outputs[place].parts
    behind = [*outputs[place + 1 :], *outputs[:place]]
    return next((one.parts for one in behind if one.parts != own), own)
