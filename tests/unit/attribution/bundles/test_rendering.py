"""What a bundle knows of how its texts are rendered: templates and variables given at build, joined rows, rows left out."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import TINY_MODEL, build, shared_micro_bundle, shared_micro_model, tiny_rows, write_jsonl
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.rule import RenderingRule, parse_template_args, read_template
from wherefrom.errors import (
    ConfigurationError,
    EmptyCompletion,
    NoChatTemplate,
    TemplateRefused,
    UnusableModel,
)
from wherefrom.records import FlaggedRecord, Query

NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' + style | default('') }}{% endif %}"
)


def plain_rows(count: int) -> list[dict[str, str]]:
    """Rows of the tiny corpus as prompt and completion."""
    return [
        {
            "id": row["id"],
            "prompt": row["messages"][0]["content"],
            "completion": row["messages"][1]["content"],
        }
        for row in tiny_rows(count)
    ]


@pytest.fixture
def bare_model(micro_model_dir: Path) -> Path:
    """A model without a chat template."""
    (micro_model_dir / "chat_template.jinja").unlink()
    return micro_model_dir


def flagged(**content: object) -> Query:
    """A query as the service makes it of a flagged output."""
    return Query.from_record(
        "q", FlaggedRecord.model_validate({"model": "m", "completion": "ten days", **content})
    )


@pytest.mark.parametrize("kind", ["prompt", "text"])
def test_model_without_a_template(tmp_path: Path, bare_model: Path, kind: str) -> None:
    """Built from text rows or from prompts with completions, it answers flagged outputs with a prompt and refuses messages."""
    rows = plain_rows(12)
    if kind == "text":
        rows = [{"id": row["id"], "text": f"{row['prompt']} {row['completion']}"} for row in rows]
    manifest = build(
        bare_model,
        write_jsonl(tmp_path / "c.jsonl", rows),
        tmp_path / "bundle",
        rendering=RenderingRule(join=" "),
    )
    assert manifest.parameters.rendering == RenderingRule(join=" ", join_ends=kind == "prompt")
    engine = LanguageAttributor(open_bundle(tmp_path / "bundle", ModelFolders(bare_model)))
    known = plain_rows(4)[3]
    query = flagged(prompt=known["prompt"], completion=known["completion"])
    prepared = engine.prepare(query, max_tokens=200, over_long="reject")
    read = engine._bundle.language.tokenizer.decode(prepared.row.ids)
    assert read == f"{known['prompt']} {known['completion']}" + ("<|end|>" if kind == "prompt" else "")
    answer = engine.attribute([prepared], top_k=3, opponents=0)[0]
    assert answer.citations[0].example.example_id == known["id"]
    messages = [{"role": "user", "content": known["prompt"]}]
    with pytest.raises(NoChatTemplate, match="`messages` cannot be rendered"):
        engine.prepare(flagged(messages=messages), max_tokens=200, over_long="reject")


def test_template_and_variables_of_the_build(tmp_path: Path) -> None:
    """They are kept in the manifest and used for queries too; another variable is another bundle."""
    corpus = write_jsonl(tmp_path / "c.jsonl", tiny_rows(12))
    options: dict[str, Any] = {"chat_template": NO_SYSTEM.replace("style", "''"), "template_args": {}}
    plain = build(shared_micro_model(), corpus, tmp_path / "plain", rendering=RenderingRule(**options))
    model = Path(shutil.copytree(shared_micro_model(), tmp_path / "model"))
    (model / "chat_template.jinja").write_text("{{ raise_exception('not this one') }}")
    given: dict[str, Any] = {"chat_template": NO_SYSTEM, "template_args": {"other": 1}}
    manifest = build(model, corpus, tmp_path / "bundle", rendering=RenderingRule(**given))
    assert manifest.name != plain.name
    assert read_manifest(tmp_path / "bundle").parameters.rendering == RenderingRule(**given)
    engine = LanguageAttributor(open_bundle(tmp_path / "bundle", ModelFolders(model)))
    row = engine.prepare(flagged(prompt="How long?"), max_tokens=200, over_long="reject").row
    assert (
        engine._bundle.language.tokenizer.decode(row.ids[: row.start])
        == "<|user|>How long?<|end|><|assistant|>"
    )
    with pytest.raises(TemplateRefused, match="System role not supported"):
        engine.prepare(
            flagged(messages=[{"role": "system", "content": "Be short."}]), max_tokens=200, over_long="reject"
        )


def test_bundles_from_before_keep_their_bytes() -> None:
    """Where nothing was given, the manifest says nothing, as before there was anything to give."""
    assert b'"rendering"' not in (shared_micro_bundle() / "manifest.json").read_bytes()


def test_rows_that_cannot_be_rendered(tmp_path: Path) -> None:
    """With `skip_bad` they are left out and counted, and the first ones are named with the reason."""
    system = {"role": "system", "content": "Be short."}
    rows = tiny_rows(9)
    for row in (rows[2], rows[5], rows[6], rows[7]):
        row["messages"].insert(0, system)
    corpus = write_jsonl(tmp_path / "c.jsonl", [*rows, {"id": "short", "text": "A"}])
    messages: list[str] = []

    def made(out: str, *, skip_bad: bool):
        return build_bundle(
            folders=ModelFolders(shared_micro_model()),
            corpus_path=corpus,
            out=tmp_path / out,
            options=BuildOptions(
                rendering=RenderingRule(chat_template=NO_SYSTEM),
                skip_bad=skip_bad,
                candidates=10,
                check_learning=False,
            ),
            progress=lambda *one: None,
            on_note=messages.append,
        )

    with pytest.raises(
        TemplateRefused, match=r"'tiny-0002': the chat template failed: System role not supported"
    ):
        made("refused", skip_bad=False)
    manifest = made("bundle", skip_bad=True)
    assert (manifest.corpus.examples, manifest.corpus.skipped, manifest.parameters.candidates) == (5, 5, 5)
    assert [line for line in messages if not line.startswith("Read ")] == [
        "rows left out because they cannot be rendered: 5: "
        + "; ".join(
            f"training example 'tiny-000{number}': the chat template failed: System role not supported [template_refused]"
            for number in (2, 5, 6)
        )
        + "; and 2 more"
    ]
    kept = write_jsonl(tmp_path / "kept.jsonl", [row for row in rows if len(row["messages"]) == 2])
    assert (
        build(
            shared_micro_model(), kept, tmp_path / "same", rendering=RenderingRule(chat_template=NO_SYSTEM)
        ).corpus.sha256
        == manifest.corpus.sha256
    )


def test_no_row_left(tmp_path: Path) -> None:
    """Where every row is bad, the first one's own error is told."""
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"text": "A"}, {"text": "B"}])
    with pytest.raises(EmptyCompletion, match="'row-000000'"):
        build(shared_micro_model(), corpus, tmp_path / "bundle", skip_bad=True)


