r"""MadryLab's traker (TRAK, arXiv:2303.14186) on the CPU.

Model output: f = sum over the explained tokens of log p / (1 - p); its loss weight Q is the mean of 1 - p over them. Gradients are taken with respect
to the linear layers of the blocks and projected by its BasicProjector (normal, in one block: the library has no faster projector without a GPU). TRAK is made
to be averaged over models that were trained separately; the row says how many there were.
"""

import logging
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from trak import TRAKer
from trak.modelout_functions import AbstractModelOutput
from trak.projectors import BasicProjector, ProjectionType

from benchmarks.peers.subject import IGNORED, Scored, Subject, pad, timed
from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.ekfac.gradients import block_linears
from wherefrom.attribution.models.render import TokenRow

#: Numbers per example and model; the projection matrix of all weights takes 3.6 GB on the yardstick's model.
_NUMBERS = 512
#: Padded tokens of one pass; gradients of every weight are held for each row.
_BATCH_TOKENS = 640


class CompletionMargin(AbstractModelOutput):  # type: ignore[misc] # traker ships no types
    """log p / (1 - p) of the explained tokens, summed."""

    def __init__(self) -> None:
        super().__init__()

    @staticmethod
    def get_output(  # noqa: PLR0917 - the library calls it so
        model: nn.Module,
        weights: dict[str, Tensor],
        buffers: dict[str, Tensor],
        ids: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Of one row, tensors `[W]`; called under `vmap`."""
        logits = _logits(model, weights, buffers, ids[None])[0]  # [W, V]
        keep = targets != IGNORED
        labels = torch.where(keep, targets, 0)
        right = logits.gather(-1, labels[:, None])[:, 0]  # [W]
        is_right = torch.arange(logits.shape[-1]) == labels[:, None]  # [W, V]
        others = logits.masked_fill(is_right, -torch.inf).logsumexp(dim=-1)
        margin: Tensor = ((right - others) * keep).sum()
        return margin

    def get_out_to_loss_grad(
        self, model: nn.Module, weights: dict[str, Tensor], buffers: dict[str, Tensor], batch: Any
    ) -> Tensor:
        """Mean 1 - p of each row's explained tokens, `[B, 1]`."""
        ids, targets = batch
        with torch.no_grad():
            logits = _logits(model, weights, buffers, ids)
        keep = targets != IGNORED
        labels = torch.where(keep, targets, 0)
        right = torch.softmax(logits, dim=-1).gather(-1, labels[..., None])[..., 0]  # [B, W]
        surplus: Tensor = ((1.0 - right) * keep).sum(dim=1) / keep.sum(dim=1)  # [B]
        return surplus[:, None]


def _logits(model: nn.Module, weights: dict[str, Tensor], buffers: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Rows are padded on the right and attention looks back only, so no mask is needed."""
    logits: Tensor = torch.func.functional_call(
        model, (weights, buffers), args=(), kwargs={"input_ids": ids, "use_cache": False}
    ).logits
    return logits


def trak(subject: Subject) -> dict[str, Scored]:
    """TRAK over the audited model and the further checkpoints."""
    language = subject.language()
    model = language.model
    model.set_attn_implementation("eager")  # the others do not run under vmap
    weights = [{name: value.clone() for name, value in model.state_dict().items()}]
    for folder in subject.checkpoints:
        weights.append(weights[0] | load_file(folder / "model.safetensors"))
    names = [f"{name}.weight" for name in block_linears(language)]
    engine = _engine(model, names, subject)

    def build() -> None:
        for number, checkpoint in enumerate(weights):
            engine.load_checkpoint(checkpoint, model_id=number)
            for batch, inputs in _batches(subject.rows):
                engine.featurize(inputs, inds=np.array(batch))
        engine.finalize_features()

    def ask() -> Any:
        # `finalize_features` drops the projection, which a projector of one block does not make again by itself.
        engine.projector.generate_sketch_matrix(engine.projector.generator_states[0])
        for number, checkpoint in enumerate(weights):
            engine.start_scoring_checkpoint("queries", checkpoint, number, len(subject.asked))
            for batch, inputs in _batches(subject.asked):
                engine.score(inputs, inds=np.array(batch))
        return engine.finalize_scores("queries")

    _, built = timed(build)
    scores, asked = timed(ask)
    return {
        "traker TRAK": Scored(
            np.array(scores, dtype=np.float32).T,
            built,
            asked / len(subject.asked),
            4 * (_NUMBERS + 1) * len(weights),
            f"version 0.3.2, BasicProjector to {_NUMBERS} numbers, no ridge, {_models(len(weights))}",
        )
    }


def _models(count: int) -> str:
    return "the audited model alone" if count == 1 else f"the audited model and {count - 1} more"


def _engine(model: nn.Module, names: list[str], subject: Subject) -> Any:
    known = dict(model.named_parameters())
    projector = BasicProjector(
        grad_dim=sum(known[name].numel() for name in names),
        proj_dim=_NUMBERS,
        seed=0,
        proj_type=ProjectionType.normal,
        device="cpu",
        block_size=_NUMBERS,
    )
    return TRAKer(
        model=model,
        task=CompletionMargin(),
        train_set_size=len(subject.rows),
        save_dir=str(subject.scratch),
        device="cpu",
        projector=projector,
        use_half_precision=False,
        grad_wrt=names,
        logging_level=logging.ERROR,
    )


def _batches(rows: tuple[TokenRow, ...]) -> list[tuple[list[int], tuple[Tensor, Tensor]]]:
    """Row numbers with token ids and targets, rows of like length together."""
    packs = pack_rows([len(row.ids) for row in rows], _BATCH_TOKENS)
    padded = [(batch, pad([rows[index] for index in batch])) for batch in packs]
    return [(batch, (one.ids, one.targets)) for batch, one in padded]
