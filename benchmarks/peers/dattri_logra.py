"""dattri's LoGra on the CPU: random projections, empirical Fisher matrix of the projected gradients.

Its default damping is 1e-5 of the mean eigenvalue, with which no inverse of a matrix fitted on 800 rows can be meant; it gets .1 as all others do. Its compiled functions run uncompiled.
"""

import logging
from typing import Any

import numpy as np
import torch
from dattri.algorithm import LoGraAttributor
from dattri.task import AttributionTask
from torch import Tensor, nn

from benchmarks.peers.subject import IGNORED, Material, Scored, labels_of, timed, trainable
from wherefrom.attribution.models.render import TokenRow

#: 16 x 16 per layer. The default of 64 x 64 inverts 28 matrices of 4,096 x 4,096.
_NUMBERS = 256
#: As a share of the mean eigenvalue.
_DAMPING = 0.1
_BATCH = 16
_SEED = 0


def dattri_logra(subject: Material) -> dict[str, Scored]:
    """LoGra scores of all pairs."""
    logging.getLogger("dattri").setLevel(logging.ERROR)
    torch.manual_seed(_SEED)
    language = subject.language()
    names = subject.linears(language)
    trainable(language, names)
    task = AttributionTask(_loss, language.model, language.model.state_dict())
    attributor = LoGraAttributor(
        task, layer_names=list(names), proj_dim=_NUMBERS, damping=_DAMPING, device="cpu"
    )
    corpus, queries = _loader(subject.rows), _loader(subject.asked)
    with torch.compiler.set_stance("force_eager"):  # compiling anew for each shape takes minutes
        _, built = timed(lambda: attributor.cache(corpus))
        scores, asked = timed(lambda: attributor.attribute(corpus, queries))
    return {
        "dattri LoGra": Scored(
            scores.detach().numpy().T.astype(np.float32),
            built,
            asked / len(subject.asked),
            4 * sum(attributor.layer_dims),
            "version 0.3.0, random projections 16 x 16, damping .1 of the mean",
        )
    }


def _loss(model: nn.Module, batch: Any, device: str) -> Tensor:
    """Summed loss of the explained tokens."""
    del device
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).logits
    targets = batch["labels"][:, 1:].flatten()
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets, ignore_index=IGNORED, reduction="sum"
    )


def _loader(rows: tuple[TokenRow, ...]) -> Any:
    """Batches in order, all padded to one width."""
    width = max(len(row.ids) for row in rows)
    items = []
    for row in rows:
        gap = width - len(row.ids)
        items.append(
            {
                "input_ids": torch.tensor([*row.ids, *[0] * gap]),
                "attention_mask": torch.tensor([1] * len(row.ids) + [0] * gap),
                "labels": torch.tensor(labels_of(row) + [IGNORED] * gap),
            }
        )
    return torch.utils.data.DataLoader(items, batch_size=_BATCH, shuffle=False)  # type: ignore[arg-type] # a list is a map-style data set
