r"""Which parts of the model carry a citation: the influence score of the form `adapter`, divided over blocks and kinds of linear layers.

    influence(q, z) = sum_g <F_g(q), F_g(z)> / (|q| |z|)          g: adapted linear layers (`cores`)

Every layer belongs to one block and is of one kind, so the parts of all blocks add up to the score, and those of all kinds too.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.cores import CoreStore
from wherefrom.attribution.factors import Factors
from wherefrom.records import ModulePart

#: Decimals of a part; the score itself is a cosine.
_DECIMALS = 5
_NUMBER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class ModuleMap:
    """Where each adapted layer belongs."""

    #: For each layer in order: the number of its block, or its whole name where it stands in none; and its own name.
    blocks: tuple[str, ...]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> "ModuleMap":
        """From the layers' names, such as `model.layers.3.self_attn.q_proj`."""
        found = [_NUMBER.search(name) for name in names]
        blocks = [name if match is None else match.group(1) for name, match in zip(names, found, strict=True)]
        return cls(tuple(blocks), tuple(name.rpartition(".")[2] for name in names))

    def parts(self, shares: npt.NDArray[np.floating]) -> tuple[ModulePart, ...]:
        """Sums of one citation's shares `[G]` over blocks, then over kinds, each in the order of the model."""
        return tuple(
            ModulePart(
                by=by,
                name=name,
                influence=round(float(shares[[one == name for one in names]].sum()), _DECIMALS),
            )
            for by, names in (("block", self.blocks), ("linear", self.kinds))
            for name in dict.fromkeys(names)
        )


@dataclass(frozen=True)
class ModuleEvidence:
    """Divides the influence of citations over the parts of the model."""

    store: CoreStore
    modules: ModuleMap

    def of(self, query: Factors, norm: float, rows: npt.NDArray[np.int64]) -> list[tuple[ModulePart, ...]]:
        """Parts of each citation.

        Args:
            query: whitened factors of one query.
            norm: its kernel norm |q|.
            rows: the cited training examples.
        """
        if not len(rows):
            return []
        values = self.store.layer_scores(query, rows).numpy()  # [K, G]
        scale = np.maximum(norm * self.store.norms[rows], 1e-20)
        return [self.modules.parts(one) for one in values / scale[:, None]]
