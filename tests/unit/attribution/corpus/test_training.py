"""Which turns of a row are explained: all that training trained on, by weights, flags and masks as people write them."""

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_jsonl
from wherefrom.attribution.corpus import ReadAs, Turns, parse_row, read_corpus
from wherefrom.errors import EmptyCorpus, InvalidRecord


def chat(*answers: dict[str, Any], user: dict[str, Any] | None = None, **columns: Any) -> dict[str, Any]:
    """A conversation with answers a0, a1, ... whose messages carry further fields."""
    messages: list[dict[str, Any]] = []
    for place, more in enumerate(answers):
        messages.append({"role": "user", "content": f"q{place}", **(user or {})})
        messages.append({"role": "assistant", "content": f"a{place}", **more})
    return {"messages": messages, **columns}


def explained(row: dict[str, Any], turns: Turns = Turns.ALL) -> list[str]:
    """Contents of the explained turns."""
    read = parse_row(row, default_id="x", how=ReadAs(turns=turns))
    return [read.turns[place].content for place in read.trained] + [read.completion]


#: Row and the answers that are explained.
ROWS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "all": (chat({}, {}, {}), ["a0", "a1", "a2"]),
    "weight": (chat({"weight": 1}, {"weight": 0}, {}), ["a0", "a2"]),
    "weight as text": (chat({"weight": "1"}, {"weight": "0"}), ["a0"]),
    "weight between": (chat({"weight": 0.5}, {"weight": 0.0}), ["a0"]),
    "last not trained": (chat({}, {"weight": 0}), ["a0"]),
    "train": (chat({"train": False}, {"train": True}), ["a1"]),
    "training": (chat({"training": False}, {}), ["a1"]),
    "trainable": (chat({"trainable": False}, {}), ["a1"]),
    "learn": (chat({"learn": "no"}, {}), ["a1"]),
    "loss": (chat({"loss": False}, {"loss": True}), ["a1"]),
    "loss weight": (chat({"loss_weight": 0}, {}), ["a1"]),
    "loss mask": (chat({"loss_mask": 0}, {"loss_mask": 1}), ["a1"]),
    "mask": (chat({"mask": 0}, {"mask": 1}, user={"mask": 0}), ["a1"]),
    "mask of what is hidden": (chat({"mask": 1}, {"mask": 0}, user={"mask": 1}), ["a1"]),
    "masked": (chat({"masked": True}, {"masked": False}), ["a1"]),
    "null says nothing": (chat({"weight": None}, {"train": None}), ["a0", "a1"]),
    "mask per message": (chat({}, {}, loss_mask=[0, 0, 0, 1]), ["a1"]),
    "mask per answer": (chat({}, {}, mask=[1, 0]), ["a0"]),
    "mask as text": (chat({}, {}, mask="[0, 1]"), ["a1"]),
    "weights of something else": (chat({}, {}, weights=[1, 0, 1]), ["a0", "a1"]),
    "speaker masked": (chat({}, {}, mask="User"), ["a0", "a1"]),
    "empty answer": (chat({"content": ""}, {}), ["a1"]),
    "prompt of messages": (
        {"prompt": chat({}, {})["messages"][:3], "completion": [{"role": "assistant", "content": "a1"}]},
        ["a1"],
    ),
    "completion of messages": ({"prompt": "q", "completion": chat({}, {})["messages"][1:]}, ["a0", "a1"]),
    "preference": (
        {
            "chosen": chat({}, {})["messages"],
            "rejected": [*chat({}, {})["messages"][:3], {"role": "assistant", "content": "no"}],
        },
        ["a1"],
    ),
    "history": ({"instruction": "q1", "output": "a1", "history": [["q0", "a0"]]}, ["a0", "a1"]),
}


@pytest.mark.parametrize("name", ROWS)
def test_trained_turns(name: str) -> None:
    """All trained answers, or with `last` the last of them."""
    row, answers = ROWS[name]
    assert explained(row) == answers
    assert explained(row, Turns.LAST) == answers[-1:]


@pytest.mark.parametrize(
    "row",
    [
        chat({"weight": 0}),
        chat({}, train=False),
        chat({}, weight=0),
        {"prompt": "q", "completion": "a", "loss_weight": 0},
    ],
)
def test_rows_without_a_trained_turn_are_left_out(tmp_path: Path, row: dict[str, Any]) -> None:
    """They are no bad rows: they are counted and told; alone they are an empty corpus."""
    corpus = read_corpus(write_jsonl(tmp_path / "c.jsonl", [row, chat({})]))
    assert (len(corpus.rows), corpus.skipped, corpus.reading.untrained_rows) == (1, 0, 1)
    assert corpus.rows[0].example_id == "row-000001"
    assert "1 row left out: none of their turns was trained on." in corpus.reading.lines()
    with pytest.raises(EmptyCorpus, match="0 bad rows skipped, 1 without a trained turn"):
        read_corpus(write_jsonl(tmp_path / "none.jsonl", [row]))
    with pytest.raises(
        InvalidRecord, match="the row's weights, flags or masks exclude all its assistant turns"
    ):
        parse_row(row, default_id="x")


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    """Counts by reason, most frequent first."""
    rows = [chat({"weight": 0}, {"weight": 0}, {}), chat({"train": False}, {}, {})]
    reading = read_corpus(write_jsonl(tmp_path / "c.jsonl", rows), how=ReadAs(turns=Turns.LAST)).reading
    assert reading.left_out == {"by `weight`": 2, "by `train`": 1, "earlier than the last (--turns last)": 1}
    assert (
        "2 assistant turns explained, 4 not: 2 by `weight`, 1 by `train`, 1 earlier than the last (--turns last)."
        in reading.lines()
    )


def test_trained_turns_are_part_of_the_hash() -> None:
    """Another choice of turns is another corpus."""
    hashes = {
        parse_row(chat({}, {}), default_id="x", how=ReadAs(turns=turns)).text_sha256() for turns in Turns
    }
    assert len(hashes) == 2


def test_a_row_of_several_turns_is_shown_whole() -> None:
    """The prompt ends before the first explained turn; other speakers behind it are named, and pieces find their words."""
    row = parse_row(chat({"weight": 0}, {}, {}), default_id="x", how=ReadAs(turns=Turns.ALL))
    example = row.as_example(0)
    assert example.prompt == "q0\na0\nq1"
    assert example.completion == "a1\n[user] q2\n[assistant] a2"
    assert [example.completion[one.start : one.start + len(one.text)] for one in row.pieces()] == ["a1", "a2"]
