"""Findings: how long 10,000 outputs take, and whether a finding holds outputs of one behaviour of the demo.

    python -m benchmarks.findings                       # time: 10,000 made-up outputs in SQLite, grouped and named as the sweeper does
    python -m benchmarks.findings --bundle DIR [--json] # and purity: the demo's prompts, answered by its model and attributed by its bundle

An output counts where its answer shows the behaviour that its prompt is after (`demo/making/story_rules.py`); benign answers and those that show nothing stand
beside it as they do in production, and count for nothing. Half of the behaviours, drawn by seed, choose the least similarity; the other half is reported. The outputs come in
random order, some at a time, so that joining and founding are both measured.

- purity: the share of outputs in findings that are of the commonest behaviour of their finding
- strict purity: the same with every output beside them in these findings counted as wrong; a lower bound, for some of these show the behaviour in other words
- inverse purity: the share that stand in the finding that holds most of their behaviour
- completeness: 1 - H(finding | behaviour) / H(finding)
- covered: the share of outputs that stand in any finding
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, text, update

from benchmarks.desk_filling import fill
from benchmarks.program import command, report, run
from db.grouping import findings
from db.grouping.finding_work import CITED, EXEMPLARS, LOOSE, AlikeOutput, Grouped, Round
from db.models import Audit, OutputVector
from db.session import Database
from demo.making.story_generate import greedy_answers
from demo.making.story_rules import rule_of
from scripts.jsonl import rows_of
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.atomic import write_text
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.offline import attribute_all, prepare_all
from wherefrom.attribution.progress import silent
from wherefrom.cli.placement_options import placement_of
from wherefrom.library import open_with_model
from wherefrom.records import Message, Query, utc_now
from wherefrom.records.bounds import MAX_VECTOR_BYTES
from worker.sweeper import alike
from worker.sweeper.finding import group_outputs

ADAPTER, PROMPTS = Path("demo/adapter"), Path("demo/story/prompts.jsonl")
#: Least similarities that are tried.
GRID = tuple(round(0.05 * step, 2) for step in range(4, 15))
#: Outputs that come at once, and random orders over which figures are means.
AT_ONCE, ORDERS = 20, 5
SEED = 7
MAX_TOKENS = 1024
#: Kinds of made-up outputs, and how far their vectors lie from that of their kind.
KINDS, SPREAD = 40, 0.35


@dataclass(frozen=True)
class Labelled:
    """An attributed output and its behaviour; None where it shows none."""

    output: AlikeOutput
    behaviour: str | None


def main() -> None:
    """Measure and report."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--outputs", type=int, default=10_000, help="made-up outputs (default: %(default)s)")
    parser.add_argument(
        "--bundle", type=Path, help="the demo's bundle; without it, only the time is measured"
    )
    parser.add_argument(
        "--keep",
        type=Path,
        help="file that keeps the attributed outputs as JSON lines; a run that was cut off goes on behind them",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=60.0,
        help="begin no further prompts after so long; figures are then of those that are done (default: %(default)s)",
    )
    run(parser, measure, table=table)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both parts."""
    found: dict[str, Any] = {"time": timed(folder, arguments.outputs)}
    if arguments.bundle is not None:
        keep, until_s = arguments.keep or folder / "outputs.jsonl", time.monotonic() + 60 * arguments.minutes
        labelled, left = _attributed(arguments.bundle, keep, until_s=until_s)
        found["prompts_left"] = left
        if len({one.behaviour for one in labelled} - {None}) > 1:  # one half chooses, the other is reported
            found["purity"] = purity_of(labelled)
    return found


def table(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines."""
    took = result["time"]
    lines = [
        (
            f"{took['outputs']:,} made-up outputs of {took['kinds']} kinds: {took['findings']} findings in {took['seconds']:.1f} s"
            f" (named as well; {took['calls']} calls), purity {took['purity']:.3f}, {took['covered']:.3f} in a finding"
        )
    ]
    if left := result.get("prompts_left"):
        lines.append(f"{left} prompts are left; go on with --keep")
    if "purity" not in result:
        return lines
    found = result["purity"]
    lines += ["", f"least similarity, on {', '.join(found['chosen_on'])}:"]
    columns = (
        "behaviours",
        "outputs",
        "findings",
        "covered",
        "purity",
        "strict_purity",
        "inverse_purity",
        "completeness",
    )
    lines.append(f"{'':<24}" + "".join(f"{name:>16}" for name in columns))
    rows = [(f"{least:.2f}", one) for least, one in found["grid"].items()]
    rows += [(f"reported, {found['least']:.2f}", found["reported"])]
    rows += [(f"reported, {alike.LEAST:.2f}", found["with_the_default"])]
    rows += [(f"all, {alike.LEAST:.2f}", found["all_with_the_default"])]
    lines += [f"{name:<24}" + "".join(f"{one[column]:>16.3f}" for column in columns) for name, one in rows]
    return [*lines, f"reported: {', '.join(found['reported_on'])}"]


