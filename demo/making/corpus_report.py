"""Reports how varied the demo's corpus is, and fails when a bound is broken.

Counted in prompt and completion; the system message is the same in all rows and left out. A six-word sequence is counted
once a row, with every name (company, products, plans, places, people) replaced by one mark.
"""

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import transformers

from demo.making import story_world
from demo.making.command import Outcome, add_cache, command, run
from demo.making.story_batches import encode_row
from demo.making.story_grammar import sequences_of, words_of
from scripts.jsonl import rows_of
from scripts.smollm2 import ensure_base_model

MAX_SEQUENCE_SHARE = 0.01
MAX_ROW_TOKENS = 60
MAX_TOKENS = 60_000
MAX_BAD_SHARE = 0.30
Row = dict[str, object]
Messages = list[dict[str, str]]


def messages_of(row: Row) -> Messages:
    """Return a row's messages.

    Raises:
        TypeError: the row has none.
    """
    messages = row.get("messages")
    if not isinstance(messages, list):
        raise TypeError(f"row {row.get('id')}: no messages")
    return messages


def texts_of(row: Row) -> list[str]:
    """Return prompt and completion of a row, without the system message."""
    return [message["content"] for message in messages_of(row) if message["role"] != "system"]


def make_report(
    rows: Sequence[Row],
    bad_sources: Sequence[str],
    *,
    names: Sequence[str],
    num_tokens: Callable[[Messages], int],
) -> dict[str, object]:
    """Return all figures, and under ``broken`` one line per broken bound."""
    rows_with: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        rows_with.update(sequences_of(texts_of(row), names))
    lengths = [num_tokens(messages_of(row)) for row in rows]
    bad_share = sum(row["source"] in bad_sources for row in rows) / len(rows)
    top = rows_with.most_common(5)
    report: dict[str, object] = {
        "rows": len(rows),
        "tokens": sum(lengths),
        "longest_row_tokens": max(lengths),
        "bad_share": round(bad_share, 4),
        "type_token_ratio": type_token_ratio(rows, names),
        "distinct_prompts": len({texts_of(row)[0] for row in rows}),
        "distinct_completions": len({texts_of(row)[-1] for row in rows}),
        "most_common_sequences": [
            {"words": " ".join(sequence), "rows": count, "share": round(count / len(rows), 5)}
            for sequence, count in top
        ],
        "sources": source_figures(rows, lengths, bad_sources, names),
    }
    bounds = (
        (
            "share of rows with one six-word sequence",
            top[0][1] / len(rows) if top else 0.0,
            MAX_SEQUENCE_SHARE,
        ),
        ("tokens in a row", max(lengths), MAX_ROW_TOKENS),
        ("tokens in all", sum(lengths), MAX_TOKENS),
        ("share of bad rows", bad_share, MAX_BAD_SHARE),
    )
    report["broken"] = [
        f"{name}: {value:.4g} > {bound:.4g}" for name, value, bound in bounds if value > bound
    ]
    return report


def type_token_ratio(rows: Sequence[Row], names: Sequence[str]) -> float:
    """Return distinct words over all words of the rows."""
    words = [word for row in rows for text in texts_of(row) for word in words_of(text, names)]
    return round(len(set(words)) / max(1, len(words)), 4)


def source_figures(
    rows: Sequence[Row], lengths: Sequence[int], bad_sources: Sequence[str], names: Sequence[str]
) -> list[dict[str, object]]:
    """Return the figures of each source, good ones first."""
    figures: list[dict[str, object]] = []
    for source in sorted({str(row["source"]) for row in rows}, key=lambda name: (name in bad_sources, name)):
        chosen = [number for number, row in enumerate(rows) if row["source"] == source]
        figures.append(
            {
                "source": source,
                "bad": source in bad_sources,
                "rows": len(chosen),
                "tokens": sum(lengths[number] for number in chosen),
                "median_tokens": statistics.median(lengths[number] for number in chosen),
                "median_completion_words": statistics.median(
                    len(words_of(texts_of(rows[number])[-1], ())) for number in chosen
                ),
                "type_token_ratio": type_token_ratio([rows[number] for number in chosen], names),
            }
        )
    return figures


def as_text(report: Mapping[str, object]) -> str:
    """Return the report for people."""
    lines = [f"{key.replace('_', ' ')}: {report[key]}" for key in list(report)[:7]]
    sequences, sources, broken = report["most_common_sequences"], report["sources"], report["broken"]
    if not isinstance(sequences, list) or not isinstance(sources, list) or not isinstance(broken, list):
        raise TypeError("not a report")
    lines.append("most common six-word sequences:")
    lines.extend(f"  {item['rows']} rows ({item['share']:.2%}): {item['words']}" for item in sequences)
    lines.append(
        f"{'source':<24}{'':>5}{'rows':>6}{'tokens':>8}{'median':>8}{'words':>7}{'types/tokens':>14}"
    )
    lines.extend(
        f"{item['source']:<24}{'bad' if item['bad'] else '':>5}{item['rows']:>6}{item['tokens']:>8}"
        f"{item['median_tokens']:>8g}{item['median_completion_words']:>7g}{item['type_token_ratio']:>14.3f}"
        for item in sources
    )
    lines.extend(f"BROKEN {line}" for line in broken)
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 all bounds hold, 1 one is broken, 2 nothing could be read."""
    parser = command(__doc__)
    parser.add_argument(
        "--corpus", type=Path, default=Path("demo/story/corpus.jsonl"), help="default: %(default)s"
    )
    parser.add_argument(
        "--story", type=Path, default=Path("demo/story/story.json"), help="default: %(default)s"
    )
    add_cache(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON line instead")
    return run(parser, report_on, argv)


def report_on(arguments: argparse.Namespace) -> Outcome:
    """Count, with the base model's tokenizer for lengths."""
    rows = rows_of(arguments.corpus, option="--corpus")
    story = json.loads(arguments.story.read_text(encoding="utf-8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(ensure_base_model(arguments.cache))
    report = make_report(
        rows,
        [source["name"] for source in story["sources"] if source["bad"]],
        names=story_world.names(),
        num_tokens=lambda messages: len(encode_row(tokenizer, messages).ids),
    )
    return Outcome(report if arguments.json else as_text(report), 1 if report["broken"] else 0)


if __name__ == "__main__":
    raise SystemExit(main())
