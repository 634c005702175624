"""What bundles of the forms that read an adapter hold besides cores and projection: sketches of tokens, usual shares of the parts, the learned adjoint."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from wherefrom.attribution.array_files import mapped
from wherefrom.attribution.bundles.features import FEATURES, PROJECTION
from wherefrom.attribution.bundles.shards import RawShard
from wherefrom.attribution.cores import CoreStore, write_sketches
from wherefrom.attribution.explanation.modules import USUAL_SHARES, ModuleMap, UsualShares
from wherefrom.attribution.groups import read_groups
from wherefrom.attribution.models.adapted import AdapterReader
from wherefrom.attribution.models.adjoint import ADJOINT, Adjoint
from wherefrom.attribution.retrieval.core_projection import CoreProjection
from wherefrom.attribution.whitening import Whitener


@torch.no_grad()
def write_adapter_files(
    bundle: Path, reader: AdapterReader, shards: Callable[[], Iterable[RawShard]]
) -> None:
    """Write them; whitening, cores, projected vectors and near-duplicate groups stand in the bundle already.

    Args:
        bundle: folder that is being built.
        reader: what read the signals.
        shards: gives the raw signals of the corpus from the beginning.
    """
    stored, device = load_file(bundle / "whitening.safetensors"), reader.device
    whitener = Whitener(stored["a"], stored["b"]).to(device)
    projection = CoreProjection.load(bundle / PROJECTION).to(device)
    write_sketches(bundle / FEATURES, (shard.whitened(whitener) for shard in shards()), projection)
    _write_usual_shares(bundle, reader)
    if reader.with_context:
        Adjoint.fit(contexts(shards(), device)).save(bundle / ADJOINT)


def _write_usual_shares(bundle: Path, reader: AdapterReader) -> None:
    store = CoreStore(bundle / FEATURES)
    vectors = mapped(bundle / FEATURES / "vectors.npy")
    groups = read_groups(bundle, len(store))
    usual = UsualShares.measure(store, ModuleMap.of(reader.names), vectors=vectors, groups=groups)
    if usual.pairs:
        usual.save(bundle / USUAL_SHARES)


def contexts(shards: Iterable[RawShard], device: torch.device) -> Iterable[tuple[Tensor, Tensor]]:
    """What error signals are predicted from, and these."""
    for shard in shards:
        if shard.context is not None:
            yield shard.context.to(device), shard.b.to(device)
