r"""Which parts of the model carry a citation: the influence score of the form `adapter`, divided over blocks and kinds of linear layers.

    influence(q, z) = sum_g <F_g(q), F_g(z)> / (|q| |z|)          g: adapted linear layers (`cores`)

Every layer belongs to one block and is of one kind, so the parts of all blocks add up to the score, and those of all kinds too.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from wherefrom.attribution.cores import CoreStore
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.models.lora import block_of
from wherefrom.errors import BundleCorrupt
from wherefrom.json_text import read_json
from wherefrom.records import ModulePart

#: File of a bundle with the shares of an average citation; bundles of earlier releases have none.
USUAL_SHARES = "usual_shares.json"
#: Decimals of a part (the score itself is a cosine), and of a usual share.
_DECIMALS, _SHARE_DECIMALS = 5, 4
#: Training examples that the usual shares are read off, and the nearest others of each that count.
SAMPLE, NEAREST = 256, 5


By = Literal["block", "linear"]
_Shares = npt.NDArray[np.floating]


@dataclass(frozen=True)
class ModuleMap:
    """Where each adapted layer belongs."""

    #: For each layer in order: the number of its block, or its whole name where it stands in none; and its own name.
    blocks: tuple[str, ...]
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Self:
        """From the layers' names, such as `model.layers.3.self_attn.q_proj`."""
        found = [block_of(name) for name in names]
        blocks = [name if block is None else str(block) for name, block in zip(names, found, strict=True)]
        return cls(tuple(blocks), tuple(name.rpartition(".")[2] for name in names))

    def sums(self, shares: _Shares) -> list[tuple[By, str, float]]:
        """Sums of one citation's shares `[G]` over blocks, then over kinds, each in the order of the model."""
        sides: tuple[tuple[By, tuple[str, ...]], ...] = (("block", self.blocks), ("linear", self.kinds))
        return [
            (by, name, float(shares[[one == name for one in names]].sum()))
            for by, names in sides
            for name in dict.fromkeys(names)
        ]


@dataclass(frozen=True)
class UsualShares:
    """What each part of the model carries of an average citation of the corpus: sums over pairs of alike training examples, over the sum of their influence.

    Pairs are those of up to `SAMPLE` evenly spaced examples with the `NEAREST` others of positive influence; near-duplicates, which are alike in
    every part, are left out.
    """

    shares: Mapping[tuple[By, str], float] = field(default_factory=dict)
    pairs: int = 0

    @classmethod
    def measure(
        cls,
        store: CoreStore,
        modules: ModuleMap,
        *,
        vectors: npt.NDArray[np.float32],
        groups: npt.NDArray[np.int32],
    ) -> Self:
        """Read them off a corpus.

        Args:
            store: cores of the corpus.
            modules: where each adapted layer belongs.
            vectors: `[N, P]` projected vectors, by which the nearest are found.
            groups: `[N]` near-duplicate group of each example.
        """
        total, pairs = np.zeros(len(modules.blocks)), 0
        sample = np.unique(np.linspace(0, len(store) - 1, min(SAMPLE, len(store))).round().astype(np.int64))
        for row in sample:
            alike = np.where(groups == groups[row], -np.inf, vectors @ vectors[row])
            nearest = np.argsort(-alike, kind="stable")[:NEAREST]
            nearest = nearest[np.isfinite(alike[nearest])]
            if not len(nearest):
                continue
            norms = store.norms[nearest] * store.norms[row]
            layers = store.layer_products(int(row), nearest).numpy() / np.maximum(norms, 1e-20)[:, None]
            supporting = layers[layers.sum(axis=1) > 0]  # [K, G]
            total += supporting.sum(axis=0)
            pairs += len(supporting)
        if not pairs:
            return cls()
        sums = modules.sums(total / total.sum())
        return cls({(by, name): round(value, _SHARE_DECIMALS) for by, name, value in sums}, pairs)

    def save(self, file: Path) -> None:
        """Write as JSON."""
        content = {
            by: {name: value for (one, name), value in self.shares.items() if one == by}
            for by in ("block", "linear")
        }
        file.write_text(json.dumps({"pairs": self.pairs} | content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read what `save` wrote; nothing is usual where there is no such file.

        Raises:
            BundleCorrupt: the file is another one.
        """
        if not file.is_file():
            return cls()
        try:
            content = read_json(file.read_text(encoding="utf-8"))
            sides: tuple[By, By] = ("block", "linear")
            shares = {(by, str(name)): float(value) for by in sides for name, value in content[by].items()}
            return cls(shares, int(content["pairs"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleCorrupt(f"{file}: not the usual shares of parts: {error}") from error


class ScoresLayers(Protocol):
    """Features of a corpus that tell the adapted layers apart."""

    #: `[N]` kernel norms |z|.
    norms: npt.NDArray[np.float32]

    def layer_scores(self, query: Factors, rows: npt.NDArray[np.int64]) -> Tensor:
        """What each adapted layer adds to the kernel of one query with the given rows, `[K, G]` on the CPU."""


@dataclass(frozen=True)
class ModuleEvidence:
    """Divides the influence of citations over the parts of the model."""

    store: ScoresLayers
    modules: ModuleMap
    usual: UsualShares = field(default_factory=UsualShares)

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
        return [self._parts(one) for one in values / scale[:, None]]

    def _parts(self, shares: _Shares) -> tuple[ModulePart, ...]:
        return tuple(
            ModulePart(
                by=by,
                name=name,
                influence=round(value, _DECIMALS),
                usual_share=self.usual.shares.get((by, name)),
            )
            for by, name, value in self.modules.sums(shares)
        )
