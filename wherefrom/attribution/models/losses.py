"""Mean losses of rows, by plain forward passes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.models.padding import pad_right
from wherefrom.attribution.models.render import TokenRow

#: Tokens, padding included, of one pass.
_PASS_TOKENS = 2048


@torch.no_grad()
def row_losses(model: Any, rows: Sequence[TokenRow]) -> Tensor:
    """Mean loss of each row's explained tokens, nats, float32 `[N]`."""
    losses, device = torch.empty(len(rows)), model.get_input_embeddings().weight.device
    for batch in pack_rows([len(row.ids) for row in rows], _PASS_TOKENS):
        chosen = [rows[index] for index in batch]
        ids, mask = pad_right([row.ids for row in chosen], device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits  # [B, W, V]
        for index, (place, row) in enumerate(zip(batch, chosen, strict=True)):
            behind = slice(row.start - 1, len(row.ids) - 1)
            each = torch.nn.functional.cross_entropy(
                logits[index, behind].float(),
                ids[index, row.start : len(row.ids)].to(logits.device),
                reduction="none",
            )
            losses[place] = each[torch.tensor(row.explained, device=each.device)].mean()
    return losses
