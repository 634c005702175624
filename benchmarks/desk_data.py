"""A database as the desk sees it after some years: many audits with ten citations each, reviews and queues. Same seed, same rows.

Texts are drawn from a vocabulary in which word k is 1/k as frequent as the first. What the measured searches look for is planted: a frequent word, and
rare things in the same number at any size. `benchmarks/desk_filling.py` puts the rows in.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np

from wherefrom.records import AuditState

CITATIONS = 10
#: Of each planted rare thing there are so many, whatever the size.
RARE = 20
FREQUENT_WORD, RARE_WORD, RARE_CITED_WORD = "refund", "zanzibar", "lighthouse"
RARE_REASON, RARE_SOURCE = "legal_threat", "lost_batch"
#: The newest audits still wait.
OPEN = 50
#: Rows that are made and written at once.
CHUNK = 20_000
_SEED = 7
#: A table by name, and some rows of it.
TableRows = tuple[str, Sequence[dict[str, Any]]]
#: When the first audit came; one came each minute.
START = datetime(2024, 1, 1, tzinfo=UTC)
_WORDS = np.array([FREQUENT_WORD, *(f"word{number}" for number in range(1, 20_000))])
_REASONS = ("refund_promise", "tone", "policy", "made_up_source", "privacy", "medical_advice")
_SOURCES = tuple(f"vendor_batch_{number:02d}" for number in range(40))


class Drawn:
    """Random texts and choices."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(_SEED)
        self._chances = 1 / np.arange(1, len(_WORDS) + 1)
        self._chances /= self._chances.sum()

    def texts(self, number: int, length: int) -> list[str]:
        """Texts of so many words."""
        words = self.random.choice(len(_WORDS), size=(number, length), p=self._chances)
        return [" ".join(row) for row in _WORDS[words]]

    def skewed(self, number: int, choices: int) -> Any:
        """Numbers below `choices`, small ones more often."""
        return np.minimum((choices * self.random.power(0.5, number)).astype(int), choices - 1)


