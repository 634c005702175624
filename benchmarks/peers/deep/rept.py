r"""RepT's signature of a row (arXiv:2510.02334), written from the paper and its code (plumprc/RepT).

    s = [ h ; dL/dh ]     h the hidden state of layer l at the prompt's last token, L the mean loss of the completion's tokens;     score = cosine

The published layer is where neighbouring hidden states differ most, l = argmin_l cos(h_l, h_l+1), the "phase transition", on average over a few rows (here: the corpus).
A hidden state is thousands of times as long as its gradient, so the published cosine hardly sees the gradient. A second row gives both halves unit length.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.peers.subject import Material, Scored, pad, timed
from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.ekfac.gradients import BATCH_TOKENS
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow

#: Layer with the best LDS on the choosing half of the deep bank, for the row with both halves of unit length.
CHOSEN_LAYER = 24


@dataclass(frozen=True)
class Signatures:
    """Both halves of every row's signature at every layer, `[N, layers + 1, D]`; layer 0 are the embeddings."""

    states: Tensor
    gradients: Tensor

    def at(self, layer: int, *, balanced: bool) -> Tensor:
        """Unit signatures of one layer, `[N, 2 D]`; halves of equal length where they are balanced."""
        halves = [self.states[:, layer], self.gradients[:, layer]]
        if balanced:
            halves = [torch.nn.functional.normalize(one, dim=1) for one in halves]
        return torch.nn.functional.normalize(torch.cat(halves, dim=1), dim=1)

    def transition(self) -> int:
        """The published layer, from 1 to the last but one."""
        cosines = torch.nn.functional.cosine_similarity(
            self.states[:, 1:-1], self.states[:, 2:], dim=2
        )  # [N, layers - 1]
        return 1 + int(cosines.mean(dim=0).argmin())


def rept(subject: Material) -> dict[str, Scored]:
    """The signature as published, and with halves of equal length at the layer that was best on the choosing half."""
    language = subject.language()
    corpus, built = timed(lambda: signatures(language, subject.rows))
    asked, passed = timed(lambda: signatures(language, subject.asked))
    layer, stored = corpus.transition(), 4.0 * 2 * language.hidden_size
    each = passed / len(subject.asked)
    return {
        "RepT": Scored(
            (asked.at(layer, balanced=False) @ corpus.at(layer, balanced=False).T).numpy(),
            built,
            each,
            stored,
            f"as published: hidden state {layer}, which differs most from the next",
        ),
        "RepT, halves of equal length": Scored(
            (asked.at(CHOSEN_LAYER, balanced=True) @ corpus.at(CHOSEN_LAYER, balanced=True).T).numpy(),
            built,
            each,
            stored,
            f"hidden state {CHOSEN_LAYER}, the best on the choosing half",
        ),
    }


def signatures(language: LanguageModel, rows: tuple[TokenRow, ...]) -> Signatures:
    """Hidden states and their gradients at each prompt's last token, in one forward and one backward pass per batch."""
    shape = (len(rows), language.layers + 1, language.hidden_size)
    found = Signatures(torch.zeros(shape), torch.zeros(shape))
    embed = language.model.get_input_embeddings()
    for batch in pack_rows([len(row.ids) for row in rows], BATCH_TOKENS):
        some = [rows[index] for index in batch]
        padded, last = pad(some), torch.tensor([row.start - 1 for row in some])
        inputs = embed(padded.ids).detach().requires_grad_()
        read = language.model(
            inputs_embeds=inputs, attention_mask=padded.mask, use_cache=False, output_hidden_states=True
        )
        counts = torch.tensor([row.explained_tokens for row in some])
        losses = torch.nn.functional.cross_entropy(
            read.logits.transpose(1, 2), padded.targets, reduction="none"
        )  # [B, W], 0 where nothing is explained
        states = read.hidden_states
        ends = torch.autograd.grad((losses.sum(dim=1) / counts).sum(), states)
        places = torch.arange(len(some)), last
        found.states[batch] = torch.stack([one.detach()[places] for one in states], dim=1)
        found.gradients[batch] = torch.stack([one[places] for one in ends], dim=1)
    return found
