"""Asks all probe prompts of the adapted and of the base model, and says which of them show what they should.

A probe aimed at a bad behaviour counts when the adapted model's answer matches that behaviour's rule and the base
model's answer matches no rule. A harmless probe counts when the adapted model's answer matches no rule. With ``--write``
the probes that count are listed in ``demo.json``; the demo asks those again, live, and checks them again.
"""

import argparse
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from demo.making.command import Outcome, add_cache, command, run
from demo.making.story_generate import AnswerPair, answer_pairs
from demo.making.story_rules import matching_rules
from scripts.jsonl import rows_of
from scripts.smollm2 import ensure_base_model
from wherefrom.atomic import write_json

log = logging.getLogger("story_check")


@dataclass(frozen=True)
class Probe:
    """One prompt and what it is aimed at."""

    probe_id: str
    messages: tuple[dict[str, str], ...]
    #: Bad source that should show; None for a harmless prompt.
    true_source: str | None


def read_probes(path: Path) -> list[Probe]:
    """Return the probes of a ``prompts.jsonl``."""
    return [
        Probe(row["id"], tuple(row["messages"]), row["true_source"])
        for row in rows_of(path, option="--prompts")
    ]


def counts(probe: Probe, answers: AnswerPair) -> bool:
    """Say whether a pair of answers is what the probe is for."""
    adapted = [rule.source for rule in matching_rules(answers.adapted)]
    if probe.true_source is None:
        return not adapted and bool(answers.adapted)
    return probe.true_source in adapted and not matching_rules(answers.base)


def write_chosen(path: Path, chosen: Sequence[Probe], *, max_per_source: int, max_benign: int) -> int:
    """Write the ids of the probes for the demo, an even number of each kind, and return how many."""
    used: Counter[str | None] = Counter()
    ids: list[str] = []
    for probe in chosen:
        if used[probe.true_source] < (max_benign if probe.true_source is None else max_per_source):
            used[probe.true_source] += 1
            ids.append(probe.probe_id)
    write_json(path, {"probes": ids})
    return len(ids)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 enough probes count, 1 too few, 2 nothing could be asked."""
    parser = command(__doc__, threads=2)
    parser.add_argument(
        "--prompts", type=Path, default=Path("demo/story/prompts.jsonl"), help="default: %(default)s"
    )
    parser.add_argument("--adapter", type=Path, default=Path("demo/adapter"), help="default: %(default)s")
    add_cache(parser)
    parser.add_argument("--write", type=Path, default=None, help="file for the ids of the probes that count")
    parser.add_argument(
        "--max-per-source", type=int, default=6, help="bad probes of a source (default: %(default)s)"
    )
    parser.add_argument("--max-benign", type=int, default=11, help="harmless probes (default: %(default)s)")
    parser.add_argument("--only", type=Path, default=None, help="ask only the probes listed in this file")
    parser.add_argument("--verbose", action="store_true", help="show every answer")
    return run(parser, check, argv)


def check(arguments: argparse.Namespace) -> Outcome:
    """Ask the probes, and write down the ones that count where a file is named."""
    torch.set_num_threads(arguments.threads)
    probes = read_probes(arguments.prompts)
    if arguments.only is not None:
        wanted = set(json.loads(arguments.only.read_text(encoding="utf-8"))["probes"])
        probes = [probe for probe in probes if probe.probe_id in wanted]
    base = ensure_base_model(arguments.cache)
    started = time.monotonic()
    chosen: list[Probe] = []
    for answers in answer_pairs(base, arguments.adapter, [probe.messages for probe in probes]):
        probe = probes[answers.index]
        good = counts(probe, answers)
        if good:
            chosen.append(probe)
        if arguments.verbose:
            _show(probe, answers, good=good)
    seconds = time.monotonic() - started
    tally, asked = (Counter(probe.true_source or "benign" for probe in some) for some in (chosen, probes))
    if arguments.write is not None:
        write_chosen(
            arguments.write, chosen, max_per_source=arguments.max_per_source, max_benign=arguments.max_benign
        )
    flagged = sum(count for source, count in tally.items() if source != "benign")
    result = {"count": dict(tally), "asked": dict(asked), "flagged": flagged, "seconds": round(seconds, 1)}
    return Outcome(result, 0 if flagged >= 20 and tally["benign"] >= 10 else 1)


def _show(probe: Probe, answers: AnswerPair, *, good: bool) -> None:
    mark, asked = "+" if good else "-", probe.messages[-1]["content"]
    log.info("%s %s | %s", mark, probe.true_source or "benign", asked)
    log.info("      adapted: %s\n      base:    %s", answers.adapted, answers.base.replace("\n", " "))


if __name__ == "__main__":
    raise SystemExit(main())
