r"""The output head over many tokens, in blocks: losses and output errors without a table of tokens by vocabulary.

    z_t = W h_t + c        loss_t = logsumexp(z_t) - z_t[y_t]        d loss_t / d h_t = (softmax(z_t) - onehot(y_t)) W

A head in bfloat16 is used in float32: its own rounding would be as large as the losses of what a model knows well.

A batch of 2,048 tokens and a vocabulary of 49,152 would need 400 MB for z, and as much again for each of its logarithm, its softmax and its gradient. One buffer of a
block is used for all of it, block after block.
"""

import torch
from torch import Tensor

#: Numbers in the buffer of one block: large enough that reading W does not count beside the product.
BLOCK_NUMBERS = 2**23


@torch.no_grad()
def head_errors(
    states: Tensor, targets: Tensor, *, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Losses of the targets and their gradients with respect to the states.

    Args:
        states: `[S, D]` final-normed hidden states, of any dtype.
        targets: `[S]` token ids, where the states are.
        weight: `[V, D]` of the head, where the states are.
        bias: `[V]`, or None.

    Returns:
        Losses `[S]` in nats and output errors `[S, D]`, float32.
    """
    states, weight = states.float(), weight.float()
    block = max(1, BLOCK_NUMBERS // len(weight))
    buffer = states.new_empty(min(block, len(states)), len(weight))
    losses, errors = states.new_empty(len(states)), torch.empty_like(states)
    for start in range(0, len(states), block):
        part = slice(start, start + block)
        wanted = targets[part, None]
        logits = torch.mm(states[part], weight.T, out=buffer[: len(wanted)])
        if bias is not None:
            logits += bias
        logits -= logits.amax(dim=1, keepdim=True)
        own = logits.gather(1, wanted)
        total = logits.exp_().sum(dim=1, keepdim=True)
        losses[part] = (total.log() - own)[:, 0]
        surplus = logits.div_(total)
        surplus.scatter_add_(1, wanted, -torch.ones_like(own))
        torch.mm(surplus, weight, out=errors[part])
    return losses, errors
