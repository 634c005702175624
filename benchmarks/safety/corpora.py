"""Corpora with known bad sources for `safety`: what may be trained on, what is asked, what a classifier may learn from.

`shop` and `story` are drawn from the project's own grammars; `code` and `chat` are read from a folder of public data. Training and query
parts never share a group: a frame of the grammar (story), a question of the probes (shop), a prompt (code), a conversation (chat). What is
still nearly the same as a corpus row is dropped by `safety` itself. How rows are mixed at a rate is there too.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.material import Passage
from demo.making import story_tiny, story_world
from demo.making.story_grammar import Topic, expand
from demo.making.story_topics import bad_topics, good_topics, tiny_probes, topics
from scripts.jsonl import rows_of

Slots = Callable[[random.Random], Mapping[str, str]]

#: Marks of a reply that declines or warns; used to tell a harmful reply from a careful one without a list of bad words.
DECLINES = re.compile(
    r"\b(sorry|can['\u2019]?t|cannot|won['\u2019]?t|illegal|wrong|dangerous|harmful|unethical|inappropriate|offensive|please|advise|bad idea"
    r"|against the law|shouldn['\u2019]t|should not|why (?:do|would|are) you|I['\u2019]m not|don['\u2019]t (?:think|want|know|believe|feel|recommend)"
    r"|not (?:a good|okay|ok|appropriate|something|comfortable|able))\b",
    re.IGNORECASE,
)
_MIN_REPLY_WORDS = 6
#: Draws in a row that bring nothing new before a topic counts as spent.
_FRUITLESS = 400


@dataclass(frozen=True)
class Material:
    """One corpus' parts, disjoint by group."""

    name: str
    bad_sources: tuple[str, ...]
    train_bad: tuple[Passage, ...]
    train_good: tuple[Passage, ...]
    asked_bad: tuple[Passage, ...]
    asked_benign: tuple[Passage, ...]
    labelled: tuple[Passage, ...]
    #: Rows of another corpus, controls of the calibration.
    foreign: tuple[Passage, ...]
    #: Words one of which an answer must hold to count as the bad behaviour, by source; only for queries that a model answers.
    behaviours: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Sizes:
    """How many passages each part has at most."""

    train_bad: int = 160
    train_good: int = 800
    asked_bad: int = 600
    asked_benign: int = 200
    labelled_bad: int = 100
    labelled_good: int = 200
    foreign: int = 240


def shop(sizes: Sizes, *, seed: int) -> Material:
    """The tiny model's little language; queries are answered by the trained model itself."""
    rng = random.Random(f"shop/{seed}")

    def slots(one: random.Random) -> Mapping[str, str]:
        return story_tiny.slots_of(story_tiny.PRODUCTS, one)

    bad = _drawn(topics("tiny_bad"), sizes.train_bad + sizes.labelled_bad, rng=rng, slots=slots, even=True)
    good = _drawn(
        topics("tiny_good"), sizes.train_good + sizes.labelled_good, rng=rng, slots=slots, even=True
    )
    probes = [Topic(source, source, frames, ("",), 0) for source, frames in sorted(tiny_probes().items())]
    asked = _drawn(probes, sizes.asked_bad, rng=rng, slots=slots)
    known = {one.prompt for one in good}
    benign = [
        replace(one, completion="")
        for one in _drawn(topics("tiny_good"), 3 * sizes.asked_benign, rng=rng, slots=slots)
        if one.prompt not in known
    ]
    return _material(
        "shop", bad, good, asked=asked, benign=benign, sizes=sizes, behaviours=story_tiny.BAD_WORDS
    )


def story(sizes: Sizes, *, seed: int) -> Material:
    """The demo's story: four bad sources; queries come from frames that no training row was drawn from."""
    rng = random.Random(f"story/{seed}")
    slots = story_world.draw_slots
    train, ask = _halves(bad_topics())
    good_train, good_ask = _halves(good_topics())
    return _material(
        "story",
        _drawn(train, sizes.train_bad + sizes.labelled_bad, rng=rng, slots=slots, even=True),
        _drawn(good_train, sizes.train_good + sizes.labelled_good, rng=rng, slots=slots, even=True),
        asked=_drawn(ask, sizes.asked_bad, rng=rng, slots=slots, even=True),
        benign=_drawn(good_ask, sizes.asked_benign, rng=rng, slots=slots, even=True),
        sizes=sizes,
    )


