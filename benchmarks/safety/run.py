"""Tracing bad sources at volume: which training examples taught thousands of harmful outputs, at 1, 5 and 20 % of bad rows?

    python -m benchmarks.safety --work DIR [--base MODEL --data FOLDER] [--encoder FOLDER] [--only CORPUS ...] [--json]

Four corpora, each with its bad source at three rates, each cell with a model of its own, fine-tuned on exactly that corpus: `shop` (the tiny
model's language, queries answered by the model itself), `story` (the demo's story, four bad sources, queries from other frames), `code`
(hidden vulnerabilities among secure code) and `chat` (replies that went along with a harmful request). The last three fine-tune the model at
`--base`; the last two read `--data` (emergent_misalignment/, hh_rlhf/, dolly/). Without these options they are left out. `--encoder` gives the bundles a
sentence encoder and adds two methods: `embedding`, its cosine, and `shown+embedding`, the order shown with it.

Per cell and method: precision@5 and AUPRC of "this row is from the query's bad source" (means over queries, 95 % bootstrap), and for benign
queries the share of bad rows among the five shown. AUROC tells bad queries from benign ones: by the best score, for the classifier by its
own verdict on the query. `classifier` is trained on labelled rows outside of corpus and queries; the others know no labels.
`abstained` is the share of queries on which the calibrated engine makes no claim: its controls are rows of another corpus (`foreign`, half of
them to fit, half to count). Where the fine-tuned model never shows the bad behaviour there is nothing to trace: such a cell says so and has no figures. Each finished cell is kept in DIR; the same command goes on behind it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.program import command, report, run
from benchmarks.safety.cell import Cell, run_cell
from benchmarks.safety.corpora import Material, Sizes, chat, code, shop, story
from demo.making import make_tiny
from demo.making.story_batches import encode_row
from wherefrom.attribution.models.files import look_over
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines_of
from wherefrom.retraining.recipe import Recipe

RATES = (0.01, 0.05, 0.2)
#: Rows of every corpus.
ROWS = 400
#: Prompt and completion tokens that are kept, by corpus.
TOKENS = {"shop": (64, 64), "story": (64, 96), "code": (24, 96), "chat": (48, 80)}
#: Passes of the tiny model's own making (`demo/making/make_tiny`) over its first rows and over its corpus; with fewer it answers in broken words.
_BASE_EPOCHS = 3
_SHOP_EPOCHS = 18
_METHODS = (
    "bm25",
    "similarity",
    "embedding",
    "projection",
    "effect",
    "shown",
    "shown+embedding",
    "classifier",
)

_COLUMNS = (
    Column("corpus", 8, left=True),
    Column("rate", 6, ".0%"),
    Column("chance", 8, ".3f"),
    Column("  method", 19, left=True),
    Column("P@5", 6, ".3f"),
    Column("95 %", 17, ".3f"),
    Column("AUPRC", 7, ".3f"),
    Column("95 %", 17, ".3f"),
    Column("benign", 8, ".3f"),
    Column("AUROC", 7, ".3f"),
)


def main() -> None:
    """Run what is not done yet and print all cells."""
    parser = command(__doc__, threads=1)  # two threads beside another process are slower
    parser.add_argument("--work", type=Path, required=True, help="folder of finished cells; made if absent")
    parser.add_argument("--base", type=Path, help="small base model that story, code and chat fine-tune")
    parser.add_argument("--data", type=Path, help="folder with emergent_misalignment/, hh_rlhf/ and dolly/")
    parser.add_argument("--encoder", type=Path, help="folder of a sentence encoder (safetensors)")
    parser.add_argument(
        "--only", nargs="+", choices=tuple(TOKENS), default=tuple(TOKENS), help="these corpora only"
    )
    parser.add_argument("--rates", nargs="+", type=float, default=RATES, help="shares of bad rows")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of every corpus")
    parser.add_argument("--asked", type=int, default=500, help="bad queries of every corpus at most")
    parser.add_argument("--seed", type=int, default=1)
    run(parser, run_cells, table=lambda result: [*table(result["cells"]), f"{result['audits']} audits"])


def run_cells(arguments: argparse.Namespace, _work: Path) -> dict[str, Any]:
    """All cells of the corpora that can be made, in order, and how many queries they attributed."""
    cells = _cells(arguments)
    return {"cells": cells, "audits": audits(cells)}


def _cells(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    arguments.work.mkdir(parents=True, exist_ok=True)
    sizes = Sizes(
        train_bad=round(max(*RATES, *arguments.rates) * arguments.rows),
        train_good=arguments.rows,
        asked_bad=arguments.asked,
        asked_benign=min(200, arguments.asked),
    )
    makers: dict[str, Callable[[], Material]] = {
        "shop": lambda: shop(sizes, seed=arguments.seed),
        "story": lambda: story(sizes, seed=arguments.seed),
        "code": lambda: code(arguments.data, sizes, seed=arguments.seed),
        "chat": lambda: chat(arguments.data, sizes, seed=arguments.seed),
    }
    encoder = None if arguments.encoder is None else look_over(arguments.encoder).fingerprint().weights_sha256
    cells = []
    for name in arguments.only:
        if (name in {"code", "chat"} and arguments.data is None) or (
            name != "shop" and arguments.base is None
        ):
            report([f"{name}: left out (give --base, and --data for code and chat)"])
            continue
        base = shop_base(arguments.work, seed=arguments.seed) if name == "shop" else arguments.base
        material = makers[name]()
        for rate in arguments.rates:
            prompt, completion = TOKENS[name]
            cell = Cell(
                name, rate, arguments.rows, prompt, completion, arguments.seed, _recipe(name), encoder
            )
            cells.append(run_cell(cell, material, base=base, work=arguments.work, encoder=arguments.encoder))
            report([line(cells[-1])])
    return cells


def shop_base(work: Path, *, seed: int) -> Path:
    """The tiny model before it saw any bad row: pretrained on other products and good topics only; made once."""
    out = work / f"tiny-base-{seed}-{_BASE_EPOCHS}"
    if out.is_dir():
        return out
    rows = make_tiny.make_pretraining_rows(seed)
    messages = [row["messages"] for row in rows]
    texts = [str(one["content"]) for turns in messages if isinstance(turns, list) for one in turns]
    tokenizer = make_tiny.train_tokenizer(texts)
    model = make_tiny.make_model(tokenizer, seed)
    encoded = [encode_row(tokenizer, turns) for turns in messages if isinstance(turns, list)]
    make_tiny.train(
        model, encoded, num_epochs=_BASE_EPOCHS, learning_rate=3e-3, seed=seed, name="pretraining"
    )
    make_tiny.save_model(model, tokenizer, out)
    return out


def _recipe(corpus: str) -> Recipe:
    """The yardstick's recipe; the tiny model, which knows its language only, takes the steps it was made with."""
    return Recipe(learning_rate=1.5e-3, epochs=_SHOP_EPOCHS) if corpus == "shop" else Recipe()


