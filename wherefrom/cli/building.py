"""What every command that builds a bundle does with its options, and says in the end."""

import json
from pathlib import Path

import torch

from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.corpus_pass import ReadsCorpus, read_here
from wherefrom.attribution.bundles.indexes import IndexWishes
from wherefrom.attribution.bundles.manifest import Manifest
from wherefrom.attribution.bundles.model_location import write_note
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.corpus import ReadAs
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.retrieval.index_drivers import DriverName
from wherefrom.cli.build_choice import BuildChoice
from wherefrom.cli.build_options import IndexChoice
from wherefrom.cli.corpus_options import rendering_rule
from wherefrom.cli.placement_options import placement_of
from wherefrom.cli.progress import progress_bars
from wherefrom.settings import load_settings
from wherefrom.terminal import counted, say


def options_of(choice: BuildChoice) -> BuildOptions:
    """The options of a build.

    Raises:
        ConfigurationError: one of them cannot be used on this machine.
    """
    return BuildOptions(
        form=choice.form.value,
        similarity=None if choice.similarity is None else choice.similarity.value,
        blocks=choice.blocks.value,
        final=choice.final,
        features=choice.features.value,
        model_name=choice.model_name,
        max_tokens=choice.max_tokens,
        candidates=choice.candidates,
        midpoint=choice.midpoint,
        full_tier=choice.full_tier,
        skip_bad=choice.skip_bad,
        read=ReadAs(choice.turns, choice.dialect, choice.split),
        encoder=choice.encoder,
        encoder_weight=choice.encoder_weight,
        rendering=rendering_rule(choice.chat_template, choice.template_args, join=choice.join),
        check_learning=choice.learning_check,
        index=_index_wishes(choice.index),
        placement=placement_of(choice.device, choice.dtype),
    )


def _index_wishes(choice: IndexChoice) -> IndexWishes:
    settings = load_settings()
    return IndexWishes(
        driver=None if choice is IndexChoice.AUTO else DriverName(choice.value),
        memory_share=settings.index_memory_share,
        milvus=settings.milvus_server(),
    )


def build_with_progress(
    folders: ModelFolders,
    corpus: Path,
    out: Path,
    *,
    options: BuildOptions,
    quiet: bool,
    read_corpus_by: ReadsCorpus = read_here,
) -> Manifest:
    """Build a bundle and show how far it is; beside it stands where its model lies. For arguments and errors see `build_bundle`."""
    with progress_bars(quiet=quiet) as report:
        manifest = build_bundle(
            folders=folders,
            corpus_path=corpus,
            out=out,
            options=options,
            progress=report,
            on_note=print_note,
            read_corpus_by=read_corpus_by,
        )
    write_note(out, folders)
    return manifest


def print_note(sentence: str) -> None:
    """What the person who builds should read, beside the progress."""
    say(sentence, to_stderr=True)


def say_built(manifest: Manifest, out: Path, *, as_json: bool) -> None:
    """Say what was built and what comes next."""
    corpus_entry, projection = manifest.corpus, manifest.projection
    reading = corpus_entry.reading
    if as_json:
        say(
            json.dumps(
                {
                    "name": manifest.name,
                    "path": str(out),
                    "examples": corpus_entry.examples,
                    "skipped": corpus_entry.skipped,
                    "reading": None if reading is None else reading.model_dump(mode="json"),
                }
            )
        )
        return
    say(f"Built bundle {manifest.name} in {out}.")
    say(
        f"It covers {counted(corpus_entry.examples, 'training example')}; {counted(corpus_entry.skipped, 'bad row')} skipped, "
        f"{corpus_entry.truncated} cut at {counted(manifest.parameters.max_tokens, 'token')}."
    )
    if reading is not None and (reading.explained_turns > corpus_entry.examples or reading.left_out):
        say(
            f"It explains {counted(reading.explained_turns, 'assistant turn')} (--turns {reading.turns}) and leaves "
            f"{sum(reading.left_out.values())} out; {counted(reading.untrained_rows, 'row')} without a trained turn left out."
        )
    say(
        f"Its form is {manifest.parameters.form}; its projection takes {projection.bytes / 1e6:.1f} MB, "
        f"{projection.share_of_model:.1%} of the model."
    )
    say(f"Next: python -m worker add-bundle {out}")
    say(
        f"Or without a service: wherefrom attribute --bundle {out} --input FLAGGED.jsonl --output CITATIONS.jsonl"
    )


def set_threads(threads: int) -> None:
    """Give torch this many threads; 0 leaves the number to it."""
    if threads:
        torch.set_num_threads(threads)
