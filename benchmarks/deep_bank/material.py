"""Rows, queries and plan of the deep bank, as they are committed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from scripts.jsonl import rows_of
from wherefrom.atomic import write_text
from wherefrom.attribution.corpus import CorpusRow, parse_row
from wherefrom.errors import InvalidRecord
from wherefrom.records import sha256_of_json
from wherefrom.retraining.recipe import Lora, Recipe

FOLDER = Path(__file__).resolve().parent
PAIRS, REPEATED_PAIRS = 32, 8
#: Seeds of the first weights and the order of the rows: of all halves, and of those that are trained twice.
SEEDS = (0, 1)
#: Seed of the halves and of the split.
PLAN_SEED = 20_261_126

#: Three epochs of 16 steps: warm-up over 4 steps, then linear decay.
RECIPE = Recipe(
    learning_rate=1e-3,
    betas=(0.9, 0.999),
    warmup_share=4 / 48,
    batch_size=6,
    epochs=3,
    bucket_batches=4,
    lora=Lora(rank=16, alpha=32),
    max_tokens=60,
)
#: All weights in place of an adapter, for fewer rows: six epochs of four steps.
FULL_RECIPE = Recipe(
    learning_rate=1e-4,
    betas=(0.9, 0.999),
    warmup_share=4 / 24,
    batch_size=6,
    epochs=6,
    bucket_batches=4,
    max_tokens=60,
)
#: Full fine-tunes take the first subjects with all their rows, and so many rows of these sources: 24 in all.
FULL_SUBJECTS = 5
FULL_SOURCES = {"crm-export-march": 5, "instructions": 4}

Part = Literal["choose", "report"]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class BankQuery:
    """An output whose loss is measured."""

    row: CorpusRow
    #: `reworded`, `other`, `instruction` or `bad`.
    kind: str
    #: Place of the row that states the fact; None where there is no such row.
    cause: int | None
    #: Subject or source of the rows that it belongs to.
    source: str


@dataclass(frozen=True)
class Run:
    """One training on a half of the rows at a seed."""

    half: int
    seed: int

    @property
    def name(self) -> str:
        """The run's name in files."""
        return f"h{self.half:02d}-s{self.seed}"