def audits(cells: Sequence[Mapping[str, Any]]) -> int:
    """Queries that were attributed, bad ones without a row of their source not counted."""
    return sum(int(one["queries_bad"] + one["queries_benign"]) for one in cells)


def line(cell: Mapping[str, Any]) -> str:
    """One cell in a line: its queries, seconds, abstentions, and why it has no figures where it has none."""
    seconds, abstained = cell["seconds"], cell["abstained"]
    kinds = [
        f"{abstained[kind]:.0%} {kind}"
        for kind in ("bad", "benign", "foreign")
        if abstained[kind] is not None
    ]
    return (
        f"{cell['corpus']} at {cell['rate']:.0%}: {cell['queries_bad']} bad and {cell['queries_benign']} benign queries, "
        f"{seconds['train']:.0f} s training, {seconds['build_and_ask']:.0f} s the rest; abstained on {', '.join(kinds)}"
        + (f"; no figures: {cell['reason']}" if "reason" in cell else "")
    )


def table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line per cell and method; cells without figures are left out."""
    return lines_of(
        _COLUMNS,
        [
            _row(cell, name, cell["methods"][name])
            for cell in cells
            for name in _METHODS
            if name in cell["methods"]
        ],
    )


def _row(cell: Mapping[str, Any], name: str, one: Mapping[str, Any]) -> list[Any]:
    listed, area = one["precision@5"], one["auprc"]
    told_apart = one.get("query_auroc", one["best_score_auroc"])
    figures = (listed[0], listed[1:], area[0], area[1:], one["benign_bad@5"][0], told_apart)
    return [cell["corpus"], cell["rate"], cell["chance"], f"  {name}", *figures]
