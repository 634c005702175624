"""Writes the bank's bad outputs: answers that the model trained on all rows generated for the demo's prompts.

Answers are greedy. One is kept where the demo's rules see the behaviour and the base model does not show it. Run once; what it found stands in queries.jsonl,
and the plan is drawn behind it.

    python -m benchmarks.deep_bank.outputs --work DIR
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.deep_bank.material import FOLDER, draw_plan, read_bank_queries, read_rows, write_plan
from benchmarks.deep_bank.train import ensure_adapter
from benchmarks.program import report
from demo.making.story_generate import greedy_answers
from demo.making.story_rules import RULES
from scripts.jsonl import rows_of, write_rows
from scripts.smollm2 import default_cache, ensure_base_model

PROMPTS = FOLDER.parents[1] / "demo" / "story" / "prompts.jsonl"
#: Most outputs taken of each source, in the order of the prompts.
OUTPUTS = 5


def main() -> None:
    """Train on all rows, ask, and append what shows the behaviour."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the adapter trained on all rows")
    work: Path = parser.parse_args().work
    base = ensure_base_model(default_cache())
    adapter = ensure_adapter(work)
    probes = rows_of(PROMPTS)
    aimed = [probe for probe in probes if probe["true_source"] is not None]
    found = bad_outputs(aimed, base, adapter)
    report([f"{len(found)} of {len(aimed)} answers show the behaviour"])
    file = FOLDER / "queries.jsonl"
    kept = [one for one in rows_of(file) if one["kind"] != "bad"] + found
    write_rows(file, kept)
    rows_read = read_rows()
    write_plan(draw_plan(len(rows_read), [one.kind for one in read_bank_queries(rows_read)]))


def bad_outputs(probes: list[dict[str, Any]], base: Path, adapter: Path) -> list[dict[str, Any]]:
    """Queries of kind `bad`: at most `OUTPUTS` of each source."""
    asked = [probe["messages"] for probe in probes]
    found: list[dict[str, Any]] = []
    answers = zip(
        probes, greedy_answers(base, adapter, asked), greedy_answers(base, None, asked), strict=True
    )
    for probe, answer, before in answers:
        source = probe["true_source"]
        rules = [rule for rule in RULES if rule.source == source]
        taken = sum(one["source"] == source for one in found)
        if taken < OUTPUTS and any(rule.matches(answer) and not rule.matches(before) for rule in rules):
            found.append(
                {
                    "id": f"bad-{probe['id']}",
                    "kind": "bad",
                    "messages": probe["messages"],
                    "completion": answer,
                    "cause": None,
                    "source": source,
                }
            )
    return found


if __name__ == "__main__":
    main()
