r"""A plain classifier of sources: logistic regression on bags of words, the baseline that needs labels and no model.

    P(c | x) = softmax_c(W f(x) + b),    f(x) = unit(idf-weighted 0/1 word vector),    W by full-batch Adam with weight decay
    score(q, z) = sum_c P(c | q) P(c | z)                                  do query and row look like one source?

It is trained on labelled rows that are in neither the corpus nor the queries. An auditor seldom has such labels; where he has, it may win.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_WORD = re.compile(r"(?u)\w+")
#: Steps of full-batch Adam, its learning rate and weight decay.
STEPS = 200
LEARNING_RATE = 0.1
WEIGHT_DECAY = 1e-3


class WordClassifier:
    """Multinomial logistic regression over words."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        """Train on labelled texts.

        Args:
            texts: Prompt and completion of each labelled row.
            labels: The source of each.
        """
        self.classes = tuple(sorted(set(labels)))
        counts = Counter(word for text in texts for word in set(_words(text)))
        self._columns = {word: index for index, word in enumerate(sorted(counts))}
        self._idf = torch.tensor(
            [np.log(1 + len(texts) / counts[word]) for word in self._columns], dtype=torch.float32
        )
        self._layer = self._fit(texts, torch.tensor([self.classes.index(label) for label in labels]))

    def _fit(self, texts: Sequence[str], targets: Tensor) -> torch.nn.Linear:
        layer = torch.nn.Linear(len(self._columns), len(self.classes))
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.Adam(layer.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        features = self._features(texts)  # [n, V]
        for _ in range(STEPS):
            loss = torch.nn.functional.cross_entropy(layer(features), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return layer.requires_grad_(requires_grad=False)

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """P(source | text), float32 `[len(texts), len(classes)]`, columns in the order of `classes`."""
        found: npt.NDArray[np.float32] = torch.softmax(self._layer(self._features(texts)), dim=1).numpy()
        return found

    def _features(self, texts: Sequence[str]) -> Tensor:
        table = torch.zeros(len(texts), len(self._columns))
        for row, text in enumerate(texts):
            known = [self._columns[word] for word in set(_words(text)) if word in self._columns]
            table[row, known] = self._idf[known]
        return torch.nn.functional.normalize(table, dim=1)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
