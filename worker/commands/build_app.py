"""The options of `python -m worker build`, and what it does: those of `wherefrom build`, with paths or URLs for corpus and bundle."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.bundles.parts import PART_SHARDS
from wherefrom.attribution.bundles.shards import SHARD_ROWS
from wherefrom.attribution.bundles.stored import push_bundle
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.cli.build_choice import BuildChoice, takes_choice
from wherefrom.cli.building import build_with_progress, options_of, print_note, say_built, set_threads
from wherefrom.errors import ConfigurationError, WherefromError
from wherefrom.metrics import Metrics
from wherefrom.records import sha256_of_json
from wherefrom.settings import Settings
from wherefrom.storage import is_url, open_store
from wherefrom.terminal import say
from worker.app import make_celery
from worker.broker.hints import BuildHintSender
from worker.broker.redis_link import connect_redis
from worker.commands.command_line import Json, open_settings, opened_database, print_json
from worker.embedded import beside_local_service
from worker.shared_pass import SharedPass

ModelArgument = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of the model (safetensors, tokenizer).")
]
CorpusPlace = Annotated[
    str,
    typer.Option(
        help="Training corpus, as `wherefrom build` takes it: a path, or a URL (s3://, gs://, abfs://)."
    ),
]
OutPlace = Annotated[
    str,
    typer.Option(
        help="Folder of the new bundle, which must not exist; or the URL of a store, which gets the bundle under its name."
    ),
]
SharedPlace = Annotated[
    str | None,
    typer.Option(
        help="Shared folder for the parts: a path or a URL that every worker reaches. Default: OUT with `.parts` behind it."
    ),
]
PartRows = Annotated[
    int,
    typer.Option(
        help=f"Rows of one part, a multiple of {SHARD_ROWS}. A worker that is lost loses one part.",
    ),
]


@takes_choice
def build(
    model: ModelArgument,
    *,
    corpus: CorpusPlace,
    out: OutPlace,
    shared: SharedPlace = None,
    part_rows: PartRows = PART_SHARDS * SHARD_ROWS,
    choice: BuildChoice,
    as_json: Json = False,
) -> None:
    """Build a bundle on several machines: plan the corpus in parts, wait until build workers have read them, write the bundle.

    Start `python -m worker build-worker` on each machine that shall help. Run the same command again to continue.
    """
    if part_rows < 1 or part_rows % SHARD_ROWS:
        raise ConfigurationError(f"--part-rows must be a multiple of {SHARD_ROWS}, not {part_rows}")
    set_threads(choice.threads)
    settings = beside_local_service(open_settings())
    folders = ModelFolders(model, choice.adapter, choice.start)
    place = shared or f"{out.rstrip('/')}.parts"
    if not is_url(place):
        place = str(Path(place).absolute())
    with (
        opened_database(settings) as database,
        connect_redis(settings) as client,
        tempfile.TemporaryDirectory(prefix="wherefrom-corpus-") as folder,
    ):
        hints = BuildHintSender(
            make_celery(settings), client, settings=settings, metrics=Metrics(), sender="operator"
        )
        read_by = SharedPass(database, place, hints, settings=settings, part_shards=part_rows // SHARD_ROWS)
        asked = (out, str(model.resolve()), corpus, place, repr(choice))
        target = out_folder(out, settings, asked=asked)
        written = is_url(out) and target.is_dir()  # only putting it into its store failed
        if not written:
            build_with_progress(
                folders,
                corpus_file(corpus, Path(folder)),
                target,
                options=options_of(choice),
                quiet=as_json,
                read_corpus_by=read_by,
            )
            _finish(read_by)
    if is_url(out):
        _push(target, out, as_json=as_json)
    else:
        say_built(read_manifest(target, verify=False), target, as_json=as_json)


def _finish(read_by: SharedPass) -> None:
    """Tidy up behind a bundle that is written; it counts, whatever becomes of the files of its parts."""
    try:
        read_by.finish()
    except WherefromError as error:
        print_note(
            f"NOTE: the bundle is written, but the files of its parts are still there [{error.code}]: {error}. `python -m worker builds` lists the build; `python -m worker builds cancel ID` deletes them"
        )


def _push(bundle: Path, out: str, *, as_json: bool) -> None:
    """Put a finished bundle into its store, and remove it here."""
    place = push_bundle(bundle, open_store(out))
    shutil.rmtree(bundle.parent)
    if as_json:
        print_json({"name": place.name, "url": place.url})
    else:
        say(f"Built bundle {place.name} and put it into {place.store.url}.")
        say(f"Next: python -m worker add-bundle {place.url}")


def corpus_file(corpus: str, folder: Path) -> Path:
    """The corpus on this machine; one at a URL is fetched.

    Args:
        corpus: a path, or the URL of a file or of a folder of files.
        folder: gets what is fetched.

    Raises:
        ConfigurationError: there is nothing at the URL.
    """
    if not is_url(corpus):
        return Path(corpus)
    above, _, name = corpus.rstrip("/").rpartition("/")
    store = open_store(above)
    names = [name] if store.exists(name) else store.names(f"{name}/")
    if not names:
        raise ConfigurationError(
            f"--corpus: there is no file {name} in {store.url}, and no folder of that name"
        )
    for one in names:
        store.fetch(one, folder / one)
    return folder / name


def out_folder(out: str, settings: Settings, *, asked: Sequence[str]) -> Path:
    """Where the bundle is written on this machine: `out`, or for a store a folder that the same command finds again.

    Args:
        out: path or URL.
        settings: where the folders of this machine are.
        asked: what the command was given.
    """
    if not is_url(out):
        return Path(out)
    return settings.state_dir / "builds" / sha256_of_json(asked)[:16] / "bundle"


def make_build_app() -> typer.Typer:
    """The command with its options."""
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
    app.command()(build)
    return app
