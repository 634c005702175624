"""A bank: many models trained again on random subsets of the corpus, and what each of them loses where.

Model m saw the rows S_m, a random share alpha of the corpus drawn without replacement from the generator of seed m, and was trained on
them alone, in an order of its own (also seed m). Stored are the mean losses per completion token of the queries and of all training
examples, in nats. That is the measured truth behind LDS (`attribution.ranking_metrics`) and effects in nats.

    bank.json              what the bank belongs to: recipe, base model, corpus, queries, share
    model-000.npz          kept [N] bool, corpus_loss [N], query_loss.NAME [Q] float32, seconds, digests of corpus and queries (`bank_content`)

`load_bank` also reads one `.npz` of many models with `kept [M, N]`, `corpus_loss [M, N]`, `query_loss [M, Q]` and any
`NAME_query_loss [M, Q]`.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.array_files import write_arrays
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError, InvalidRecord
from wherefrom.retraining.bank_content import BankContent, is_content
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.runs import RunProgress, check_mark, query_key
from wherefrom.retraining.training import fine_tune, mean_losses

Losses = npt.NDArray[np.float32]

MARK = "bank.json"
_QUERY = "query_loss."


@dataclass(frozen=True)
class Bank:
    """M retrained models over N training examples."""

    #: `[M, N]`: which rows each model saw.
    kept: npt.NDArray[np.bool_]
    #: By name of the query file: `[M, Q]`, nats.
    query_losses: Mapping[str, Losses]
    #: `[M, N]`, nats.
    corpus_losses: Losses
    #: `[M]` seconds of each training; NaN where they were not kept.
    seconds: npt.NDArray[np.float64]
    #: What rows and queries said.
    content: BankContent = field(default_factory=BankContent)

    def __len__(self) -> int:
        return len(self.kept)

    def losses(self, name: str) -> Losses:
        """Losses `[M, Q]` of one query file.

        Raises:
            ConfigurationError: the bank did not measure these queries.
        """
        if name not in self.query_losses:
            raise ConfigurationError(
                f"the bank holds no losses of {name!r}, only of {', '.join(sorted(self.query_losses)) or 'none'}"
            )
        return self.query_losses[name]


def subset(examples: int, share: float, *, seed: int) -> npt.NDArray[np.bool_]:
    """Which of the corpus' rows a model sees, `[N]`; always round(share * N) of them.

    Raises:
        ConfigurationError: the share keeps no row, or every row.
    """
    count = round(share * examples)
    if not 0 < count < examples:
        raise ConfigurationError(
            f"alpha {share} keeps {count} of {examples} training examples; a bank needs subsets between none and all"
        )
    kept = np.zeros(examples, dtype=np.bool_)
    kept[np.random.default_rng(seed).choice(examples, size=count, replace=False)] = True
    return kept


def make_bank(
    language: LanguageModel,
    rows: Sequence[TokenRow],
    *,
    queries: Mapping[str, Sequence[TokenRow]],
    recipe: Recipe,
    folder: Path,
    models: int = 64,
    share: float = 0.5,
    progress: RunProgress | None = None,
) -> Bank:
    """Train the models that the folder lacks and load the bank.

    Args:
        language: The base model.
        rows: The corpus as tokens, in order.
        queries: Query files by name, as tokens.
        recipe: How each model is trained.
        folder: One file per model; a bank that was stopped goes on, one that is whole is only loaded.
        models: How many models the bank shall have.
        share: Share alpha of the corpus that each model sees.
        progress: Told about each model.

    Raises:
        ConfigurationError: the folder holds a bank of other things, or the subsets are empty.
        UnusableModel: a training diverged.
    """
    open_bank(language, rows, queries=queries, recipe=recipe, folder=folder, share=share)
    for number in range(models):
        train_model(language, rows, queries=queries, recipe=recipe, folder=folder, number=number, share=share)
        if progress is not None:
            progress(number + 1, models)
    return load_bank(folder)


def open_bank(
    language: LanguageModel,
    rows: Sequence[TokenRow],
    *,
    queries: Mapping[str, Sequence[TokenRow]],
    recipe: Recipe,
    folder: Path,
    share: float,
) -> None:
    """Make the folder of a bank, or check that it belongs to the same things.

    Raises:
        ConfigurationError: it does not; the text names what differs.
    """
    subset(len(rows), share, seed=0)
    asked = {
        name: hashlib.sha256("".join(query_key(row) for row in some).encode()).hexdigest()
        for name, some in sorted(queries.items())
    }
    check_mark(folder / MARK, recipe=recipe, language=language, rows=rows, queries=asked, share=share)


def train_model(
    language: LanguageModel,
    rows: Sequence[TokenRow],
    *,
    queries: Mapping[str, Sequence[TokenRow]],
    recipe: Recipe,
    folder: Path,
    number: int,
    share: float,
    content: BankContent | None = None,
) -> bool:
    """Train and save one model of an open bank, with what rows and queries say (`content`) for whoever uses the bank.

    Returns:
        Whether it was trained now; False where its file is there.
    """
    file = folder / f"model-{number:03d}.npz"
    if file.is_file():
        return False
    kept, started = subset(len(rows), share, seed=number), time.monotonic()
    model = fine_tune(language, [rows[index] for index in np.flatnonzero(kept).tolist()], recipe, seed=number)
    arrays: dict[str, Any] = {f"{_QUERY}{name}": mean_losses(model, some) for name, some in queries.items()}
    write_arrays(
        file,
        kept=kept,
        corpus_loss=mean_losses(model, rows),
        seconds=np.float64(time.monotonic() - started),
        **arrays,
        **(content or BankContent()).arrays(),
    )
    return True


def load_bank(path: Path) -> Bank:
    """Read a bank from its folder, or from one `.npz` of many models.

    Raises:
        InvalidRecord: there is no bank, or its files do not fit together.
    """
    files = sorted(path.glob("model-*.npz")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise InvalidRecord(f"{path}: not a bank (a folder of model-NNN.npz files, or one .npz file)")
    parts = [_read(file) for file in files]
    names, shape = set(parts[0].query_losses), parts[0].kept.shape[1]
    for file, part in zip(files, parts, strict=True):
        if set(part.query_losses) != names or part.kept.shape[1] != shape:
            raise InvalidRecord(f"{file}: other queries or another corpus than {files[0].name}")
    return Bank(
        kept=np.concatenate([part.kept for part in parts]),
        query_losses={name: np.concatenate([part.query_losses[name] for part in parts]) for name in names},
        corpus_losses=np.concatenate([part.corpus_losses for part in parts]),
        seconds=np.concatenate([part.seconds for part in parts]),
        content=BankContent.joined(
            {str(file): part.content for file, part in zip(files, parts, strict=True)}
        ),
    )


def _read(file: Path) -> Bank:
    try:
        with np.load(file, allow_pickle=False) as content:
            digests = BankContent.of_arrays(
                {name: content[name] for name in filter(is_content, content.files)}
            )
            arrays = {name: np.atleast_2d(content[name]) for name in content.files if not is_content(name)}
    except (OSError, ValueError) as error:
        raise InvalidRecord(f"{file}: not readable as a bank: {error}") from error
    lacking = [name for name in ("kept", "corpus_loss") if name not in arrays]
    if lacking:
        raise InvalidRecord(f"{file}: lacks {', '.join(lacking)}")
    kept = arrays["kept"].astype(np.bool_)
    losses = {
        _query_name(name): values.astype(np.float32)
        for name, values in arrays.items()
        if "query_loss" in name
    }
    wrong = [name for name, values in losses.items() if len(values) != len(kept)]
    if wrong or arrays["corpus_loss"].shape != kept.shape:
        raise InvalidRecord(
            f"{file}: losses of {', '.join(wrong) or 'the corpus'} do not fit `kept` {kept.shape}"
        )
    seconds = arrays["seconds"].reshape(-1) if "seconds" in arrays else np.full(len(kept), np.nan)
    corpus_loss = arrays["corpus_loss"].astype(np.float32)
    return Bank(kept, losses, corpus_loss, seconds.astype(np.float64), digests)


def _query_name(array: str) -> str:
    """`query_loss.NAME` in our files; `query_loss` and `teacher_query_loss` in one file of many models."""
    return array.removeprefix(_QUERY) if array.startswith(_QUERY) else array.replace("query_loss", "queries")
