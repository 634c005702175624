"""Opening a bundle: every change of a file is found before the file is used; the model must be the bundle's."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import (
    build,
    changed_json,
    shared_corpus,
    shared_micro_bundle,
    shared_micro_model,
    write_adapter,
)
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.examples import ExampleTexts, iter_examples
from wherefrom.attribution.bundles.manifest import FileEntry, Manifest, read_card, read_manifest
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.errors import BundleCorrupt, BundleMismatch, UnknownBundle

FILES = [
    "calibration.json",
    "card.json",
    "corpus/examples.jsonl",
    "corpus/groups.npy",
    "corpus/offsets.npy",
    "corpus/token_ids.npy",
    "corpus/token_offsets.npy",
    "corpus/token_starts.npy",
    "features/a.npy",
    "features/a_scale.npy",
    "features/b.npy",
    "features/b_scale.npy",
    "features/norms.npy",
    "features/offsets.npy",
    "features/pooled.npy",
    "features/pooled_centre.npy",
    "features/vectors.npy",
    "index/originals.npy",
    "index/projected.hnsw",
    "index/similarity.hnsw",
    "lexical/data.csc.index.npy",
    "lexical/indices.csc.index.npy",
    "lexical/indptr.csc.index.npy",
    "lexical/params.index.json",
    "lexical/vocab.index.json",
    "projection.safetensors",
    "whitening.safetensors",
]


def test_intact(micro_bundle: Path) -> None:
    """An untouched copy opens, and the manifest lists every file."""
    manifest = read_manifest(micro_bundle)
    assert sorted(manifest.files) == FILES
    bundle = open_bundle(micro_bundle, ModelFolders(shared_micro_model()))
    assert bundle.manifest == manifest
    assert len(bundle.store) == len(bundle.texts) == manifest.corpus.examples == 40
    assert bundle.store.bytes_per_example > 0
    assert [example.row for example in iter_examples(micro_bundle)] == list(range(40))
    assert [example.row for example in ExampleTexts(micro_bundle).read([30, 2])] == [30, 2]
    assert read_card(micro_bundle)["cost"]["split_pass"] is True


@pytest.mark.parametrize("name", FILES)
def test_one_byte_changed(micro_bundle: Path, name: str) -> None:
    """One flipped bit in the middle of any file is found, and the file is named."""
    content = bytearray((micro_bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (micro_bundle / name).write_bytes(content)
    with pytest.raises(BundleCorrupt, match=f"file {name} has changed"):
        open_bundle(micro_bundle, ModelFolders(shared_micro_model()))


@pytest.mark.parametrize("name", ["features/a.npy", "card.json"])
def test_file_missing(micro_bundle: Path, name: str) -> None:
    """A missing file is named."""
    (micro_bundle / name).unlink()
    with pytest.raises(BundleCorrupt, match=f"file {name} is missing"):
        read_manifest(micro_bundle)


@pytest.mark.parametrize("name", ["extra.txt", "features/c.npy", "lexical/manifest.json"])
def test_file_added(micro_bundle: Path, name: str) -> None:
    """A file that the manifest does not know is named."""
    (micro_bundle / name).write_text("x")
    with pytest.raises(BundleCorrupt, match=f"file {name} is not in the manifest"):
        read_manifest(micro_bundle)


def test_name_changed(micro_bundle: Path) -> None:
    """The name must fit the content, so neither can be changed alone."""
    changed_json(micro_bundle / "manifest.json", {"name": "b-0123456789abcdef"})
    with pytest.raises(
        BundleCorrupt, match=r"the name b-0123456789abcdef does not fit the content \(b-[0-9a-f]{16}\)"
    ):
        read_manifest(micro_bundle)


def test_content_changed(micro_bundle: Path) -> None:
    """A parameter that was edited no longer fits the name."""
    file = micro_bundle / "manifest.json"
    content = json.loads(file.read_text())
    content["parameters"]["candidates"] = 7
    file.write_text(json.dumps(content))
    with pytest.raises(BundleCorrupt, match="does not fit the content"):
        read_manifest(micro_bundle)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"schema": 3}', "[]"])
def test_no_manifest_of_ours(micro_bundle: Path, content: str) -> None:
    """A manifest that cannot be read is a corrupt bundle, not a traceback."""
    (micro_bundle / "manifest.json").write_text(content)
    with pytest.raises(BundleCorrupt, match=r"manifest\.json: not a manifest of schema 3"):
        read_manifest(micro_bundle)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"created_at": "2', b'"created_at": "3'), (b'"torch": "2', b'"torch": "3'), (b"{", b"{ ")],
)
def test_one_byte_of_the_manifest_changed(micro_bundle: Path, old: bytes, new: bytes) -> None:
    """The date, a version, even white space: the manifest is sealed too."""
    file = micro_bundle / "manifest.json"
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))
    with pytest.raises(BundleCorrupt, match=r"the manifest was changed after it was written"):
        read_manifest(micro_bundle)


def test_no_bundle(tmp_path: Path) -> None:
    """A folder without a manifest says how to get one."""
    with pytest.raises(UnknownBundle, match=r"not a bundle .*build one with `wherefrom build`"):
        open_bundle(tmp_path, ModelFolders(shared_micro_model()))


def test_another_model(micro_bundle: Path, micro_model_dir: Path) -> None:
    """Other weights, another tokenizer or template: refused, and which part differs is said."""
    content = bytearray((micro_model_dir / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (micro_model_dir / "model.safetensors").write_bytes(content)
    with pytest.raises(
        BundleMismatch, match=r"built for another model weights .*rebuild the bundle or give that model"
    ):
        open_bundle(micro_bundle, ModelFolders(micro_model_dir))


def test_another_tokenizer(micro_bundle: Path, micro_model_dir: Path) -> None:
    """The chat template is part of what the bundle was built with."""
    template = micro_model_dir / "chat_template.jinja"
    template.write_text(template.read_text() + "{# changed #}")
    with pytest.raises(BundleMismatch, match="another tokenizer or chat template"):
        open_bundle(micro_bundle, ModelFolders(micro_model_dir))


def test_adapter_mismatch(micro_bundle: Path, tmp_path: Path) -> None:
    """A bundle of the bare model refuses an adapter; a bundle of an adapter refuses the bare model and another adapter."""
    model = shared_micro_model()
    one, other = (write_adapter(tmp_path / f"adapter-{seed}", model, seed=seed) for seed in (1, 2))
    with pytest.raises(BundleMismatch, match=r"another adapter \(SHA-256 none, given [0-9a-f]{12}\)"):
        open_bundle(micro_bundle, ModelFolders(model, one))
    manifest = build(model, shared_corpus(40), tmp_path / "adapted", adapter=one)
    assert manifest.model.name == "micro-model+adapter-1"
    assert open_bundle(tmp_path / "adapted", ModelFolders(model, one)).manifest.name == manifest.name
    with pytest.raises(BundleMismatch, match=r"another adapter \(SHA-256 [0-9a-f]{12}, given none\)"):
        open_bundle(tmp_path / "adapted", ModelFolders(model))
    with pytest.raises(BundleMismatch, match="another adapter"):
        open_bundle(tmp_path / "adapted", ModelFolders(model, other))


@given(st.dictionaries(st.text(min_size=1, max_size=12), st.integers(0, 2**40), max_size=5))
def test_manifest_round_trip(sizes: dict[str, int]) -> None:
    """A manifest is the same after its file, and its name does not depend on the date."""
    manifest = Manifest.model_validate_json((shared_micro_bundle() / "manifest.json").read_bytes())
    files = {name: FileEntry(sha256="0" * 64, bytes=size) for name, size in sizes.items()}
    changed = manifest.model_copy(update={"files": files})
    again = Manifest.model_validate_json(changed.model_dump_json(by_alias=True))
    assert again == changed
    assert again.content_name() == changed.content_name()
    later = changed.model_copy(update={"created_at": changed.created_at.replace(year=2000)})
    assert later.content_name() == changed.content_name()
