"""The command that writes a calibrated copy of a bundle. Needs the `[engine]` extra."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, cast

import typer

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.bundles.manifest import Manifest, hash_file
from wherefrom.attribution.bundles.model_location import copy_note, write_note
from wherefrom.attribution.calibrating import (
    Outputs,
    check_controls,
    fit_calibration,
    fit_effects,
    judge_all,
    write_calibrated,
)
from wherefrom.attribution.calibration.fitted import (
    BANK_CORPUS_SHA256,
    CORPUS_SHA256,
    Calibration,
    EffectCurve,
)
from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.attribution.groups import read_groups
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import exact_scores, prepare_all, read_queries, signals_of_all
from wherefrom.attribution.progress import Progress
from wherefrom.attribution.verdict_causes import read_verdicts
from wherefrom.cli.build_options import Adapter, Threads
from wherefrom.cli.building import set_threads
from wherefrom.cli.offline import Json, KnownModel
from wherefrom.cli.placement_options import DeviceOption, DtypeOption, placement_of
from wherefrom.cli.progress import progress_bars
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.material import read_control_groups, read_gold
from wherefrom.library import open_with_model
from wherefrom.records import Query, utc_now
from wherefrom.retraining.bank import load_bank
from wherefrom.terminal import counted, say

#: What stays empty in the copy, and which options fill it.
_NO_CONFIDENCE = "none; --known or --verdicts with enough outputs fits it"
_NO_EFFECTS = "none; --bank with --bank-queries fits them"


@dataclass(frozen=True)
class BankFiles:
    """A bank of retrained models and the queries whose losses it holds."""

    bank: Path
    queries: Path
    losses: str


def calibrate(
    *,
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle; it is not changed.")],
    controls: Annotated[
        Path,
        typer.Option(
            help="Control outputs as JSONL: like the flagged ones, but without a cause in the corpus. At least 100, better 500. "
            "Rows with the same `group` stay together."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the calibrated bundle; must not exist.")],
    known: Annotated[
        Path | None,
        typer.Option(help="Outputs as JSONL with `gold`: ids of the training examples that taught them."),
    ] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(
            help="Blind verdicts of people, from `wherefrom export --verdicts`. What they confirm are the known causes."
        ),
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Bank of retrained models, for effects in nats.")] = None,
    bank_queries: Annotated[
        Path | None, typer.Option(help="The queries whose losses the bank holds.")
    ] = None,
    bank_losses: Annotated[
        str | None, typer.Option(help="Name of their losses in the bank; default: the queries' file name.")
    ] = None,
    model: KnownModel = None,
    adapter: Adapter = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Write a calibrated copy of a bundle.

    Controls give p-values and abstention. Outputs with known causes add confidences; known by construction (--known), or by at least
    two people who judged blind (--verdicts). A bank adds effects in nats.

    Example: wherefrom calibrate --bundle ./bundles/support --controls controls.jsonl --known known.jsonl --out ./bundles/support-calibrated
    """
    if out.exists():
        raise ConfigurationError(f"{out} already exists and bundles are never changed; choose another folder")
    if known is not None and verdicts is not None:
        raise ConfigurationError("give --known or --verdicts, not both: a calibration has causes of one kind")
    files = _bank_files(bank, bank_queries, bank_losses)
    for file in filter(None, (controls, known)):
        read_queries(file)  # a bad row is told before the model is loaded
    check_controls(read_control_groups(controls))
    set_threads(threads)
    opened = open_with_model(bundle, model, adapter, placement=placement_of(device, dtype))
    with progress_bars(quiet=as_json) as report:
        causes = _known_causes(opened, known, verdicts)
        calibration = _fit(opened, controls, causes, files=files, progress=report)
    manifest = write_calibrated(bundle, out, calibration)
    _pass_note_on(bundle, out, model, adapter)
    _say_calibrated(calibration, manifest, out, as_json=as_json)


def _say_calibrated(calibration: Calibration, manifest: Manifest, out: Path, *, as_json: bool) -> None:
    fitted_on = calibration.fitted_on
    if as_json:
        say(
            json.dumps(
                {"name": manifest.name, "path": str(out), "warnings": list(calibration.warnings), **fitted_on}
            )
        )
        return
    for warning in calibration.warnings:
        say(f"warning: {warning}", to_stderr=True)
    say(f"Built calibrated bundle {manifest.name} in {out}.")
    say(f"Controls: {fitted_on['controls_fit']} for the fit, {fitted_on['controls_null']} for p-values.")
    taught = counted(fitted_on["known"], "output")
    say(
        f"Confidence: {f'fitted on {taught} with known causes' if calibration.citations else _NO_CONFIDENCE}."
    )
    say(
        f"Effects in nats: {f'fitted on the bank {calibration.effects.label}' if calibration.effects else _NO_EFFECTS}."
    )
    say(f"Next: python -m worker add-bundle {out}")