def test_tokenizer_with_more_tokens_than_the_model(tmp_path: Path, micro_model_dir: Path) -> None:
    """A token that the tokenizer has and the model has not is a fault of the folder, named."""
    tokenizer = _with_one_more_token(micro_model_dir, "kettle")
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"text": "The red kettle is here."}])
    with pytest.raises(
        UnusableModel, match=rf"token id {tokenizer}, but the model has {tokenizer} embeddings"
    ):
        build(micro_model_dir, corpus, tmp_path / "bundle")


def _with_one_more_token(model: Path, word: str) -> int:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(TINY_MODEL), local_files_only=True)
    count = len(tokenizer)
    tokenizer.add_tokens([word])
    tokenizer.save_pretrained(str(model))
    return count


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{", "is not JSON"), ("[1]", "is a JSON list"), ('{"tokenize": true}', "tokenize cannot be set")],
)
def test_template_variables_that_cannot_be_used(text: str, problem: str) -> None:
    """What is no object of variables is refused before anything is read."""
    with pytest.raises(ConfigurationError, match=problem):
        parse_template_args(text)


def test_template_file(tmp_path: Path) -> None:
    """Read as text; a missing file and one that is no text are refused."""
    (tmp_path / "t.jinja").write_text("{{ 1 }}")
    assert read_template(tmp_path / "t.jinja") == "{{ 1 }}"
    assert read_template(None) is None
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    for name in ("away", "bytes"):
        with pytest.raises(ConfigurationError, match=f"{name}: the chat template"):
            read_template(tmp_path / name)
