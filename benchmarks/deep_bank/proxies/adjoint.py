r"""Learned adjoints: the error signal d_t^l of a lower layer, guessed from the output error e_t instead of a backward pass.

    linear:  d = e J,                                         J by ridge regression over the tokens of the training examples
    gated:   d = e J + sum_k gate_k(h, e) (v_k . e) u_k       256 gates, one hidden layer, 1,000 steps of AdamW

The true Jacobian of a token depends on what the model held there, hence the gates on h. Fitted on training examples only, never on queries.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Ridge as a share of the mean squared entry of e.
RIDGE = 1e-2
GATES = 256
STEPS, BATCH = 1000, 64
SEED = 20_261_122

#: Takes hidden states `[S, D]` and output errors `[S, D]`, gives error signals `[S, D]`.
Adjoint = Callable[[Tensor, Tensor], Tensor]


def fit_linear(_states: Tensor, signals: Tensor, errors: Tensor) -> Adjoint:
    """Ridge regression of the signals `[S, D]` on the output errors `[S, D]`."""
    weights = _ridge(errors, signals)
    return lambda _, one: one @ weights


def fit_gated(states: Tensor, signals: Tensor, errors: Tensor) -> Adjoint:
    """The ridge map and a gated correction of low rank, trained on mean squared error."""
    scale_e, scale_d = errors.std(), signals.std()
    net = _Gated(_ridge(errors, signals) * scale_e / scale_d)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    generator = torch.Generator().manual_seed(SEED)
    with torch.enable_grad():
        for _ in range(STEPS):
            batch = torch.randint(len(errors), (BATCH,), generator=generator)
            guess = net(states[batch], errors[batch] / scale_e)
            loss = (guess - signals[batch] / scale_d).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.requires_grad_(requires_grad=False)
    return lambda h, e: net(h, e / scale_e) * scale_d


class _Gated(nn.Module):
    """Works on standardised e and d."""

    def __init__(self, base: Tensor) -> None:
        super().__init__()
        width = len(base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.gate = nn.Sequential(nn.Linear(2 * width, GATES), nn.GELU(), nn.Linear(GATES, GATES))
            self.down = nn.Linear(width, GATES, bias=False)
            self.up = nn.Linear(GATES, width, bias=False)
        nn.init.zeros_(self.up.weight)  # starts as the linear map
        self.base = nn.Parameter(base.clone())

    def forward(self, states: Tensor, errors: Tensor) -> Tensor:
        """Error signals `[S, D]`."""
        gates = self.gate(torch.cat([states, errors], dim=1))
        corrected: Tensor = errors @ self.base + self.up(gates * self.down(errors))
        return corrected


def _ridge(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Ridge weights `[D, D]`, solved in float64."""
    x, y = inputs.double(), outputs.double()
    gram = x.T @ x
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weights: Tensor = torch.linalg.solve(gram, x.T @ y).float()
    return weights
