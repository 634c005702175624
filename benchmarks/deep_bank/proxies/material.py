"""What the larger model is judged on: rows of a corpus with sources, drawn evenly over them, and outputs whose source is known."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.jsonl import rows_of
from wherefrom.attribution.corpus import CorpusRow, parse_row

SEED = 20_261_122
#: An output that shares a run of this many words with a training completion is taken to come from that row.
RUN_WORDS = 6
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Outputs:
    """Generated outputs as queries."""

    rows: tuple[CorpusRow, ...]
    #: Source that taught each output's behaviour; None for a harmless one.
    sources: tuple[str | None, ...]


def read_outputs(file: Path) -> Outputs:
    """Outputs of a JSONL file (or one JSON list): `messages`, `completion` and, where it is known, `true_source`."""
    listed = rows_of(file, option="--queries")
    rows = [
        parse_row({name: one[name] for name in ("messages", "completion")}, default_id=f"output-{index:03d}")
        for index, one in enumerate(listed)
    ]
    return Outputs(tuple(rows), tuple(one.get("true_source") for one in listed))


def draw_evenly(
    sources: Sequence[str], count: int, *, allowed: Iterable[int], kept: Iterable[int] = ()
) -> list[int]:
    """Numbers of `count` rows with as equal a share of every source as can be, in corpus order.

    Args:
        sources: source of each row.
        count: how many to draw.
        allowed: numbers of the rows that may be drawn.
        kept: numbers of rows that are taken in any case; they count towards their source's share.
    """
    taken = sorted(set(kept))
    shuffled = np.random.default_rng(SEED).permutation(sorted(set(allowed) - set(taken))).tolist()
    waiting = {name: [one for one in shuffled if sources[one] == name] for name in dict.fromkeys(sources)}
    held = {name: sum(sources[one] == name for one in taken) for name in waiting}
    while len(taken) < count and any(waiting.values()):
        name = min((one for one in waiting if waiting[one]), key=lambda one: held[one])
        taken.append(waiting[name].pop(0))
        held[name] += 1
    return sorted(taken)


def verbatim_causes(outputs: Sequence[str], completions: Sequence[str]) -> list[list[int]]:
    """Rows whose completion shares the longest run of words with each output; none where it has fewer than `RUN_WORDS`."""
    held = [_words(text) for text in completions]
    found = []
    for output in outputs:
        asked = _words(output)
        longest = [_longest_run(asked, one) for one in held]
        best = max(longest, default=0)
        found.append([row for row, run in enumerate(longest) if run == best] if best >= RUN_WORDS else [])
    return found


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _longest_run(one: Sequence[str], other: Sequence[str]) -> int:
    """Words of the longest common run, by the usual table of run lengths."""
    best = 0
    before = [0] * (len(other) + 1)
    for word in one:
        now = [0] * (len(other) + 1)
        for place, against in enumerate(other):
            if word == against:
                now[place + 1] = before[place] + 1
        best = max(best, *now)
        before = now
    return best