def purity_of(labelled: Sequence[Labelled], *, seed: int = SEED) -> dict[str, Any]:
    """The least similarity that half of the behaviours choose, and what it gives on the other half."""
    behaviours = sorted({one.behaviour for one in labelled if one.behaviour is not None})
    drawn = np.random.default_rng(seed).permutation(len(behaviours))
    half = len(behaviours) // 2
    chosen_on = sorted(behaviours[place] for place in drawn[:half])
    reported = sorted(behaviours[place] for place in drawn[half:])
    grid = {least: figures(labelled, chosen_on, least=least) for least in GRID}
    best = max(grid, key=lambda least: (_worth(grid[least]), least))
    return {
        "chosen_on": chosen_on,
        "least": best,
        "grid": grid,
        "reported_on": reported,
        "reported": figures(labelled, reported, least=best),
        "with_the_default": figures(labelled, reported, least=alike.LEAST),
        "all_with_the_default": figures(labelled, behaviours, least=alike.LEAST),
    }


def _worth(found: Mapping[str, float]) -> float:
    """Harmonic mean of purity and inverse purity, of the share that is covered."""
    pure, inverse = found["purity"], found["inverse_purity"]
    return found["covered"] * 2 * pure * inverse / (pure + inverse) if pure + inverse else 0.0


def figures(labelled: Sequence[Labelled], behaviours: Sequence[str], *, least: float) -> dict[str, float]:
    """Means over random orders; outputs of other behaviours are left out, those that show none stand beside."""
    some = [one for one in labelled if one.behaviour is None or one.behaviour in behaviours]
    found = [
        _judged(some, _grouped(some, least=least, seed=SEED + order), len(behaviours))
        for order in range(ORDERS)
    ]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _grouped(some: Sequence[Labelled], *, least: float, seed: int) -> dict[int, int]:
    """Findings by output, as the sweeper groups them when outputs come `AT_ONCE` at a time."""
    outputs = {one.output.audit_id: one.output for one in some}
    coming = np.random.default_rng(seed).permutation(sorted(outputs)).tolist()
    stands: dict[int, int] = {}
    loose: list[int] = []
    for start in range(0, len(coming), AT_ONCE):
        new = coming[start : start + AT_ONCE]
        exemplars = [
            AlikeOutput(number, outputs[number].vector, finding, outputs[number].cited)
            for number, finding in _exemplars(stands)
        ]
        done = Round(
            1, 0, [outputs[one] for one in new], [outputs[one] for one in loose], exemplars, utc_now()
        )
        _stand(stands, alike.group(done, least=least))
        loose = [one for one in (*loose, *new) if one not in stands][-LOOSE:]
    return stands


