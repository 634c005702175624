"""Building: what it makes of a corpus, what it refuses, a full disk, a killed build that goes on."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tests.tiny import (
    build,
    micro_config,
    shared_corpus,
    shared_micro_bundle,
    shared_micro_model,
    tiny_rows,
    write_jsonl,
    write_micro_model,
)
from wherefrom.attribution.bundles import build as building
from wherefrom.attribution.bundles import entries, shards
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.bundles.manifest import Manifest, read_card, read_manifest
from wherefrom.attribution.bundles.options import BuildOptions, default_layers
from wherefrom.attribution.bundles.shards import ShardFolder
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.retrieval.hnsw_index import HnswIndex
from wherefrom.errors import (
    ConfigurationError,
    DiskFull,
    EmptyCompletion,
    InvalidRecord,
    TemplateNotPrefix,
    UnusableModel,
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 20 rows; nobody changes it."""
    return write_jsonl(tmp_path_factory.mktemp("corpus") / "rows.jsonl", tiny_rows(20))


@pytest.fixture(scope="module")
def whole(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """An undisturbed build of them."""
    return build(shared_micro_model(), rows, tmp_path_factory.mktemp("whole") / "bundle")


def test_what_is_built(tmp_path: Path, rows: Path) -> None:
    """The manifest counts what was read, the work folder is gone, progress was told, times are in the card."""
    steps: list[tuple[str, int, int]] = []
    manifest = build_bundle(
        folders=ModelFolders(shared_micro_model()),
        corpus_path=rows,
        out=tmp_path / "bundle",
        options=BuildOptions(),
        progress=lambda *one: steps.append(one),
    )
    assert manifest == read_manifest(tmp_path / "bundle")
    assert (manifest.corpus.examples, manifest.corpus.skipped, manifest.corpus.truncated) == (20, 0, 0)
    assert manifest.corpus.tokens > manifest.corpus.completion_tokens > 0
    assert (manifest.parameters.form, manifest.parameters.layers) == ("forward", (0, 1, 2, 3))
    assert manifest.model.name == "micro-model"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bundle"]
    stages = [stage for stage, _, _ in steps]
    assert stages[0] == "load model"
    assert stages[-1] == "done"
    tokens = [(done, total) for stage, done, total in steps if stage.startswith("read signals")]
    assert tokens == [(0, manifest.corpus.tokens), (manifest.corpus.tokens, manifest.corpus.tokens)]
    assert set(read_card(tmp_path / "bundle")["cost"]["seconds"]) == {
        "model_pass",
        "whitening",
        "projection",
        "lexical",
        "index",
    }
    assert str(tmp_path) not in (tmp_path / "bundle" / "manifest.json").read_text(), (
        "no absolute path in a bundle"
    )


def test_forms() -> None:
    """`auto` is forward up to 8 layers; four hidden states are read, evenly spaced."""
    assert default_layers("forward", 12) == (0, 4, 8, 12)
    assert default_layers("activation", 12) == (3, 6, 9, 12)
    assert default_layers("forward", 1) == (0, 1)
    assert read_manifest(shared_micro_bundle("activation")).parameters.form == "activation"


def test_deep_model(tmp_path: Path, rows: Path) -> None:
    """Above 8 layers `auto` is activation."""
    config = micro_config(num_hidden_layers=9, hidden_size=16, num_attention_heads=2, intermediate_size=16)
    manifest = build(write_micro_model(tmp_path / "deep", config), rows, tmp_path / "bundle")
    assert (manifest.parameters.form, manifest.parameters.layers) == ("activation", (2, 4, 7, 9))


@pytest.mark.parametrize("kind", ["parquet", "arrow", "prompt"])
def test_same_rows_in_another_file(tmp_path: Path, whole: Manifest, kind: str) -> None:
    """JSONL, Parquet, a `datasets` folder and prompt / completion rows of the same texts give the same features."""
    content = tiny_rows(20)
    if kind == "prompt":
        content = [
            {
                "id": row["id"],
                "source": row["source"],
                "prompt": row["messages"][0]["content"],
                "completion": row["messages"][1]["content"],
            }
            for row in content
        ]
        other = write_jsonl(tmp_path / "other.jsonl", content)
    elif kind == "parquet":
        other = tmp_path / "other.parquet"
        pq.write_table(pa.Table.from_pylist(content), other)
    else:
        other = tmp_path / "other"
        other.mkdir()
        table = pa.Table.from_pylist(content)
        with (
            pa.OSFile(str(other / "data.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as stream,
        ):
            stream.write_table(table)
    second = build(shared_micro_model(), other, tmp_path / "two")
    assert second.corpus.sha256 == whole.corpus.sha256
    for name in ("features/a.npy", "features/vectors.npy"):
        assert second.files[name] == whole.files[name]


def test_rows_of_plain_text(tmp_path: Path) -> None:
    """A corpus of `text` rows, with a model whose tokenizer has no chat template."""
    model = write_micro_model(tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    texts = [{"text": row["messages"][1]["content"]} for row in tiny_rows(12)]
    manifest = build(model, write_jsonl(tmp_path / "texts.jsonl", texts), tmp_path / "bundle")
    assert manifest.corpus.completion_tokens == manifest.corpus.tokens - 12
    assert [example.prompt for example in iter_examples(tmp_path / "bundle")] == [""] * 12
    with pytest.raises(UnusableModel, match="no chat template"):
        build(model, shared_corpus(40), tmp_path / "other")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_smallest_corpora(tmp_path: Path, count: int) -> None:
    """One row is a corpus too."""
    corpus = write_jsonl(tmp_path / "c.jsonl", tiny_rows(count))
    build(shared_micro_model(), corpus, tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle", ModelFolders(shared_micro_model()))
    assert len(bundle.index) == len(bundle.similarity) == count
    assert np.isfinite(bundle.vectors).all()


def test_corpus_of_copies(tmp_path: Path) -> None:
    """The same text a hundred times is no reason to divide by zero."""
    row = tiny_rows(1)[0]
    corpus = write_jsonl(tmp_path / "c.jsonl", [{**row, "id": number} for number in range(100)])
    build(shared_micro_model(), corpus, tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle", ModelFolders(shared_micro_model()))
    assert np.isfinite(bundle.vectors).all()
    assert np.isfinite(bundle.pooled).all()


def test_skipped_and_cut_rows_are_counted(tmp_path: Path) -> None:
    """The manifest says how many bad rows were skipped and how many were cut."""
    long = {"prompt": "p", "completion": "refund " * 100}
    corpus = write_jsonl(tmp_path / "c.jsonl", [*tiny_rows(5), "{", long, {"prompt": 1}])
    with pytest.raises(InvalidRecord, match=r"c\.jsonl, line 6: malformed JSON"):
        build(shared_micro_model(), corpus, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    manifest = build(shared_micro_model(), corpus, tmp_path / "bundle", skip_bad=True, max_tokens=40)
    assert (manifest.corpus.examples, manifest.corpus.skipped, manifest.corpus.truncated) == (6, 2, 1)


def test_row_that_cannot_be_rendered(tmp_path: Path) -> None:
    """The training example is named."""
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"text": "some words"}, {"text": "a", "id": "short"}])
    with pytest.raises(
        EmptyCompletion, match="training example 'short': the completion has no token to explain"
    ):
        build(shared_micro_model(), corpus, tmp_path / "bundle")


def test_template_without_prefix(tmp_path: Path, rows: Path, micro_model_dir: Path) -> None:
    """A chat template that cannot be used ends the build with the first row's name."""
    template = micro_model_dir / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ '<|assistant|>' }}", "{{ '<|assistant|>Well, ' }}"))
    with pytest.raises(TemplateNotPrefix, match=r"training example 'tiny-0000': .*use a chat template whose"):
        build(micro_model_dir, rows, tmp_path / "bundle")


def test_every_file_can_be_read_by_others(tmp_path: Path, rows: Path) -> None:
    """A service runs as another user than the one who built: no file has a mode of its own."""
    build(shared_micro_model(), rows, tmp_path / "bundle")
    files = [one for one in (tmp_path / "bundle").rglob("*") if one.is_file()]
    assert len(files) > 5
    assert {one.stat().st_mode for one in files} == {(tmp_path / "bundle" / "manifest.json").stat().st_mode}


def test_weights_that_are_no_numbers(tmp_path: Path, rows: Path) -> None:
    """One NaN would make every score of the bundle one; the row is named, and no bundle appears."""
    model = Path(shutil.copytree(shared_micro_model(), tmp_path / "broken"))
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnusableModel, match=r"training example 1 of the corpus: .* not finite"):
        build(model, rows, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_place_below_a_file(tmp_path: Path, rows: Path) -> None:
    """Told before the model is loaded."""
    with pytest.raises(ConfigurationError, match=r"corpus.* is not a folder that you may write to"):
        build(shared_micro_model(), rows, rows / "bundle")


def test_out_exists(tmp_path: Path, rows: Path) -> None:
    """A bundle is never written over, not even by an empty folder's name."""
    (tmp_path / "bundle").mkdir()
    with pytest.raises(
        ConfigurationError, match="bundle already exists and bundles are never changed; choose another folder"
    ):
        build(shared_micro_model(), rows, tmp_path / "bundle")


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small shards; numbers of the shards that went through the model."""
    monkeypatch.setattr(shards, "SHARD_ROWS", 8)
    computed: list[int] = []
    compute = ShardFolder.compute

    def counted(self: ShardFolder, number: int, *arguments: Any) -> int:
        computed.append(number)
        return compute(self, number, *arguments)

    monkeypatch.setattr(ShardFolder, "compute", counted)
    return computed


def kill_at(stage: str, reports: int) -> Callable[..., None]:
    """A progress function that ends the build at the given report of a stage."""
    seen = 0

    def progress(name: str, done: int, total: int) -> None:
        nonlocal seen
        seen += name.startswith(stage)
        if seen == reports:
            raise Killed

    return progress


@pytest.mark.parametrize(
    ("stage", "reports", "again"), [("read signals", 3, [2]), ("whiten", 2, []), ("index", 1, [])]
)
def test_killed_build_goes_on(
    tmp_path: Path,
    rows: Path,
    passes: list[int],
    *,
    stage: str,
    reports: int,
    again: list[int],
) -> None:
    """Shards that are finished do not go through the model again, and the bundle is the one of an undisturbed build."""
    whole = build(shared_micro_model(), rows, tmp_path / "whole")
    assert passes == [0, 1, 2]
    passes.clear()
    with pytest.raises(Killed):
        build_bundle(
            folders=ModelFolders(shared_micro_model()),
            corpus_path=rows,
            out=tmp_path / "bundle",
            options=BuildOptions(),
            progress=kill_at(stage, reports),
        )
    assert not (tmp_path / "bundle").exists()
    passes.clear()
    assert build(shared_micro_model(), rows, tmp_path / "bundle").name == whole.name
    assert passes == again
    assert not (tmp_path / "bundle.building").exists()


def test_half_written_shard_is_computed_again(
    tmp_path: Path, rows: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard counts only under its final name."""
    with monkeypatch.context() as patch:
        patch.setattr("wherefrom.atomic.os.fsync", lambda number: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            build(shared_micro_model(), rows, tmp_path / "bundle")
    passes.clear()
    build(shared_micro_model(), rows, tmp_path / "bundle")
    assert passes == [0, 1, 2]


def test_unfinished_build_of_other_inputs(
    tmp_path: Path, rows: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards of another corpus, form or limit are refused, not mixed in."""
    with monkeypatch.context() as patch:
        patch.setattr(entries, "LIBRARIES", ("no such library",))
        with pytest.raises(Exception, match="no such library"):
            build(shared_micro_model(), rows, tmp_path / "bundle")
    other = write_jsonl(tmp_path / "other.jsonl", tiny_rows(19))
    for corpus, options in ((other, {}), (rows, {"form": "activation"}), (rows, {"max_tokens": 30})):
        with pytest.raises(
            ConfigurationError,
            match=r"bundle\.building holds an unfinished build .*delete it or choose another --out",
        ):
            build(shared_micro_model(), corpus, tmp_path / "bundle", **options)
    assert build(shared_micro_model(), rows, tmp_path / "bundle").corpus.examples == 20


def test_a_first_build_that_read_no_row_leaves_nothing(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder, no work folder and none above them, whatever stopped it."""
    bad = write_jsonl(tmp_path / "bad.jsonl", [*tiny_rows(2), {"prompt": "no completion"}])
    out = tmp_path / "new" / "deeper" / "bundle"
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidRecord):
        build(shared_micro_model(), bad, out)
    assert sorted(tmp_path.iterdir()) == before
    for error in (full_disk(), Killed()):
        monkeypatch.setattr(building, "reader_of", fail(error))
        with pytest.raises((DiskFull, Killed)):
            build(shared_micro_model(), rows, out)
        assert sorted(tmp_path.iterdir()) == before
    monkeypatch.undo()
    (tmp_path / "new").mkdir()
    with pytest.raises(Killed):
        build_bundle(
            folders=ModelFolders(shared_micro_model()),
            corpus_path=rows,
            out=out,
            options=BuildOptions(),
            progress=kill_at("read signals (tokens)", 1),
        )
    assert list((tmp_path / "new").iterdir()) == []


def test_a_build_that_was_killed_before_it_read_a_row_claims_nothing(tmp_path: Path, rows: Path) -> None:
    """Its mark cannot be taken away by a process that is gone; a build of other inputs takes its place."""
    work = tmp_path / "bundle.building"
    work.mkdir()
    (work / "inputs.sha256").write_text("another corpus")
    assert build(shared_micro_model(), rows, tmp_path / "bundle").corpus.examples == 20
    assert not work.exists()


def full_disk() -> OSError:
    """What a write says when nothing is left."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(error: BaseException) -> Callable[..., Any]:
    """A function that raises."""

    def raise_it(*arguments: Any, **options: Any) -> Any:
        raise error

    return raise_it


_rename = Path.rename


def rename_but_no_bundle(path: Path, target: Path, error: Exception) -> Path:
    """The last step of a build fails, those before it do not."""
    if path.name == "bundle":
        raise error
    return _rename(path, target)


SEAMS: dict[str, tuple[str, Callable[..., Any]]] = {
    "shard": ("wherefrom.atomic.os.fsync", fail(full_disk())),
    "mark": ("wherefrom.atomic.Path.write_bytes", fail(full_disk())),
    "quota": ("wherefrom.atomic.os.fsync", fail(OSError(errno.EDQUOT, "quota"))),
    "whitening": (
        "wherefrom.attribution.bundles.build.save_file",
        fail(SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")),
    ),
    "factors": ("wherefrom.attribution.factors.write_all", fail(full_disk())),
    "factor files": ("wherefrom.attribution.factors.shutil.copyfileobj", fail(full_disk())),
    "arrays": (
        "wherefrom.attribution.bundles.indexes.np.save",
        fail(OSError("4715 requested and 3040 written")),
    ),
    "graph": ("wherefrom.attribution.retrieval.hnsw_index.HnswIndex.save", fail(full_disk())),
    "texts": ("wherefrom.attribution.bundles.rendering.write_examples", fail(full_disk())),
    "parts": ("wherefrom.attribution.array_files.write_all", fail(full_disk())),
    "words": ("wherefrom.attribution.bundles.features.write_lexical", fail(full_disk())),
    "rename": (
        "wherefrom.attribution.bundles.build.Path.rename",
        lambda self, target: rename_but_no_bundle(self, target, full_disk()),
    ),
}


@pytest.mark.parametrize("seam", SEAMS)
def test_full_disk(
    tmp_path: Path, rows: Path, whole: Manifest, *, monkeypatch: pytest.MonkeyPatch, seam: str
) -> None:
    """Nothing stands at OUT, the error says what to do, and the same command finishes with the same name."""
    target, failing = SEAMS[seam]
    with monkeypatch.context() as patch:
        patch.setattr(target, failing)
        with pytest.raises(
            DiskFull,
            match=r"the disk is full while building .*bundle; free some space and rerun the command",
        ):
            build(shared_micro_model(), rows, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    assert build(shared_micro_model(), rows, tmp_path / "bundle").name == whole.name


def test_graph_on_a_full_device() -> None:
    """Hnswlib does not notice that nothing was written; we do."""
    vectors = np.eye(4, dtype=np.float32)
    with pytest.raises(OSError, match="No space left"):
        HnswIndex.build(vectors).save(Path("/dev/full"))


def test_other_errors_are_not_called_a_full_disk(
    tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder is not a full one."""
    monkeypatch.setattr(Path, "rename", fail(OSError(errno.EROFS, "read-only")))
    with pytest.raises(OSError, match="read-only"):
        build(shared_micro_model(), rows, tmp_path / "bundle")


def test_moments_are_added_up_in_one_file(
    tmp_path: Path, rows: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large ones are written after every few shards: what a stop lost is computed again, and the sums are those of an undisturbed build."""
    whole = build(shared_micro_model(), rows, tmp_path / "whole")
    passes.clear()
    monkeypatch.setattr(shards, "_LARGE_MOMENTS", 0)
    monkeypatch.setattr(shards, "_SHARDS_BETWEEN", 2)
    with pytest.raises(Killed):
        build_bundle(
            folders=ModelFolders(shared_micro_model()),
            corpus_path=rows,
            out=tmp_path / "bundle",
            options=BuildOptions(check_learning=False),
            progress=kill_at("read signals", 2),
        )
    raw = tmp_path / "bundle.building" / "raw"
    assert sorted(one.name for one in raw.iterdir()) == ["shard-00000.npz"]
    assert build(shared_micro_model(), rows, tmp_path / "bundle").name == whole.name
    assert passes == [0, 0, 1, 2]
