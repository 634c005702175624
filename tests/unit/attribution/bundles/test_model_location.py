"""Where a bundle's model is looked for."""

import pytest

from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.bundles.model_location import find_model, note_path, write_note
from wherefrom.attribution.models.files import ModelFolders
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


HOSTILE_NAMES = (
    "..", ".", "", "/etc", "//etc", "../../../../etc", "a/b", "a/", "/", "a/../../etc", "..\\etc", "C:\\models", "a\x00b", "a\nb",
    "a\x1b[31m", " a", "a\u2028", "\udcff",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_manifest_names_folders_and_no_paths(manifest, tiny_model_dir, tmp_path, name):
    """A bundle of a stranger reaches nothing outside `models_dir`; the note of this machine does not make up for it."""
    models = tmp_path / "models"
    (models / manifest.model.base_folder).mkdir(parents=True)
    write_note(tmp_path / "bundle", ModelFolders(tiny_model_dir, None))
    for field in ("base_folder", "adapter_folder", "start_folder"):
        entry = manifest.model.model_copy(update={field: name})
        with pytest.raises(UnusableModel, match="not a plain folder name"):
            find_model(tmp_path / "bundle", manifest.model_copy(update={"model": entry}), models)


@pytest.mark.parametrize("name", ["SmolLM2-135M", "my model v1.2", "..hidden", "modèle", "a..b"])
def test_folder_names_as_people_have_them(manifest, tmp_path, name):
    """Dots, spaces and letters of all scripts are fine; a link that the operator made in the folder of models is theirs."""
    elsewhere = tmp_path / "large disk"
    elsewhere.mkdir()
    models = tmp_path / "models"
    models.mkdir()
    (models / name).symlink_to(elsewhere)
    entry = manifest.model.model_copy(update={"base_folder": name, "adapter_folder": None})
    found = find_model(tmp_path / "bundle", manifest.model_copy(update={"model": entry}), models)
    assert found.model == models / name
