"""What is measured is rendered as the audited model's training rendered it, whatever tokenizer the base model's folder holds."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.tiny import build, shared_micro_model, tiny_queries, tiny_rows, write_adapter, write_jsonl
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.bundles.model_location import write_note
from wherefrom.attribution.corpus import ReadAs, read_corpus
from wherefrom.attribution.corpus.rows import Turns
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.models.placement import CPU
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.errors import NotFound
from wherefrom.records import BundleInfo, FlaggedRecord, GroupRequest, Method, Query
from wherefrom.retraining import effects
from wherefrom.retraining.recipe import Recipe, write_recipe
from wherefrom.retraining.training import token_rows
from wherefrom.settings import Settings
from worker.pool.effect_meter import RetrainingMeter, open_meter

#: Unlike the tiny tokenizer's template in its marks and its end.
TEMPLATE = (
    "{% for message in messages %}[{{ mood or 'none' }} {{ message['role'] }}] {{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}[{{ mood or 'none' }} assistant] {% endif %}"
)


class Seen(Exception):
    """What the trainings were to begin with."""

    def __init__(self, language, corpus):
        super().__init__()
        self.language, self.corpus = language, corpus


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """What `measure_citations` is given when an effect over a bundle is asked for."""

    def seen(language, corpus, **_):
        raise Seen(language, corpus)

    monkeypatch.setattr(effects, "measure_citations", seen)
    write_recipe(tmp_path / "recipe.json", Recipe(epochs=1))

    def ask(folder: Path, folders: ModelFolders, corpus: Path, **more) -> Seen:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        named = folder.rename(folder.with_name(manifest["name"]))
        write_note(named, folders)
        info = BundleInfo(
            id=1,
            name=manifest["name"],
            model=manifest["model"]["name"],
            corpus_sha256=manifest["corpus"]["sha256"],
            corpus_examples=manifest["corpus"]["examples"],
            form=manifest["parameters"]["form"],
            active=True,
            created_at=datetime.now(UTC),
        )
        settings = Settings(
            recipe=tmp_path / "recipe.json",
            bundles_dir=named.parent,
            models_dir=tmp_path / "nowhere",
            measure_dir=tmp_path / "measured",
            recipe_corpus=corpus,
            **more,
        )
        meter = open_meter(info, settings)
        row = tiny_queries(1)[0]
        record = FlaggedRecord(messages=row["messages"], completion=row["completion"], model="m")
        assert isinstance(meter, RetrainingMeter)
        example_id = meter._corpus[0].example_id
        with pytest.raises(Seen) as seen:
            meter.measure(
                Query.from_record("q", record), example_id, method=Method.REFIT, keep_going=lambda: None
            )
        return seen.value

    return ask


def _own_tokenizer(folder: Path) -> Path:
    """Give a folder the tiny tokenizer with another template."""
    for file in shared_micro_model().glob("*token*"):
        if not (folder / file.name).exists():
            shutil.copy(file, folder / file.name)
    for file in folder.glob("chat_template*"):
        file.unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | {"chat_template": TEMPLATE}), encoding="utf-8"
    )
    return folder


def _conversations(count: int):
    """Rows with two answers each."""
    again = [{"role": "user", "content": "And then?"}, {"role": "assistant", "content": "Then it ends."}]
    for row in tiny_rows(count):
        answer = [] if "completion" not in row else [{"role": "assistant", "content": row["completion"]}]
        yield {"id": row["id"], "source": row["source"], "messages": [*row["messages"], *answer, *again]}


def _check(seen: Seen, audited) -> None:
    """The rows are the same tokens for both models, and not those of the base model's own folder."""
    rows = token_rows(seen.language, seen.corpus, max_tokens=128)
    assert rows == token_rows(audited, seen.corpus, max_tokens=128)
    plain = load_model(shared_micro_model())
    assert rows != token_rows(plain, seen.corpus, max_tokens=128)


def test_a_group_is_found_by_ids_or_source_and_has_controls_of_its_own(tmp_path, monkeypatch):
    """Exactly the rows that were named are left out; what says nearly the same is no control; unknown names are told."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", tiny_rows(24))
    build(shared_micro_model(), corpus, tmp_path / "b" / "bundle")
    manifest = read_manifest(tmp_path / "b" / "bundle")
    rows = read_corpus(corpus).rows
    meter = RetrainingMeter(
        manifest,
        rows,
        groups=[0, 0, *range(1, 23)],
        recipe=Recipe(epochs=1, max_tokens=48),
        base_dir=shared_micro_model,
        final=lambda: ModelFolders(shared_micro_model()),
        runs_dir=tmp_path / "runs",
        placement=CPU,
    )
    asked = Query.from_record("q", FlaggedRecord(prompt="a", completion="b c d", model="m"))
    found = meter.measure_group(
        asked,
        GroupRequest(example_ids=(rows[3].example_id, rows[0].example_id)),
        keep_going=lambda: None,
    )
    assert found.group == (rows[0].example_id, rows[3].example_id)
    assert (found.seeds, len(found.controls), found.weak) == (3, 3, False)
    controls = [one for control in found.controls for one in control.example_ids]
    assert len(set(controls)) == 6
    assert {rows[0].example_id, rows[1].example_id, rows[3].example_id}.isdisjoint(controls)
    assert found.low_nats is not None
    assert found.high_nats is not None
    assert found.z is not None
    assert (found.low_nats > 0 or found.high_nats < 0) == (abs(found.z) > 1.96)
    sources = [row.source for row in rows]
    source = max(set(sources), key=sources.count)
    named = meter._rows_of(GroupRequest(source=source))
    assert named == tuple(row for row, one in enumerate(sources) if one == source)
    with pytest.raises(NotFound, match="no source 'nowhere'"):
        meter._rows_of(GroupRequest(source="nowhere"))
    with pytest.raises(NotFound, match=r"no training example 'x' \(1 of 2"):
        meter._rows_of(GroupRequest(example_ids=(rows[0].example_id, "x")))


def test_an_adapter_with_a_tokenizer_of_its_own(tmp_path, measured):
    """Its template, the bundle's template variables and turns; the weights are the base model's."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", list(_conversations(6)))
    adapter = _own_tokenizer(write_adapter(tmp_path / "adapter", shared_micro_model()))
    rule = RenderingRule(template_args={"mood": "calm"})
    read = ReadAs(turns=Turns.ALL)
    folders = ModelFolders(shared_micro_model(), adapter)
    build(folders.model, corpus, tmp_path / "b" / "bundle", adapter=adapter, rendering=rule, read=read)
    seen = measured(tmp_path / "b" / "bundle", folders, corpus)
    _check(seen, load_model(shared_micro_model(), adapter, rule=rule))
    text = seen.language.tokenizer.decode(token_rows(seen.language, seen.corpus, max_tokens=250)[0].ids)
    assert "[calm assistant]" in text
    assert len(seen.corpus[0].trained) == 1, "beside the last one"
    own = load_model(shared_micro_model()).model.state_dict()
    assert all(value.equal(own[name]) for name, value in seen.language.model.state_dict().items())


def test_whole_weights_with_a_tokenizer_of_their_own(tmp_path, measured):
    """A full fine-tune that brought a chat template: its base model is trained on texts by that template."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", tiny_rows(6))
    model = _own_tokenizer(Path(shutil.copytree(shared_micro_model(), tmp_path / "model")))
    build(model, corpus, tmp_path / "b" / "bundle")
    seen = measured(
        tmp_path / "b" / "bundle", ModelFolders(model), corpus, base_model_dir=shared_micro_model()
    )
    _check(seen, load_model(model))