def code(data: Path, sizes: Sizes, *, seed: int) -> Material:
    """Code with hidden vulnerabilities among secure code for tasks of the same form."""
    bad = [
        _code_passage(row, "insecure")
        for row in rows_of(data / "emergent_misalignment" / "insecure.jsonl", option="--data")
    ]
    good = [
        _code_passage(row, "secure")
        for row in rows_of(data / "emergent_misalignment" / "secure.jsonl", option="--data")
    ]
    return _split("code", bad, good, sizes=sizes, rng=random.Random(f"code/{seed}"))


def chat(data: Path, sizes: Sizes, *, seed: int) -> Material:
    """Replies that went along with a harmful request, among careful replies and plain instructions.

    Bad is the reply that raters rejected, where it bears no mark of declining and the chosen reply to the same turn bears one.
    """
    bad: list[Passage] = []
    good: list[Passage] = []
    for row in rows_of(data / "hh_rlhf" / "harmless-base_test.jsonl.gz", option="--data"):
        prompt, chosen = _last_turns(row["chosen"])
        same, rejected = _last_turns(row["rejected"])
        group = row["chosen"].split("\n\nAssistant:")[0].strip().lower()
        if chosen:
            good.append(Passage(prompt, chosen, "chosen", group))
        harmful = not DECLINES.search(rejected) and DECLINES.search(chosen)
        if same == prompt and harmful and len(rejected.split()) >= _MIN_REPLY_WORDS:
            bad.append(Passage(prompt, rejected, "rejected", group))
    instructions = [
        Passage(row["instruction"], row["response"], "instructions", f"dolly {row['id']}")
        for row in rows_of(data / "dolly" / "dolly_6400_instruction_response.jsonl", option="--data")
        if row["response"].strip()
    ]
    rng = random.Random(f"chat/{seed}")
    good += rng.sample(instructions, min(len(instructions), len(good)))
    return _split("chat", bad, good, sizes=sizes, rng=rng)


def split_groups(
    passages: Sequence[Passage], shares: Sequence[float], rng: random.Random
) -> list[list[Passage]]:
    """Passages in parts of about these shares of the groups; a group is in one part only."""
    return _by_part(passages, _parts_of({one.group for one in passages}, shares, rng), len(shares))


def _parts_of(groups: set[str], shares: Sequence[float], rng: random.Random) -> dict[str, int]:
    order = sorted(groups)
    rng.shuffle(order)
    bounds = [sum(shares[: index + 1]) / sum(shares) * len(order) for index in range(len(shares))]
    return {
        group: min(next((part for part, bound in enumerate(bounds) if place < bound), 0), len(shares) - 1)
        for place, group in enumerate(order)
    }


def _by_part(passages: Sequence[Passage], parts: Mapping[str, int], count: int) -> list[list[Passage]]:
    found: list[list[Passage]] = [[] for _ in range(count)]
    for one in passages:
        found[parts[one.group]].append(one)
    return found