def num_examples(audits: int) -> int:
    """Training examples of a database with so many audits."""
    return max(100, audits // 10)


def base_rows(audits: int, *, all_open: bool = False) -> Iterator[TableRows]:
    """Tables with their rows, in chunks; with `all_open` every audit waits, and nothing is cited or judged yet."""
    still_open = audits if all_open else OPEN
    drawn, examples = Drawn(), num_examples(audits)
    yield from _frame()
    for start in range(0, examples, CHUNK):
        yield from _examples(drawn, range(start, min(start + CHUNK, examples)))
    for start in range(0, audits, CHUNK):
        numbers = range(start, min(start + CHUNK, audits))
        yield from _outputs(drawn, numbers, audits=audits, still_open=still_open)
        if not all_open:
            yield from citation_rows(drawn, numbers, audits=audits, examples=examples)
    if not all_open:
        yield from _reviews(audits)


def _frame() -> Iterator[TableRows]:
    yield "corpus", [{"id": 1, "sha256": "c" * 64, "name": "corpus", "examples": 1, "created_at": START}]
    revision = {
        "weights_sha256": "w" * 64,
        "adapter_sha256": None,
        "tokenizer_sha256": "t" * 64,
        "created_at": START,
    }
    yield "model_revision", [{"id": number, "name": f"support-{number}", **revision} for number in (1, 2)]
    bundle = {"corpus_id": 1, "form": "adapter", "active": True, "card": {}, "created_at": START}
    yield (
        "bundle",
        [
            {"id": number, "name": f"bundle-{number}", "model_revision_id": number, **bundle}
            for number in (1, 2)
        ],
    )
    yield "person", [{"id": 1, "name": "Ada", "created_at": START}]
    queue = {"work_order": "oldest", "reviewers": 1, "dedupe": False, "blind": False, "created_at": START}
    yield "review_queue", [{"id": 1, "name": "refunds", **queue}]


def _examples(drawn: Drawn, numbers: range) -> Iterator[TableRows]:
    texts = drawn.texts(len(numbers), 60)
    rows = []
    for number, words in zip(numbers, texts, strict=True):
        planted = f"{words} {RARE_CITED_WORD}" if number < 2 else words
        rows.append(
            {
                "id": number + 1,
                "corpus_id": 1,
                "example_id": f"ex-{number:07d}",
                "row": number,
                "source": _source_of(number),
                "prompt": "Question",
                "completion": planted,
                "text_sha256": "e" * 64,
                "fields": {},
                "indexed": True,
            }
        )
    yield "training_example", rows
    yield (
        "example_words",
        [{"training_example_id": one["id"], "text": f"question {one['completion']}"} for one in rows],
    )


def _source_of(example: int) -> str:
    return RARE_SOURCE if example < 2 else _SOURCES[(example * example) % 1_601 % len(_SOURCES)]


def time_of(number: int) -> datetime:
    """When an audit came."""
    return START + timedelta(minutes=number)


def _is_rare(number: int, audits: int) -> bool:
    return number < audits and number % (audits // RARE) == 0


def _outputs(drawn: Drawn, numbers: range, *, audits: int, still_open: int) -> Iterator[TableRows]:
    prompts, answers = drawn.texts(len(numbers), 30), drawn.texts(len(numbers), 60)
    reasons, levels = drawn.skewed(len(numbers), len(_REASONS)), drawn.skewed(len(numbers), 4)
    uniform = drawn.random.random((len(numbers), 3))
    outputs, texts, words, rows, events = [], [], [], [], []
    for place, number in enumerate(numbers):
        rare, at = _is_rare(number, audits), time_of(number)
        answer = f"{answers[place]} {RARE_WORD}" if rare else answers[place]
        outputs.append(
            {
                "id": number + 1,
                "producer": "local",
                "idempotency_key": f"key-{number}",
                "content_sha256": "o" * 64,
                "model": f"support-{1 + number % 2}",
                "reason": RARE_REASON if rare else _REASONS[reasons[place]],
                "severity": ("low", "medium", "high", "critical")[levels[place]],
                "received_at": at,
                "labels": {},
                "channel": "http" if number % 5 else "stream",
            }
        )
        texts.append(
            {
                "flagged_output_id": number + 1,
                "turns": [{"role": "user", "content": prompts[place]}],
                "completion": answer,
                "spans": [],
                "plain_prompt": True,
                "indexed": True,
            }
        )
        words.append({"flagged_output_id": number + 1, "prompt": prompts[place], "output": answer})
        rows.append(
            audit_row(
                number, at, 3 - int(levels[place]), uniform[place], is_open=number >= audits - still_open
            )
        )
        events.append(
            {"at": at, "kind": "output_accepted", "subject": f"flagged_output:{number + 1}", "payload": {}}
        )
    yield from zip(
        ("flagged_output", "flagged_text", "output_words", "audit", "trail_event"),
        (outputs, texts, words, rows, events),
        strict=True,
    )


def audit_row(number: int, at: datetime, priority: int, uniform: Any, *, is_open: bool) -> dict[str, Any]:
    """The row of an audit; `uniform` are three numbers in [0, 1), which say its score, its p and whether it is dead."""
    dead = uniform[2] < 0.01
    state = AuditState.PENDING if is_open else AuditState.DEAD if dead else AuditState.DONE
    answered = state is AuditState.DONE
    return {
        "id": number + 1, "flagged_output_id": number + 1, "bundle_id": 1 + number % 2, "state": state.value,
        "code": "worker_lost" if state is AuditState.DEAD else None, "priority": priority, "truncated": False,
        "attempt": 0 if is_open else 1, "attempt_floor": 0, "created_at": at,
        "finished_at": None if is_open else at + timedelta(seconds=20),
        "top_source": _SOURCES[number % len(_SOURCES)] if answered else None,
        "top_score": float(uniform[0]) if answered else None,
        "conformal_p": round(float(uniform[1]) ** 3, 6) if answered and number % 5 else None,
        "weak": bool(uniform[0] < 0.1) if answered else None,
    }  # fmt: skip


def citation_rows(drawn: Drawn, numbers: range, *, audits: int, examples: int) -> Iterator[TableRows]:
    """Ten citations of each audit, in chunks; the rare things are planted in those below `audits`."""
    cited = drawn.skewed(len(numbers) * CITATIONS, examples - 2).reshape(-1, CITATIONS) + 2
    scores = drawn.random.random((len(numbers), CITATIONS))
    rows = []
    for place, number in enumerate(numbers):
        if _is_rare(number, audits):
            cited[place, 0] = number % 2
        for rank, example in enumerate(dict.fromkeys(cited[place].tolist()), 1):
            score = float(scores[place, rank - 1])
            rows.append(
                {
                    "audit_id": number + 1,
                    "training_example_id": example + 1,
                    "rank": rank,
                    "source": _source_of(example),
                    "tier": "influence",
                    "score": score,
                    "retrieval_score": score,
                    "influence_score": score,
                    "influence_magnitude": 1.0,
                    "bm25_score": 1.0,
                    "similarity_score": score,
                    "effect_nats": score / 10,
                    "confidence": round(score * score, 3) if rank <= 3 else None,
                }
            )
    yield from (("citation", part) for part in chunks(rows))


def chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows, `CHUNK` at a time."""
    left = iter(rows)
    while part := list(islice(left, CHUNK)):
        yield part


def _reviews(audits: int) -> Iterator[TableRows]:
    chosen = range(1, audits, max(1, audits // 2_000))
    item = {"queue_id": 1, "state": "open", "assigned": 0, "finished": 0, "added_at": START}
    yield "review_item", [{"audit_id": number + 1, "order_key": number, **item} for number in chosen]
    verdicts = ("confirmed", "plausible", "unrelated", "second_look")
    review = {
        "rank": 1,
        "comment": "",
        "reviewer": "Ada",
        "person_id": 1,
        "via": "local",
        "blind": False,
        "created_at": START,
    }
    yield (
        "review",
        [
            {"audit_id": number + 1, "verdict": verdicts[place % 4], **review}
            for place, number in enumerate(chosen)
        ],
    )
