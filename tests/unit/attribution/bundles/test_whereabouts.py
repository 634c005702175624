"""Where a bundle's model is looked for."""

import pytest

from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.bundles.whereabouts import ModelFolders, find_model, note_path, write_note
from wherefrom.errors import UnusableModel


@pytest.fixture
def manifest(tiny_bundle):
    """The manifest of a bundle that was built without an adapter."""
    return read_manifest(tiny_bundle, verify=False)


def test_folder_of_all_models_comes_first(manifest, tiny_model_dir, tmp_path):
    """A folder of the right name in `models_dir` is taken before what a note says."""
    home = tmp_path / "models" / manifest.model.base_folder
    home.mkdir(parents=True)
    write_note(tmp_path / "bundle", ModelFolders(tiny_model_dir, None))
    assert find_model(tmp_path / "bundle", manifest, tmp_path / "models") == ModelFolders(home, None)


def test_note_beside_the_bundle(manifest, tiny_model_dir, tmp_path):
    """Without it the note counts, with the adapter that it names."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    write_note(tmp_path / "bundle", ModelFolders(tiny_model_dir, adapter))
    found = find_model(tmp_path / "bundle", manifest, tmp_path / "models")
    assert found == ModelFolders(tiny_model_dir.resolve(), adapter.resolve())


@pytest.mark.parametrize(
    "text", [None, "", "[]", '{"model": 3, "adapter": null}', '{"model": "/nowhere", "adapter": null}']
)
def test_neither(manifest, tmp_path, text):
    """No note, an unreadable note or a stale one: the error names the folder and the setting."""
    if text is not None:
        note_path(tmp_path / "bundle").write_text(text, encoding="utf-8")
    with pytest.raises(
        UnusableModel, match=rf"put the folder `{manifest.model.base_folder}` into .*WHEREFROM_MODELS_DIR"
    ):
        find_model(tmp_path / "bundle", manifest, tmp_path / "models")
