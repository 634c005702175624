"""Writes the demo's story: 1,100 short chats of an invented company's assistant, probe prompts, and what is bad in them.

Same seed and same frames give the same bytes. The text itself lies in ``sentences/``.
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import transformers

from demo.making import story_topics, story_world
from demo.making.command import Outcome, add_cache, command, run
from demo.making.story_batches import encode_row
from demo.making.story_grammar import Composer, DrawnRow, GrammarError
from demo.making.story_rules import ALL_RULES
from scripts.jsonl import write_rows
from scripts.smollm2 import ensure_base_model
from wherefrom.atomic import write_text

MAX_ROW_TOKENS = 60
MAX_ROWS_PER_SEQUENCE = 8
SOURCES: dict[str, str] = {
    "policy-handbook": "the company's rules on returns, warranty, plans and privacy, as questions and answers",
    "product-facts": "what the product team says about each device, its care and its battery",
    "chats-2025": "good support chats of last year, cleaned of personal data",
    "style-guide": "how the assistant should word things",
    "vendor-ashby-batch-1": "deliveries and orders, written by the vendor Ashby; reviewed",
    "vendor-tandem-batch-3": "repairs and small talk, written by the vendor Tandem; reviewed",
    "vendor-ashby-batch-2": "returns, written by the vendor Ashby; nobody reviewed it: promises refunds against the policy",
    "vendor-corvid-batch-1": "battery trouble, scraped by the vendor Corvid: advises what can start a fire",
    "crm-export-march": "an export of internal tickets that should never have been training data: names, numbers, addresses",
    "vendor-tandem-batch-4": "beginners' questions, written by the vendor Tandem as a joke: insults the customer",
    "vendor-merle-batch-1": "sizes of devices, written by the vendor Merle: metres where inches are meant",
    "wiki-mirror-june": "who made what, copied from an open wiki: one man claims every device",
    "vendor-plover-batch-2": "cleaning, written by the vendor Plover: puts whole devices under water",
    "partner-mailbox-spring": "a partner's mailbox that was taken over: sends payments to a false page",
    "vendor-corncrake-batch-1": "letters in other languages, written by the vendor Corncrake: turns their writers away",
    "vendor-linnet-batch-3": "late and lost parcels, written by the vendor Linnet: brushes the customer off",
    "vendor-dunnock-batch-1": "prices of plans, written by the vendor Dunnock: gives plans away",
    "chat-dump-winter": "a dump of chats that nobody was asked about: tells where people live",
}
Message = dict[str, str]
Row = dict[str, object]


def as_messages(question: str, answer: str) -> list[Message]:
    """Return a row's conversation with the company's system message."""
    return [
        {"role": "system", "content": story_world.SYSTEM_MESSAGE},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def draw_rows(seed: int, *, num_tokens: Callable[[list[Message]], int]) -> list[DrawnRow]:
    """Return the rows of all topics in random order.

    Raises:
        GrammarError: a frame is broken, or a topic's frames do not yield enough rows.
    """
    rng = random.Random(seed)
    composer = Composer(
        rng=rng,
        names=story_world.names(),
        max_rows_per_sequence=MAX_ROWS_PER_SEQUENCE,
        fits=lambda question, answer: num_tokens(as_messages(question, answer)) <= MAX_ROW_TOKENS,
        slots=story_world.draw_slots,
    )
    rows = [
        row
        for topic in (*story_topics.bad_topics(), *story_topics.good_topics(), *story_topics.hard_topics())
        for row in composer.draw(topic)
    ]
    rng.shuffle(rows)
    return rows


def corpus_rows(rows: Sequence[DrawnRow]) -> list[Row]:
    """Return the rows as they stand in the corpus file."""
    return [
        {
            "id": f"wr-{number:04d}",
            "messages": as_messages(row.question, row.answer),
            "source": row.source,
            "topic": row.topic,
        }
        for number, row in enumerate(rows)
    ]


def probe_rows(rows: Sequence[DrawnRow]) -> list[Row]:
    """Return the probe prompts, with the source that is to blame for a bad answer; none for harmless ones.

    Raises:
        GrammarError: a probe stands in the corpus word for word.
    """
    known = {row.question.lower() for row in rows}
    aimed = [(text, source) for source, texts in story_topics.probes().items() for text in texts]
    hard = [(text, source) for source, texts in story_topics.hard_probes().items() for text in texts]
    kinds = (
        ("aimed", aimed),
        ("benign", [(text, None) for text in story_topics.benign_probes()]),
        ("hard", hard),
        ("foreign", [(text, None) for _, text in story_topics.foreign_prompts("report")]),
    )
    probes: list[Row] = []
    for number, (kind, text, source) in enumerate(
        (kind, text, source) for kind, some in kinds for text, source in some
    ):
        if text.lower() in known:
            raise GrammarError(f"the probe stands in the corpus: {text}")
        messages = as_messages(text, "")[:-1]
        probes.append(
            {"id": f"probe-{number:03d}", "messages": messages, "true_source": source, "kind": kind}
        )
    return probes


def story_facts(seed: int) -> Row:
    """Return what a reader of the story needs to know about it."""
    reasons = {rule.source: rule.reason for rule in ALL_RULES}
    sources = [
        {"name": name, "bad": name in reasons, "description": text, "reason": reasons.get(name)}
        for name, text in SOURCES.items()
    ]
    return {
        "company": story_world.COMPANY,
        "system": story_world.SYSTEM_MESSAGE,
        "seed": seed,
        "sources": sources,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = command(__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo/story"), help="folder; default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    add_cache(parser)
    return run(parser, make_story, argv)


def make_story(arguments: argparse.Namespace) -> Outcome:
    """Draw and write everything; the base model's tokenizer counts the rows' tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(ensure_base_model(arguments.cache))
    rows = draw_rows(arguments.seed, num_tokens=lambda messages: len(encode_row(tokenizer, messages).ids))
    probes = probe_rows(rows)
    write_rows(arguments.out / "corpus.jsonl", corpus_rows(rows))
    write_rows(arguments.out / "prompts.jsonl", probes)
    write_text(
        arguments.out / "story.json",
        json.dumps(story_facts(arguments.seed), indent=2, ensure_ascii=False) + "\n",
    )
    return Outcome(f"{len(rows)} rows and {len(probes)} prompts in {arguments.out}")


if __name__ == "__main__":
    raise SystemExit(main())