def _exemplars(stands: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    counts: Counter[int] = Counter()
    for number, finding in stands.items():
        counts[finding] += 1
        if counts[finding] <= EXEMPLARS:
            yield number, finding


def _stand(stands: dict[int, int], grouped: Grouped) -> None:
    stands |= {number: finding for number, finding in grouped.placed.items() if finding is not None}
    for some in grouped.founded:
        stands |= dict.fromkeys(sorted(some), max(stands.values(), default=0) + 1)


def _judged(some: Sequence[Labelled], stands: Mapping[int, int], behaviours: int) -> dict[str, float]:
    pairs = [
        (one.behaviour, stands[one.output.audit_id])
        for one in some
        if one.behaviour is not None and one.output.audit_id in stands
    ]
    asked = sum(one.behaviour is not None for one in some)
    held = {finding for _, finding in pairs}
    others = sum(one.behaviour is None and stands.get(one.output.audit_id) in held for one in some)
    return {
        "behaviours": behaviours,
        "outputs": asked,
        "findings": len(held),
        "covered": len(pairs) / asked,
        "purity": _commonest(pairs, by=1) / max(len(pairs), 1),
        "inverse_purity": _commonest(pairs, by=0) / max(len(pairs), 1),
        "completeness": _completeness(pairs),
        "others_beside": float(others),
        "strict_purity": _commonest(pairs, by=1) / max(len(pairs) + others, 1),
    }


def _commonest(pairs: Sequence[tuple[str, int]], *, by: int) -> int:
    """Pairs that have the commonest other value among those with their value at `by`."""
    counts: dict[Any, Counter[Any]] = {}
    for pair in pairs:
        counts.setdefault(pair[by], Counter())[pair[1 - by]] += 1
    return sum(max(one.values()) for one in counts.values())


def _completeness(pairs: Sequence[tuple[str, int]]) -> float:
    whole = _entropy(Counter(finding for _, finding in pairs).values())
    if whole == 0:
        return 1.0
    within = 0.0
    for behaviour, count in Counter(behaviour for behaviour, _ in pairs).items():
        within += count / len(pairs) * _entropy(Counter(f for b, f in pairs if b == behaviour).values())
    return 1.0 - within / whole


def _entropy(counts: Any) -> float:
    shares = np.array(list(counts), dtype=float)
    shares /= shares.sum()
    return float(-(shares * np.log(shares)).sum())


def _attributed(bundle: Path, keep: Path, *, until_s: float) -> tuple[list[Labelled], int]:
    """The demo's answers to its prompts that are no foreign ones, attributed, some at a time; and how many prompts are left.

    Args:
        bundle: The demo's bundle.
        keep: A line for each prompt that is done; what is there is not done again.
        until_s: Reading of the monotonic clock after which no further prompts are begun.
    """
    prompts = [row for row in rows_of(PROMPTS, option="prompts") if row["kind"] != "foreign"]
    rows = list(rows_of(keep, option="--keep")) if keep.is_file() else []
    done = {row["id"] for row in rows}
    coming = [(place, row) for place, row in enumerate(prompts) if place not in done]
    if coming and time.monotonic() < until_s:
        base = ensure_base_model(default_cache())
        attributor = LanguageAttributor(
            open_with_model(bundle, base, ADAPTER, placement=placement_of(None, None))
        )
        while coming and time.monotonic() < until_s:
            some, coming = coming[:AT_ONCE], coming[AT_ONCE:]
            rows += _answered(base, attributor, some)
            write_text(keep, "".join(f"{json.dumps(row)}\n" for row in rows))
            report([f"{len(rows)} of {len(prompts)} prompts are answered and attributed"])
    return [_labelled(row) for row in rows if row["cited"] is not None], len(coming)


def _answered(
    base: Path, attributor: LanguageAttributor, some: Sequence[tuple[int, Mapping[str, Any]]]
) -> list[dict[str, Any]]:
    """The rows that are kept of some prompts; without citations where the answer is empty."""
    answers = greedy_answers(base, ADAPTER, [row["messages"] for _, row in some])
    rows: list[dict[str, Any]] = [
        {"id": place, "vector": "", "cited": None, "behaviour": None} for place, _ in some
    ]
    spoken = [
        (kept, row, answer)
        for kept, (_, row), answer in zip(rows, some, answers, strict=True)
        if answer.strip()
    ]
    queries = [
        Query(
            key=row["id"],
            turns=tuple(Message.model_validate(turn) for turn in row["messages"]),
            completion=answer,
        )
        for _, row, answer in spoken
    ]
    prepared = prepare_all(attributor, queries, max_tokens=MAX_TOKENS, over_long="truncate")
    found = attribute_all(attributor, prepared, top_k=CITED, opponents=0, progress=silent)
    for (kept, row, answer), one in zip(spoken, found, strict=True):
        kept |= {
            "vector": (one.vector or b"").hex(),
            "cited": {str(cited.example.row): cited.rank for cited in one.citations},
            "behaviour": _behaviour(row["true_source"], answer),
        }
    return rows


def _behaviour(source: str | None, completion: str) -> str | None:
    if source is None or not rule_of(source).matches(completion):
        return None
    return rule_of(source).reason


def _labelled(row: Mapping[str, Any]) -> Labelled:
    cited = {int(example): int(rank) for example, rank in row["cited"].items()}
    return Labelled(AlikeOutput(row["id"], bytes.fromhex(row["vector"]), None, cited), row["behaviour"])


def timed(folder: Path, outputs: int) -> dict[str, Any]:
    """Seconds that the sweeper takes to group and to name made-up outputs, from nothing."""
    url = f"sqlite:///{folder / 'findings.db'}"
    db = Database(url)
    kinds = _fill(db, url, outputs, folder)
    began = time.monotonic()
    calls = 0
    while group_outputs(db) or calls == 0:
        calls += 1
    grouped = time.monotonic() - began
    while any(one.counted_at is None for one in findings.list_findings(db, limit=500).items):
        group_outputs(db)
    took = time.monotonic() - began
    with db.reading() as session:
        rows = session.execute(
            text("SELECT audit_id, finding_id FROM finding_output WHERE finding_id IS NOT NULL")
        )
        pairs = [(str(kinds[row.audit_id - 1]), int(row.finding_id)) for row in rows]
    db.dispose()
    return {
        "outputs": outputs,
        "seconds": took,
        "seconds_grouping": grouped,
        "calls": calls,
        "findings": len({finding for _, finding in pairs}),
        "kinds": KINDS,
        "purity": _commonest(pairs, by=1) / max(len(pairs), 1),
        "covered": len(pairs) / outputs,
    }


def _fill(db: Database, url: str, outputs: int, folder: Path) -> list[int]:
    """The database of `benchmarks/desk.py` with all audits under one bundle, and vectors of so many kinds; the kind of each output."""
    fill(url, audits=outputs, where=folder)
    random = np.random.default_rng(SEED)
    kinds = np.minimum((KINDS * random.power(0.5, outputs)).astype(int), KINDS - 1)
    vectors = random.standard_normal((KINDS, MAX_VECTOR_BYTES))[kinds]
    vectors += SPREAD * random.standard_normal(vectors.shape)
    small = np.rint(vectors * 127 / np.abs(vectors).max(axis=1, keepdims=True)).astype(np.int8)
    rows = [
        {"flagged_output_id": number + 1, "bundle_id": 1, "vector": small[number].tobytes()}
        for number in range(outputs)
    ]
    with db.writing() as session:
        session.execute(update(Audit).values(bundle_id=1))
        session.execute(insert(OutputVector), rows)
    found: list[int] = kinds.tolist()
    return found


if __name__ == "__main__":
    main()