@dataclass(frozen=True)
class _Causes:
    """Outputs with known causes, before they are judged."""

    queries: Sequence[Query]
    outputs: Outputs


def _known_causes(opened: Bundle, known: Path | None, verdicts: Path | None) -> _Causes | None:
    """What `--known` or `--verdicts` names, with causes as rows of the corpus; their features are still to come."""
    if known is None and verdicts is None:
        return None
    rows = {example.example_id: example.row for example in iter_examples(opened.path)}
    if verdicts is not None:
        found = read_verdicts(verdicts, rows)
        if found.unproven:
            say(
                f"warning: {found.unproven} of {found.verdicts} verdicts stand under a chosen name, which proves nothing",
                to_stderr=True,
            )
        if found.skipped:
            say(f"{found.skipped} outputs name training examples of another corpus; left out", to_stderr=True)
        outputs = Outputs(
            (), gold=found.gold, judged=found.judged, sha256=found.sha256, provenance=found.provenance()
        )
        return _Causes(found.queries, outputs)
    file = cast("Path", known)
    return _Causes(
        read_queries(file)[0], Outputs((), gold=read_gold(file, rows), sha256=hash_file(file).sha256)
    )


def _fit(
    opened: Bundle, controls: Path, causes: _Causes | None, *, files: BankFiles | None, progress: Progress
) -> Calibration:
    attributor = LanguageAttributor(opened)
    max_tokens = opened.manifest.parameters.max_tokens

    def judged(queries: Sequence[Query]) -> list[CitationFeatures]:
        return judge_all(attributor, queries, max_tokens=max_tokens, progress=progress)

    effects = None if files is None else _effects(attributor, opened, files, progress)
    without = Outputs(
        judged(read_queries(controls)[0]),
        groups=read_control_groups(controls),
        sha256=hash_file(controls).sha256,
    )
    known = None if causes is None else replace(causes.outputs, queries=judged(causes.queries))
    fitted = fit_calibration(
        without,
        known,
        groups=read_groups(opened.path, len(opened.store)),
        effects=None if effects is None else effects.curve,
        date=utc_now().date().isoformat(),
        form=opened.manifest.parameters.form,
    )
    rows: dict[str, str | None] = {CORPUS_SHA256: opened.manifest.corpus.sha256}
    if effects is not None:
        rows |= {BANK_CORPUS_SHA256: effects.corpus_sha256}
    untied = () if effects is None or effects.untied is None else (effects.untied,)
    return replace(fitted, fitted_on={**fitted.fitted_on, **rows}, warnings=(*fitted.warnings, *untied))


@dataclass(frozen=True)
class _Effects:
    """The effect scale, and what it stands on."""

    curve: EffectCurve
    #: Of the bank's corpus; None in banks of earlier releases.
    corpus_sha256: str | None
    #: Why the bank's content could not be compared.
    untied: str | None


def _effects(
    attributor: LanguageAttributor, opened: Bundle, files: BankFiles, progress: Progress
) -> _Effects:
    bank, asked = load_bank(files.bank), read_queries(files.queries)[0]
    losses, corpus = bank.losses(files.losses), opened.manifest.corpus.sha256
    untied = bank.content.check(corpus_sha256=corpus, name=files.losses, queries=asked)
    prepared = prepare_all(
        attributor, asked, max_tokens=opened.manifest.parameters.max_tokens, over_long="truncate"
    )
    influence = exact_scores(opened, signals_of_all(attributor, prepared), progress)
    curve = fit_effects(influence, bank.kept, losses, basis=files.bank.stem)
    return _Effects(curve, bank.content.corpus_sha256, untied)


def _bank_files(bank: Path | None, queries: Path | None, losses: str | None) -> BankFiles | None:
    if bank is None and queries is None:
        return None
    if bank is None or queries is None:
        raise ConfigurationError("--bank and --bank-queries belong together: give both or neither")
    return BankFiles(bank, queries, losses or queries.stem)


def _pass_note_on(bundle: Path, out: Path, model: Path | None, adapter: Path | None) -> None:
    """Leave the note that says where the model lies beside the copy too."""
    if model is not None:
        write_note(out, ModelFolders(model, adapter))
    else:
        copy_note(bundle, out)


def add_commands(app: typer.Typer) -> None:
    """Put the command under an app."""
    app.command("calibrate")(calibrate)
