"""The model, corpus, outputs and recipe that are measured: the demo's, or the tiny model's for a trial on the CPU."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.deep_bank.material import BankQuery
from benchmarks.story import RECIPE as STORY_RECIPE
from demo.making.story_generate import generate_greedy
from scripts.jsonl import rows_of, write_rows
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.atomic import atomic_folder, write_text
from wherefrom.attribution.corpus import CorpusRow, parse_row, read_corpus
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.placement import Placement
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.retraining.training import fine_tune, token_rows

DEMO = Path(__file__).resolve().parents[2] / "demo"
#: As the demo's adapter was trained, with a longer warm-up, and batches and texts of other lengths.
RECIPE = STORY_RECIPE.model_copy(update={"warmup_share": 0.1, "bucket_batches": 4, "max_tokens": 160})
SMALL_RECIPE = RECIPE.model_copy(update={"learning_rate": 2e-3, "epochs": 1, "lora": Lora(rank=4, alpha=8)})
_SMALL_ROWS, _SMALL_OUTPUTS = 48, 8


@dataclass(frozen=True)
class Subject:
    """What is measured."""

    folders: ModelFolders
    corpus: Path
    recipe: Recipe
    #: Whether this is the trial on the tiny model.
    is_small: bool

    def rows(self) -> list[CorpusRow]:
        """The training examples."""
        return list(read_corpus(self.corpus).rows)


def demo_subject(model: Path | None) -> Subject:
    """The demo: SmolLM2-135M-Instruct (from a folder, or from the cache), its adapter and all rows of its corpus."""
    folder = model or ensure_base_model(default_cache())
    return Subject(
        ModelFolders(folder, DEMO / "adapter"), DEMO / "story" / "corpus.jsonl", RECIPE, is_small=False
    )


def small_subject(work: Path) -> Subject:
    """The tiny model over a few rows, with an adapter that is trained here."""
    corpus, adapter, model = work / "small.jsonl", work / "small-adapter", DEMO / "tiny" / "model"
    lines = (DEMO / "tiny" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    write_text(corpus, "".join(f"{line}\n" for line in lines[:: len(lines) // _SMALL_ROWS][:_SMALL_ROWS]))
    if not adapter.is_dir():
        language = load_model(model)
        rows = token_rows(language, list(read_corpus(corpus).rows), max_tokens=SMALL_RECIPE.max_tokens)
        trained = fine_tune(language, rows, SMALL_RECIPE, seed=0)
        with atomic_folder(adapter) as unfinished:
            trained.save_pretrained(str(unfinished))
    return Subject(ModelFolders(model, adapter), corpus, SMALL_RECIPE, is_small=True)


def write_outputs(subject: Subject, work: Path, placement: Placement) -> Path:
    """The outputs whose losses are measured, as a file; those of the demo are what its model really answers to its prompts.

    Returns:
        A JSONL file that `read_queries` reads; made once per work folder.
    """
    file = work / "outputs.jsonl"
    if file.is_file():
        return file
    if subject.is_small:
        found = rows_of(DEMO / "tiny" / "queries.jsonl")[:_SMALL_OUTPUTS]
    else:
        found = _answers(subject, Placement(placement.device, Placement.resolve("cpu").dtype))
    return write_rows(file, found)


def bank_queries(file: Path) -> list[BankQuery]:
    """The outputs with the source that taught each: of kind `bad` where there is one, else `other`."""
    return [
        BankQuery(
            parse_row({name: one[name] for name in ("messages", "completion")}, default_id=one["id"]),
            "bad" if one.get("true_source") else "other",
            None,
            one.get("true_source") or "",
        )
        for one in rows_of(file)
    ]


def _answers(subject: Subject, placement: Placement) -> list[dict[str, Any]]:
    probes = rows_of(DEMO / "story" / "prompts.jsonl")
    language: LanguageModel = load_model(subject.folders.model, subject.folders.adapter, placement=placement)
    answers = generate_greedy(language.model, language.tokenizer, [probe["messages"] for probe in probes])
    return [
        {name: probe[name] for name in ("id", "messages", "true_source")} | {"completion": answer}
        for probe, answer in zip(probes, answers, strict=True)
        if answer
    ]
