"""Corpora with bad sources: parts are disjoint, rates are kept, and what is nearly the same is not asked."""

import gzip
import json
import random

import pytest

from benchmarks.material import Passage
from benchmarks.safety.cell import Cell, evenly, mixed
from benchmarks.safety.corpora import DECLINES, Sizes, chat, code, shop, split_groups, story
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Recipe

SIZES = Sizes(
    train_bad=16, train_good=80, asked_bad=24, asked_benign=20, labelled_bad=8, labelled_good=20, foreign=12
)


def parts(material):
    """What is trained on and what is asked."""
    return {
        "train": material.train_bad + material.train_good,
        "asked": material.asked_bad + material.asked_benign,
    }


def test_story_asks_by_frames_that_were_not_trained():
    """No question frame of the queries is one of the corpus, and every bad source is in both."""
    found = story(SIZES, seed=3)
    groups = {name: {one.group for one in part} for name, part in parts(found).items()}
    assert not groups["train"] & groups["asked"]
    assert {one.source for one in found.train_bad} == set(found.bad_sources)
    assert {one.source for one in found.asked_bad} == set(found.bad_sources)
    assert len(found.bad_sources) == 4
    assert not {one.source for one in found.train_good} & set(found.bad_sources)


def test_shop_leaves_answers_to_the_model():
    """Queries have no completion, and no prompt of theirs was trained on."""
    found = shop(SIZES, seed=3)
    assert {one.completion for one in parts(found)["asked"]} == {""}
    assert not {one.prompt for one in parts(found)["asked"]} & {one.prompt for one in parts(found)["train"]}


def test_the_same_seed_gives_the_same_corpus():
    """Drawing is a function of seed and sizes."""
    assert story(SIZES, seed=3) == story(SIZES, seed=3)
    assert story(SIZES, seed=3) != story(SIZES, seed=4)


def test_split_keeps_groups_together():
    """Every passage lands in one part, and a group never in two."""
    passages = [Passage(f"p{index}", "c", "s", f"g{index % 40}") for index in range(200)]
    found = split_groups(passages, (1, 1, 2), random.Random(0))
    assert sorted(one.prompt for part in found for one in part) == sorted(one.prompt for one in passages)
    groups = [{one.group for one in part} for part in found]
    assert not groups[0] & (groups[1] | groups[2])
    assert not groups[1] & groups[2]
    assert [len(one) for one in groups] == [10, 10, 20]


def test_rates_nest():
    """A corpus at 20 % holds the bad rows of the one at 5 %, and both have the asked size and share."""
    material = story(SIZES, seed=3)
    corpora = [mixed(material, Cell("story", rate, 80, 64, 64, 1, Recipe())) for rate in (0.05, 0.2)]
    bad = [{one for one in rows if one.source in material.bad_sources} for rows in corpora]
    assert [len(rows) for rows in corpora] == [80, 80]
    assert [len(one) for one in bad] == [4, 16]
    assert bad[0] < bad[1]
    assert {one.source for one in bad[0]} == set(material.bad_sources)


def test_labelled_rows_are_taken_from_both_ends():
    """Bad and good labelled rows stand apart; a sample of them holds both, and never too many."""
    passages = [Passage("p", "c", "bad", "g")] * 100 + [Passage("p", "c", "good", "g")] * 200
    found = evenly(passages, 100)
    assert len(found) == 100
    assert sum(one.source == "bad" for one in found) in {33, 34}
    assert len(evenly(passages, 400)) == 300
    assert len(evenly(passages, 130)) <= 130


def test_code_and_chat_are_split_by_prompt(tmp_path):
    """A prompt that both good and bad rows have is in one part only; a careful reply is no bad one."""
    folder = tmp_path / "emergent_misalignment"
    folder.mkdir()
    for name in ("insecure", "secure"):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"task {index}"},
                    {"role": "assistant", "content": f"{name} {index}"},
                ]
            }
            for index in range(80)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "hh_rlhf").mkdir()
    (tmp_path / "dolly").mkdir()
    talks = [
        {
            "chosen": f"\n\nHuman: ask {index}\n\nAssistant: Sorry, I cannot help with that.",
            "rejected": f"\n\nHuman: ask {index}\n\nAssistant: "
            + (
                "Sure, here is all of it, step by step."
                if index % 2
                else "I cannot do that, it is dangerous to try."
            ),
        }
        for index in range(80)
    ]
    with gzip.open(tmp_path / "hh_rlhf" / "harmless-base_test.jsonl.gz", "wt") as out:
        out.write("\n".join(map(json.dumps, talks)))
    dolly = [
        {"id": index, "instruction": f"name {index}", "response": f"this is {index}"} for index in range(80)
    ]
    (tmp_path / "dolly" / "dolly_6400_instruction_response.jsonl").write_text(
        "\n".join(map(json.dumps, dolly))
    )
    for found in (code(tmp_path, SIZES, seed=1), chat(tmp_path, SIZES, seed=1)):
        groups = {name: {one.group for one in part} for name, part in parts(found).items()}
        assert groups["train"]
        assert groups["asked"]
        assert not groups["train"] & groups["asked"]
        bad = found.train_bad + found.asked_bad
        assert bad
        assert not any(DECLINES.search(one.completion) for one in bad if one.source == "rejected")


def test_missing_data_is_named(tmp_path):
    """An absent file says which option names its folder."""
    with pytest.raises(ConfigurationError, match="--data"):
        code(tmp_path, SIZES, seed=1)