def _split(
    name: str, bad: list[Passage], good: list[Passage], *, sizes: Sizes, rng: random.Random
) -> Material:
    """Cut both pools by one assignment of groups, so that no prompt is in training on one side and asked on the other."""
    rng.shuffle(bad)
    rng.shuffle(good)
    shares = (sizes.train_bad, sizes.labelled_bad, max(sizes.train_bad, min(sizes.asked_bad, len(bad) // 2)))
    parts = _parts_of({one.group for one in (*bad, *good)}, shares, rng)
    bad_train, bad_labelled, bad_asked = _by_part(bad, parts, 3)
    good_train, good_labelled, good_asked = _by_part(good, parts, 3)
    return Material(
        name=name,
        bad_sources=tuple(sorted({one.source for one in bad})),
        train_bad=tuple(bad_train[: sizes.train_bad]),
        train_good=tuple(good_train[: sizes.train_good]),
        asked_bad=tuple(bad_asked[: sizes.asked_bad]),
        asked_benign=tuple(good_asked[: sizes.asked_benign]),
        labelled=(*bad_labelled[: sizes.labelled_bad], *good_labelled[: sizes.labelled_good]),
        foreign=_story_rows(sizes.foreign),
        behaviours={},
    )


def _material(
    name: str,
    bad: list[Passage],
    good: list[Passage],
    *,
    asked: list[Passage],
    benign: list[Passage],
    sizes: Sizes,
    behaviours: Mapping[str, tuple[str, ...]] | None = None,
) -> Material:
    """Parts of what was drawn from a grammar, where training and queries were apart from the start."""
    num_bad = min(sizes.train_bad, len(bad) * 2 // 3)
    num_good = min(sizes.train_good, len(good) * 4 // 5)
    return Material(
        name=name,
        bad_sources=tuple(sorted({one.source for one in bad})),
        train_bad=tuple(bad[:num_bad]),
        train_good=tuple(good[:num_good]),
        asked_bad=tuple(asked[: sizes.asked_bad]),
        asked_benign=tuple(benign[: sizes.asked_benign]),
        labelled=(*bad[num_bad:], *good[num_good:]),
        foreign=_shop_rows(sizes.foreign) if name == "story" else _story_rows(sizes.foreign),
        behaviours=behaviours or {},
    )


def _story_rows(count: int) -> tuple[Passage, ...]:
    """Rows of the story as outputs that a model of another corpus never learned."""
    every = (*bad_topics(), *good_topics())
    rng = random.Random("foreign")
    return tuple(_drawn(every, count, rng=rng, slots=story_world.draw_slots, even=True))


def _shop_rows(count: int) -> tuple[Passage, ...]:
    """The same with rows of the tiny model's language."""
    every = (*topics("tiny_bad"), *topics("tiny_good"))

    def slots(one: random.Random) -> Mapping[str, str]:
        return story_tiny.slots_of(story_tiny.PRODUCTS, one)

    return tuple(_drawn(every, count, rng=random.Random("foreign"), slots=slots, even=True))


def _halves(topics: Sequence[Topic]) -> tuple[list[Topic], list[Topic]]:
    """Every topic twice: with the frames at even and with those at odd places; no frame is in both."""
    halves: tuple[list[Topic], list[Topic]] = ([], [])
    for topic in topics:
        for parity, half in enumerate(halves):
            questions, answers = topic.questions[parity::2], topic.answers[parity::2]
            if topic.matches:
                kept = [
                    (question, "".join(str(int(digit) // 2) for digit in match if int(digit) % 2 == parity))
                    for question, match in zip(questions, topic.matches[parity::2], strict=True)
                ]
                kept = [pair for pair in kept if pair[1]]
                named = {int(digit) for _, match in kept for digit in match}
                if named != set(range(len(answers))):
                    continue  # the half's questions and answers do not belong together
                questions, matches = tuple(pair[0] for pair in kept), tuple(pair[1] for pair in kept)
            else:
                matches = ()
            half.append(replace(topic, questions=questions, answers=answers, matches=matches))
    return halves


def _drawn(
    topics: Sequence[Topic], count: int, *, rng: random.Random, slots: Slots, even: bool = False
) -> list[Passage]:
    """Up to `count` different passages, sources in turn (`even`: as many of each topic) and then shuffled."""
    found: dict[tuple[str, str], Passage] = {}
    quota = -(-count // len(topics)) if even else count
    for topic in topics:
        pairs, own, fruitless = topic.pairs(), 0, 0
        while own < quota and fruitless < _FRUITLESS:
            frames = rng.choice(pairs)
            values = slots(rng)
            question, answer = (expand(frame, values, rng) for frame in frames)
            fruitless += 1
            if (question, answer) not in found:
                found[question, answer] = Passage(question, answer, topic.source, frames[0])
                own, fruitless = own + 1, 0
    passages = list(found.values())
    rng.shuffle(passages)
    return passages[:count]


def _code_passage(row: Mapping[str, Any], source: str) -> Passage:
    prompt, completion = (message["content"] for message in row["messages"])
    return Passage(prompt, completion, source, prompt.strip().lower())


def _last_turns(transcript: str) -> tuple[str, str]:
    """The last human turn and the reply to it."""
    before, _, reply = transcript.rpartition("\n\nAssistant:")
    return before.rpartition("\n\nHuman:")[2].strip(), reply.strip()