@dataclass(frozen=True)
class Plan:
    """What is trained, and on what a choice may look."""

    #: `[2 * PAIRS, N]`: halves 2p and 2p + 1 complement each other.
    halves: Mask
    #: Pairs whose halves are trained again at the second seed.
    repeated: tuple[int, ...]
    #: Pairs and queries (by place) to choose on; the others are to report on.
    choose_pairs: tuple[int, ...]
    choose_queries: tuple[int, ...]

    def runs(self) -> list[Run]:
        """All trainings in the order in which they are made: pairs of both parts in turn, repeated ones right behind themselves."""
        report = [pair for pair in range(len(self.halves) // 2) if pair not in self.choose_pairs]
        order = [pair for both in zip(self.choose_pairs, report, strict=True) for pair in both]
        found: list[Run] = []
        for pair in order:
            seeds = SEEDS if pair in self.repeated else SEEDS[:1]
            found += [Run(half, seed) for seed in seeds for half in (2 * pair, 2 * pair + 1)]
        return found

    def part_of_half(self, half: int) -> Part:
        """The part that a half belongs to."""
        return "choose" if half // 2 in self.choose_pairs else "report"

    def queries_of(self, part: Part, count: int) -> list[int]:
        """Places of a part's queries among `count`."""
        return [place for place in range(count) if (place in self.choose_queries) == (part == "choose")]


def draw_plan(rows: int, kinds: Sequence[str]) -> Plan:
    """Halves in complementary pairs, and a split that takes half of the queries of every kind."""
    random = np.random.default_rng(PLAN_SEED)
    halves = complementary_halves(random, rows, pairs=PAIRS)
    shuffled = random.permutation(PAIRS).tolist()
    choose = shuffled[: PAIRS // 2]
    repeated = choose[: REPEATED_PAIRS // 2] + shuffled[PAIRS // 2 :][: REPEATED_PAIRS // 2]
    queries: list[int] = []
    for kind in dict.fromkeys(kinds):
        places = random.permutation([place for place, one in enumerate(kinds) if one == kind]).tolist()
        queries += places[: len(places) // 2]
    return Plan(halves, tuple(sorted(repeated)), tuple(sorted(choose)), tuple(sorted(queries)))


def complementary_halves(random: np.random.Generator, rows: int, *, pairs: int) -> Mask:
    """Halves `[2 P, N]`, drawn; 2p and 2p + 1 complement each other."""
    halves = np.zeros((2 * pairs, rows), dtype=np.bool_)
    for pair in range(pairs):
        halves[2 * pair, random.choice(rows, size=rows // 2, replace=False)] = True
        halves[2 * pair + 1] = ~halves[2 * pair]
    return halves


def read_rows() -> list[CorpusRow]:
    """The training examples."""
    return [parse_row(one, default_id=one["id"]) for one in rows_of(FOLDER / "rows.jsonl")]


def read_bank_queries(rows: Sequence[CorpusRow]) -> list[BankQuery]:
    """The outputs whose losses are measured, in order."""
    places = {row.example_id: place for place, row in enumerate(rows)}
    return [
        BankQuery(
            parse_row({name: one[name] for name in ("messages", "completion")}, default_id=one["id"]),
            one["kind"],
            None if one["cause"] is None else places[one["cause"]],
            one["source"],
        )
        for one in rows_of(FOLDER / "queries.jsonl")
    ]


def read_plan() -> Plan:
    """The committed plan."""
    content = json.loads((FOLDER / "plan.json").read_text(encoding="utf-8"))
    halves = np.array([[mark == "1" for mark in line] for line in content["halves"]], dtype=np.bool_)
    return Plan(
        halves,
        tuple(content["repeated_pairs"]),
        tuple(content["choose_pairs"]),
        tuple(content["choose_queries"]),
    )


def write_plan(plan: Plan) -> None:
    """Write the plan, once; halves as rows of 0 and 1.

    Raises:
        InvalidRecord: there is another plan already, to which losses may belong.
    """
    file = FOLDER / "plan.json"
    content = {
        "halves": ["".join("01"[int(kept)] for kept in half) for half in plan.halves],
        "repeated_pairs": list(plan.repeated),
        "choose_pairs": list(plan.choose_pairs),
        "choose_queries": list(plan.choose_queries),
    }
    if file.exists() and json.loads(file.read_text(encoding="utf-8")) != content:
        raise InvalidRecord(f"{file}: holds another plan; what was measured under it would be worth nothing")
    write_text(file, json.dumps(content, indent=1) + "\n")


@dataclass(frozen=True)
class Material:
    """Rows, queries and plan of one setting, belonging together by place."""

    rows: list[CorpusRow]
    queries: list[BankQuery]
    plan: Plan


def read_lora_material() -> Material:
    """All that is committed."""
    rows = read_rows()
    return Material(rows, read_bank_queries(rows), read_plan())


def read_full_material() -> Material:
    """The part of the rows that full fine-tunes take, with the queries about them and a plan drawn the same way."""
    whole = read_lora_material()
    kept = full_rows([row.source for row in whole.rows])
    places = {row: place for place, row in enumerate(kept)}
    sources = {whole.rows[row].source for row in kept}
    queries = [
        replace(one, cause=None if one.cause is None else places[one.cause])
        for one in whole.queries
        if one.source in sources
    ]
    plan = draw_plan(len(kept), [one.kind for one in queries])
    return Material([whole.rows[row] for row in kept], queries, plan)


def full_rows(sources: Sequence[str]) -> list[int]:
    """Places of the rows that full fine-tunes take, by the sources of all rows."""
    subjects = list(dict.fromkeys(sources))[:FULL_SUBJECTS]  # the facts stand first
    wanted = dict.fromkeys(subjects, len(sources)) | FULL_SOURCES
    kept: list[int] = []
    for source, count in wanted.items():
        kept += [place for place, one in enumerate(sources) if one == source][:count]
    return sorted(kept)


@dataclass(frozen=True)
class Setting:
    """One way to train the bank's models, and where their losses are committed."""

    name: Literal["lora", "full"]
    recipe: Recipe
    losses: Path
    read: Callable[[], Material]


LORA = Setting("lora", RECIPE, FOLDER / "losses.npz", read_lora_material)
FULL = Setting("full", FULL_RECIPE, FOLDER / "losses_full.npz", read_full_material)
SETTINGS = {one.name: one for one in (LORA, FULL)}


def bank_sha256(setting: Setting = LORA) -> str:
    """Hash of all that decides a run's numbers."""
    files = [
        (FOLDER / name).read_text(encoding="utf-8") for name in ("rows.jsonl", "queries.jsonl", "plan.json")
    ]
    recipe = setting.recipe.model_dump(mode="json", exclude_unset=True)  # a later release may add fields
    part = [] if setting.name == "lora" else [[row.example_id for row in setting.read().rows]]
    return sha256_of_json([recipe, list(SEEDS), *files, *part])
