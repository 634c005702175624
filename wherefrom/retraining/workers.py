"""Makes a bank from files, in one process or in several that each train every n-th model.

Each process loads the base model once. torch uses as many threads per process as it was told; with several processes give each one
thread.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import torch

from wherefrom.attribution.bundles.options import rendering_of
from wherefrom.attribution.corpus import ReadAs, read_corpus
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.placement import CPU, Placement
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.attribution.offline import read_queries
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.bank import Bank, load_bank, open_bank, train_model
from wherefrom.retraining.bank_content import BankContent, queries_sha256
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.runs import RunProgress
from wherefrom.retraining.training import token_rows


@dataclass(frozen=True)
class BankJob:
    """What a bank is made from, as files."""

    model_dir: Path
    adapter_dir: Path | None
    corpus: Path
    #: Query files; each is known in the bank by its name without the ending.
    queries: tuple[Path, ...]
    recipe: Recipe
    out: Path
    models: int = 64
    share: float = 0.5
    #: Threads of torch in each process; 0 lets torch decide.
    threads: int = 0
    #: Where the models are trained; several workers take the GPUs in turn.
    placement: Placement = CPU
    #: How the corpus is read; the same as for the bundle that the bank judges.
    read: ReadAs = field(default_factory=ReadAs)
    #: How its texts and the queries are rendered; the same as for that bundle.
    rendering: RenderingRule = field(default_factory=RenderingRule)


@dataclass(frozen=True)
class _Loaded:
    language: LanguageModel
    rows: list[TokenRow]
    queries: dict[str, list[TokenRow]]
    content: BankContent


def run_job(job: BankJob, *, workers: int = 1, progress: RunProgress) -> Bank:
    """Train what the bank lacks and load it.

    Raises:
        ConfigurationError: two query files have one name, or the folder holds another bank.
        InvalidRecord, EmptyCorpus, UnusableModel, UnsafeWeights: a file cannot be used.
    """
    names = [file.stem for file in job.queries]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"query files must have different names, not {', '.join(names)}")
    loaded = _load(job)
    open_bank(
        loaded.language,
        loaded.rows,
        queries=loaded.queries,
        recipe=job.recipe,
        folder=job.out,
        share=job.share,
    )
    numbers = list(range(job.models))
    if workers == 1:
        for number in numbers:
            _train_one(job, loaded, number)
            progress(number + 1, job.models)
    else:
        context = multiprocessing.get_context("spawn")
        places = context.SimpleQueue()
        for number in range(workers):
            places.put(job.placement.for_process(number, workers))
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start, initargs=(job, places)
        ) as pool:
            waiting = [pool.submit(_train_in_process, number) for number in numbers]
            for done, future in enumerate(as_completed(waiting), start=1):
                future.result()
                progress(done, job.models)
    return load_bank(job.out)


def _load(job: BankJob) -> _Loaded:
    if job.threads:
        torch.set_num_threads(job.threads)
    language = load_model(job.model_dir, job.adapter_dir, placement=job.placement)
    corpus = read_corpus(job.corpus, how=job.read)
    rule = rendering_of(language, corpus, job.rendering)
    language = language if rule is None else language.with_rule(rule)
    rows = token_rows(language, corpus.rows, max_tokens=job.recipe.max_tokens)
    asked = {file.stem: read_queries(file)[0] for file in job.queries}
    queries = {
        name: token_rows(language, some, max_tokens=job.recipe.max_tokens) for name, some in asked.items()
    }
    digests = {name: queries_sha256(some) for name, some in asked.items()}
    return _Loaded(language, rows, queries, BankContent(corpus.sha256, digests))


def _train_one(job: BankJob, loaded: _Loaded, number: int) -> None:
    train_model(
        loaded.language,
        loaded.rows,
        queries=loaded.queries,
        recipe=job.recipe,
        folder=job.out,
        number=number,
        share=job.share,
        content=loaded.content,
    )


class _Process:
    """What a worker process holds; set once when it starts."""

    job: BankJob
    loaded: _Loaded


def _start(job: BankJob, places: "SimpleQueue[Placement]") -> None:
    job = replace(job, placement=places.get())
    _Process.job, _Process.loaded = job, _load(job)


def _train_in_process(number: int) -> None:
    _train_one(_Process.job, _Process.loaded, number)
