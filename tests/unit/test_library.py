"""The engine as a library: `from wherefrom import open_bundle`."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wherefrom
from tests.tiny import TINY_MODEL, opened, shared_bundle, shared_micro_model, tiny_queries
from wherefrom import AttributionResult, OpenedBundle, errors, open_bundle
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.model_location import write_note
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import attribute_all
from wherefrom.library import COLUMNS
from wherefrom.records import Message, Query, Role, Span

ASKED: dict[str, Any] = {
    "prompt": "Hello, I have a question.",
    "completion": "The Fenmoor kettle costs 80 coins.",
}


@pytest.fixture(scope="module")
def bundle() -> Iterator[OpenedBundle]:
    """The tiny model's bundle."""
    with open_bundle(str(shared_bundle()), model=TINY_MODEL) as opened_bundle:
        yield opened_bundle


@pytest.fixture(scope="module")
def found(bundle: OpenedBundle) -> AttributionResult:
    """Its answer to one output."""
    return bundle.attribute(**ASKED, top_k=4, opponents=2)


#: Prints what importing the package loaded, then what asking for the engine says where torch is missing.
_FIRST_IMPORT = """
import sys, wherefrom, wherefrom.client
print({"torch", "numpy", "transformers", "pandas"} & set(sys.modules))
sys.modules["torch"] = None
try:
    wherefrom.open_bundle
except ImportError as error:
    print(error)
"""


