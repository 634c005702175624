"""Where on this machine the model of a bundle lies.

A bundle holds no paths, so that it can be moved. Two places are looked at: the folder of all models (setting `models_dir`) by the names that the manifest
states (each one plain name: a bundle may come from a stranger), then a note beside the bundle (`BUNDLE.model.json`) that `wherefrom build` leaves for the machine it ran on. The note is no part of the bundle; what is found is
checked against the manifest's hashes when the bundle is opened.
"""

from pathlib import Path

from wherefrom.atomic import write_bytes, write_json
from wherefrom.attribution.bundles.manifest import Manifest, ModelEntry
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.errors import UnusableModel
from wherefrom.json_text import read_json


def note_path(bundle: Path) -> Path:
    """The file beside a bundle that says where its model lies."""
    return bundle.with_name(f"{bundle.name}.model.json")


def write_note(bundle: Path, folders: ModelFolders) -> None:
    """Leave a note for this machine."""
    content = {
        "model": str(folders.model.resolve()),
        "adapter": None if folders.adapter is None else str(folders.adapter.resolve()),
        "start": None if folders.start is None else str(folders.start.resolve()),
    }
    write_json(note_path(bundle), content)


def copy_note(bundle: Path, other: Path) -> None:
    """Leave the same note beside another bundle of the same model, where there is one."""
    if note_path(bundle).is_file():
        write_bytes(note_path(other), note_path(bundle).read_bytes())


def find_model(bundle: Path, manifest: Manifest, models_dir: Path) -> ModelFolders:
    """The folders of the bundle's model.

    Raises:
        UnusableModel: neither place has them, or the manifest states a path instead of a name; the text says what to do.
    """
    wanted = manifest.model
    base, adapter, start = wanted.base_folder, wanted.adapter_folder, wanted.start_folder
    for name in (base, adapter, start):
        if name is not None and not is_plain_name(name):
            raise UnusableModel(
                f"bundle {manifest.name} names the model folder {name[:200]!r}, which is not a plain folder name; rebuild the bundle"
            )
    noted = _read_note(bundle)
    for folders in filter(None, (named_folders(wanted, models_dir), noted)):
        if folders.present():
            return folders
    missing = " and ".join(f"the folder `{name}`" for name in (base, adapter, start) if name is not None)
    raise UnusableModel(
        f"the model of bundle {manifest.name} was not found: put {missing} into {models_dir} (setting WHEREFROM_MODELS_DIR); offline commands also take --model and --adapter"
    )


def named_folders(model: ModelEntry, models_dir: Path) -> ModelFolders:
    """Where a model lies in the folder of all models, by the names that are stated."""
    adapter, start = model.adapter_folder, model.start_folder
    return ModelFolders(
        models_dir / model.base_folder,
        None if adapter is None else models_dir / adapter,
        None if start is None else models_dir / start,
    )


def is_plain_name(name: str) -> bool:
    """Whether a name is one component of a path: put behind a folder, it names something in that folder and nothing else."""
    separators = {"/", "\\", "\x00"}
    return (
        name not in {"", ".", ".."}
        and name.isprintable()
        and name == name.strip()
        and not separators & set(name)
    )


def _read_note(bundle: Path) -> ModelFolders | None:
    try:
        content = read_json(note_path(bundle).read_text(encoding="utf-8"))
        adapter, start = content["adapter"], content.get("start")
        return ModelFolders(Path(content["model"]), adapter and Path(adapter), start and Path(start))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the note is a convenience; without a readable one the folders are named by hand
