r"""What speaks for one citation, in numbers that can be compared between queries.

The order shown standardises its parts within a query, so its best score says nothing about whether the query has a cause in the corpus at all. These
features are raw. With W_p, W_c the distinct words of the query's prompt and completion, V those of the training example, and the rarity of a word
r(w) = ln(1 + (N - n_w + .5) / (n_w + .5)), n_w of N examples holding it (the idf of BM25; a word that no example holds is the rarest):

    share(A, V) = sum_{w in A & V} r(w) / sum_{w in A} r(w)

`completion_share` = share(W_c, V), `prompt_share` = share(W_p, V), `example_share` = share(V_c, W), `rare_share` = the same over the three rarest words of the
completion, `bm25_share` = BM25 over the sum of r over the query's words (its upper bound), `run_share` = longest common run of words over the completion's length,
cosines as they are, `agreement` = in how many of the lists BM25, similarity, influence the example stands first (thirds), `lead` = how far the order
shown puts it before the best other example, `loss` = the query's mean loss in nats (what a model was taught it says with less).
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.retrieval.folding import fold

#: The columns of the features, in order; stored with every calibration.
FEATURES = (
    "completion_share",
    "prompt_share",
    "example_share",
    "rare_share",
    "bm25_share",
    "run_share",
    "similarity",
    "influence",
    "retrieval",
    "agreement",
    "lead",
    "loss",
)
#: Distances of a query from the corpus, in order: ln of the mean squared whitened hidden state and error signal, minus the mean
#: of its five strongest influence scores.
DISTANCES = ("state", "error", "influence")
_STRONGEST = 5
#: Words of the completion that count as its rare ones.
RARE_WORDS = 3

Features = npt.NDArray[np.float64]
Parts = npt.NDArray[np.float32]
Rarity = Callable[[str], float]
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class CandidateParts:
    """Parts of the score of all candidates of one query, arrays `[C]`."""

    shown: Parts
    bm25: Parts
    similarity: Parts
    influence: Parts
    retrieval: Parts


def words_of(text: str) -> list[str]:
    """Words in order, folded and in lower case, as BM25 counts them."""
    return _WORD.findall(fold(text).lower())


def evidence_features(
    prompt: str,
    completion: str,
    *,
    examples: Sequence[tuple[str, str]],
    places: Sequence[int],
    parts: CandidateParts,
    loss: float,
    rarity: Rarity,
) -> Features:
    """Features of some citations of one query, float64 `[K, len(FEATURES)]`.

    Args:
        prompt: the query's turns before the completion.
        completion: what the model said.
        examples: prompt and completion of each cited training example.
        places: where each stands among the candidates.
        parts: scores of all candidates.
        loss: mean loss of the completion, nats.
        rarity: r(w) of the corpus.
    """
    asked = _QueryWords.read(prompt, completion, rarity)
    lexical = [_lexical(asked, example, rarity) for example in examples]
    bound = sum(map(rarity, asked.text))
    at = np.asarray(places, dtype=np.int64)
    columns = [
        parts.bm25[at] / max(bound, 1e-9),
        [_run_share(asked.completion, words_of(example[1])) for example in examples],
        parts.similarity[at],
        parts.influence[at],
        parts.retrieval[at],
        np.mean([_first(one)[at] for one in (parts.bm25, parts.similarity, parts.influence)], axis=0),
        _lead(parts.shown)[at],
        np.full(len(at), loss),
    ]
    return np.column_stack([np.array(lexical, dtype=np.float64).reshape(len(at), 4), *columns])


def distances_of(state: float, error: float, influence: Parts) -> Features:
    """How far a query lies from the corpus, by each of `DISTANCES`, float64 `[3]`.

    Whitened signals have about unit moments over the corpus, so their squared length is a Mahalanobis distance.

    Args:
        state: mean over tokens of |a~|^2.
        error: mean over tokens of |b~|^2.
        influence: scores of the candidates, `[C]`.
    """
    nearest = float(np.sort(influence)[-_STRONGEST:].mean()) if len(influence) else -1.0
    return np.array([math.log(max(state, 1e-12)), math.log(max(error, 1e-12)), -nearest])


@dataclass(frozen=True)
class _QueryWords:
    """The query's words."""

    completion: list[str]
    prompt_words: frozenset[str]
    completion_words: frozenset[str]
    #: All words with their repetitions.
    text: list[str]
    #: The rarest words of the completion.
    rare: frozenset[str]

    @classmethod
    def read(cls, prompt: str, completion: str, rarity: Rarity) -> "_QueryWords":
        before, said = words_of(prompt), words_of(completion)
        rarest = sorted(set(said), key=lambda word: (-rarity(word), word))[:RARE_WORDS]
        return cls(said, frozenset(before), frozenset(said), before + said, frozenset(rarest))


def _lexical(
    asked: _QueryWords, example: tuple[str, str], rarity: Rarity
) -> tuple[float, float, float, float]:
    """Completion, prompt, example and rare share of one example."""
    answer = frozenset(words_of(example[1]))
    held = answer | frozenset(words_of(example[0]))
    return (
        _share(asked.completion_words, held, rarity),
        _share(asked.prompt_words, held, rarity),
        _share(answer, asked.prompt_words | asked.completion_words, rarity),
        _share(asked.rare, held, rarity),
    )


def _share(words: frozenset[str], held: frozenset[str], rarity: Rarity) -> float:
    whole = math.fsum(map(rarity, words))
    return math.fsum(map(rarity, words & held)) / whole if whole > 0 else 0.0


def _run_share(words: Sequence[str], others: Sequence[str]) -> float:
    """Longest common run of words over the number of the query's; two rows of dynamic programming."""
    best, above = 0, [0] * (len(others) + 1)
    for word in words:
        row = [0] * (len(others) + 1)
        for place, other in enumerate(others, start=1):
            if word == other:
                row[place] = above[place - 1] + 1
        best, above = max(best, *row), row
    return best / len(words) if words else 0.0


def _first(scores: Parts) -> Features:
    """1 at the best score, else 0; all 0 where the scores do not vary."""
    first: Features = ((scores == scores.max()) & (scores.max() > scores.min())).astype(np.float64)
    return first


def _lead(shown: Parts) -> Features:
    """Each score minus the best of the others; 0 for a lone candidate."""
    if len(shown) < 2:
        return np.zeros(len(shown))
    second, best = np.sort(shown.astype(np.float64))[-2:]
    lead: Features = np.where(np.arange(len(shown)) == int(shown.argmax()), shown - second, shown - best)
    return lead