def test_importing_the_package_loads_no_engine() -> None:
    """The client and the page import `wherefrom` in every process; without the engine, its names say how to install it."""
    done = subprocess.run([sys.executable, "-c", _FIRST_IMPORT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "set()",
        'wherefrom.open_bundle needs the engine (torch is missing): pip install "wherefrom[engine]"',
    ]


def test_an_unknown_name() -> None:
    """An AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'open_budnle'"):
        wherefrom.open_budnle  # noqa: B018 - a misspelt name is the point


def test_the_answer_is_the_engines(bundle: OpenedBundle, found: AttributionResult) -> None:
    """The same citations as the command line gives, opponents apart, the numbers of the answer beside them."""
    engine = LanguageAttributor(opened())
    turns = (Message(role=Role.USER, content=ASKED["prompt"]),)
    query = Query(key="query-000000", turns=turns, completion=ASKED["completion"], plain_prompt=True)
    prepared = engine.prepare(query, max_tokens=1024, over_long="truncate")
    expected = attribute_all(engine, [prepared], top_k=4, opponents=2, progress=lambda *_: None)[0]
    assert (*found.citations, *found.opponents) == expected.citations
    assert [one.rank for one in found.citations] == [1, 2, 3, 4]
    assert all(one.rank < 0 for one in found.opponents)
    assert (found.key, found.bundle) == ("query-000000", bundle.name)
    assert (found.loss_nats, found.tokens, found.truncated) == (expected.loss_nats, expected.tokens, False)
    assert (found.conformal_p, found.novelty_p, found.abstained) == (None, None, None)


def test_the_table(bundle: OpenedBundle, found: AttributionResult) -> None:
    """One row per citation, then per opponent, under the documented columns; many answers stand under each other."""
    table = found.to_pandas()
    assert tuple(table.columns) == COLUMNS
    ranked = [*found.citations, *found.opponents]
    assert table["rank"].tolist() == [one.rank for one in ranked]
    assert table["source"].tolist() == [one.example.source for one in ranked]
    assert table["example_completion"].tolist() == [one.example.completion for one in ranked]
    assert table["influence_score"].tolist() == [one.influence_score for one in ranked]
    both = bundle.attribute_many([ASKED | {"id": "a"}, ASKED], top_k=2, opponents=0)
    assert both.to_pandas()["key"].tolist() == ["a", "a", "query-000001", "query-000001"]
    assert both[1:].to_pandas()["key"].tolist() == ["query-000001"] * 2
    assert bundle.attribute_many([]).to_pandas().empty


def test_pandas_is_missing(found: AttributionResult, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text names the extra."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(errors.ConfigurationError, match=r'pip install "wherefrom\[pandas\]"'):
        found.to_pandas()


def test_every_way_to_ask(bundle: OpenedBundle, found: AttributionResult) -> None:
    """A chat, turns of ours, spans in three forms, a preferred answer, and as many citations as asked for."""
    turn = {"role": "user", "content": ASKED["prompt"]}
    completion = ASKED["completion"]
    for messages in ([turn], [Message(role=Role.USER, content=ASKED["prompt"])]):
        asked = bundle.attribute(messages=messages, completion=completion, top_k=4, opponents=2)
        assert asked.citations == found.citations
    parts = [
        bundle.attribute(**ASKED, spans=[one], top_k=1, opponents=0)
        for one in ((4, 11), Span(start=4, end=11), {"start": 4, "end": 11})
    ]
    assert parts[0] == parts[1] == parts[2]
    assert 0 < parts[0].tokens < found.tokens
    other = bundle.attribute(**ASKED, preferred="I do not know.", top_k=1, opponents=0)
    assert other.citations[0].influence_score != found.citations[0].influence_score
    outputs = [{name: row[name] for name in ("id", "messages", "completion")} for row in tiny_queries(3)]
    many = bundle.attribute_many(outputs, top_k=1, opponents=0)
    assert len(many) == 3
    assert [one.key for one in many] == [row["id"] for row in tiny_queries(3)]


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"prompt": "a"}, errors.InvalidRecord, "output query-000000: .*completion"),
        ({"prompt": "a", "completion": " "}, errors.InvalidRecord, "only white space"),
        ({"completion": "a"}, errors.InvalidRecord, "exactly one of `prompt` and `messages`"),
        (
            {"id": "q7", "prompt": "a", "completion": "b", "spans": [(0, 9)]},
            errors.InvalidRecord,
            "output q7: .*span",
        ),
        ({"prompt": "a", "completion": "b", "spans": [3]}, errors.InvalidRecord, "spans"),
        ({"prompt": "a", "completion": "b", "promt": "c"}, errors.InvalidRecord, "promt"),
        (
            {"prompt": "a", "completion": "b", "preferred": "b"},
            errors.InvalidRecord,
            "equals the completion",
        ),
    ],
)
def test_what_cannot_be_asked(
    bundle: OpenedBundle, asked: dict[str, object], error: type[Exception], words: str
) -> None:
    """Errors of ours, with the output's name and the field."""
    with pytest.raises(error, match=words):
        bundle.attribute_many([asked])


@pytest.mark.parametrize(
    "option", [{"top_k": 0}, {"top_k": 1.5}, {"opponents": -1}, {"max_tokens": 1}, {"over_long": "cut"}]
)
def test_options_that_cannot_be_used(bundle: OpenedBundle, option: dict[str, Any]) -> None:
    """The text names the option."""
    with pytest.raises(errors.ConfigurationError, match=next(iter(option))):
        bundle.attribute(**ASKED, **option)


def test_over_long_outputs_are_refused_where_asked(bundle: OpenedBundle) -> None:
    """As on the command line."""
    with pytest.raises(errors.OutputTooLong):
        bundle.attribute(prompt="a", completion="word " * 50, max_tokens=16, over_long="reject")
    assert bundle.attribute(prompt="a", completion="word " * 50, max_tokens=16).truncated


def test_the_model_is_found_beside_the_bundle(tmp_path: Path) -> None:
    """`model=` may be left out where the folders that were built from are noted; another model is refused."""
    home = Path(shutil.copytree(shared_bundle(), tmp_path / "bundle"))
    with pytest.raises(errors.UnusableModel, match="was not found"):
        open_bundle(home)
    with pytest.raises(errors.BundleMismatch):
        open_bundle(home, model=shared_micro_model())
    write_note(home, ModelFolders(TINY_MODEL, None))
    asked = open_bundle(home)
    assert asked.manifest.corpus.examples == len(opened().store)
    asked.close()
    asked.close()
    with pytest.raises(errors.ConfigurationError, match="is closed"):
        asked.attribute(**ASKED)
    with pytest.raises(errors.UnknownBundle):
        open_bundle(tmp_path / "none")


def test_a_group(bundle: OpenedBundle) -> None:
    """Several outputs as one question, held against acceptable answers; a table has one row per citation."""
    outputs = [
        {name: row[name] for name in ("id", "messages", "completion")} | {"preferred": "Ask us first."}
        for row in tiny_queries(3)
    ]
    against = [{"prompt": "Can I return it?", "completion": "Please ask our support team."}]
    found = bundle.attribute_group(outputs, against=against, key="refunds", top_k=4, opponents=1)
    assert found.key == "refunds"
    assert [one.key for one in found.members] == [row["id"] for row in outputs]
    assert [len(one.member_influence) for one in found.citations] == [3] * 4
    assert len(found.to_pandas()) == len(found.citations) + len(found.opponents)
    with pytest.raises(errors.ConfigurationError, match="a group has 1 to 256"):
        bundle.attribute_group([])
    with pytest.raises(errors.InvalidRecord, match="output query-000000"):
        bundle.attribute_group([{"prompt": "x"}])
