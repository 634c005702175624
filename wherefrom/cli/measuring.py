"""`wherefrom measure`: has the effect of a citation, or of many training examples together, measured by the service, and shows what came out."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import ExitCode, number, print_json, progress
from wherefrom.client import Service
from wherefrom.errors import InvalidRequest
from wherefrom.records import (
    ExpectedCost,
    GroupMeasurementRecord,
    MeasurementRecord,
    MeasurementState,
    Method,
)
from wherefrom.terminal import out, print_table, visible

#: Seconds between two looks of `--wait`.
POLL_S = 2.0
#: Ids of a group that are shown.
SHOWN_IDS = 8


def measure(  # noqa: PLR0917 - Typer gives arguments by position
    audit_id: Annotated[int, typer.Argument(min=1, metavar="AUDIT_ID", help="The audit's number.")],
    rank: Annotated[
        int | None,
        typer.Argument(metavar="RANK", help="Rank of its citation; `-- -1` for an opponent."),
    ] = None,
    method: Annotated[
        Method,
        typer.Option("--method", help="refit retrains the model; one-step and unlearn are weak evidence."),
    ] = Method.REFIT,
    source: Annotated[
        str | None, typer.Option("--source", help="In place of a rank: all training examples of a source.")
    ] = None,
    example: Annotated[
        list[str] | None,
        typer.Option("--example", help="In place of a rank: id of a training example; may be repeated."),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option("--examples", help="In place of a rank: file of training example ids, one a line."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the measurement has ended.")] = False,  # noqa: FBT002 - a command's switch
    url: UrlOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a command's switch
) -> None:
    """Measure the effect of a citation, or of many training examples together: retrain the model without them.

    The service answers at once and measures on a separate queue. Run the command again to see the state.

    The effect is the change of the output's mean loss without the example and its near-duplicates, beyond what matched random controls do.
    Positive means that the example made the output more likely. --source and --examples leave out exactly what they name.

    Exit code 1: with --wait, the measurement ended dead.

    Examples:
      wherefrom measure 17 1

      wherefrom measure 17 1 --wait --json

      wherefrom measure 17 1 --method one-step

      wherefrom measure 17 --source forum-2021 --wait

      wherefrom measure 17 --examples fix-list.txt
    """
    ids = [*(example or ()), *(() if examples is None else _ids_in(examples))]
    _check_question(rank, source, ids, method)
    with Service(url) as service:
        found = _asked(service, audit_id, rank, method=method, ids=ids, source=source)
        if wait:
            found = waited(service, found)
    if as_json:
        print_json([found])
    else:
        print_measurement(found)
    if wait and found.state is MeasurementState.DEAD:
        raise typer.Exit(ExitCode.REFUSED)


def _asked(
    service: Service,
    audit_id: int,
    rank: int | None,
    *,
    method: Method,
    ids: Sequence[str],
    source: str | None,
) -> MeasurementRecord | GroupMeasurementRecord:
    """The measurement of a citation, or without a rank that of many training examples."""
    if rank is not None:
        return service.measure(audit_id, rank, method=method)
    return service.measure_group(audit_id, example_ids=ids, source=source)


def _check_question(rank: int | None, source: str | None, ids: Sequence[str], method: Method) -> None:
    """Refuse what asks for nothing, or for two things.

    Raises:
        InvalidRequest: the text says what to give.
    """
    given = [rank is not None, source is not None, bool(ids)]
    if sum(given) != 1:
        raise InvalidRequest("give one of: RANK, --source NAME, or ids by --example and --examples FILE")
    if rank is None and method is not Method.REFIT:
        raise InvalidRequest(
            f"--method {method.value} measures single citations; leave it out for many examples"
        )


def _ids_in(file: Path) -> list[str]:
    """Ids of a file, one a line; empty lines are skipped, and so is a BOM.

    Raises:
        InvalidRequest: the file cannot be read, or is not text.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file}: cannot be read as a list of ids ({error})") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise InvalidRequest(f"{file}: holds no id; write one training example's id on each line")
    return ids


def waited(
    service: Service, found: MeasurementRecord | GroupMeasurementRecord
) -> MeasurementRecord | GroupMeasurementRecord:
    """The measurement at its end."""
    with progress() as bar:
        task = bar.add_task("measuring", total=None)
        while found.state.is_open:
            time.sleep(POLL_S)
            if isinstance(found, MeasurementRecord):
                found = service.measurement(found.measurement_id)
            else:
                found = service.group_measurement(found.measurement_id)
            bar.update(task, description=f"measuring ({found.state.value})")
    return found


def print_measurement(one: MeasurementRecord | GroupMeasurementRecord) -> None:
    """One measurement: its effect beside its controls, or its state."""
    what = (
        f"{one.example_id} on audit {one.audit_id} by {one.method.value}"
        if isinstance(one, MeasurementRecord)
        else f"{one.request} on audit {one.audit_id}"
    )
    out().print(Text(visible(f"Effect of {what}: {one.state.value}"), style="bold"))
    if one.state is MeasurementState.DEAD:
        out().print(Text(visible(f"{one.code}: {one.reason}")))
        out().print("To try again, run the same command again.")
    if one.state.is_open:
        if one.last_code is not None:
            out().print(Text(visible(f"It failed before. {one.last_code}: {one.last_reason}")))
        if one.expected is not None:
            out().print(_expected(one.expected))
        out().print("Measurements have their own queue. Run the same command again to see the state.")
    if one.effect_nats is None:
        return
    left_out = (one.group_size or 0) if isinstance(one, GroupMeasurementRecord) else len(one.group)
    rows = [
        (
            "without it"
            if left_out < 2
            else f"without its group of {left_out}"
            if isinstance(one, MeasurementRecord)
            else f"without all {left_out}",
            _effect(one),
            _named(one.group, left_out),
        )
    ]
    rows += [
        ("control", number(control.effect_nats, digits=4), _named(control.example_ids, left_out))
        for control in one.controls
    ]
    print_table(
        [("left out", "left"), ("effect, nats [95 % interval]", "right"), ("training examples", "left")],
        rows,
        empty="",
    )
    for sentence in _reading(one):
        out().print(sentence)


def _expected(cost: ExpectedCost) -> str:
    """What a measurement will take, in words."""
    basis = "by those that are finished" if cost.timed else "by the model's size"
    return (
        f"Expected: at most {cost.trainings} trainings of {cost.tokens} tokens, about {cost.seconds / 60:.0f} min in all ({basis}), "
        f"and about {cost.memory_bytes / 2**30:.1f} GiB for weights."
    )


def _named(ids: Sequence[str], size: int) -> str:
    """The first ids of a group, and how many there are."""
    shown = ", ".join(ids[:SHOWN_IDS])
    return shown if size <= SHOWN_IDS or len(ids) <= SHOWN_IDS else f"{shown}, ... ({size} in all)"


def _reading(one: MeasurementRecord | GroupMeasurementRecord) -> Iterator[str]:
    """How the table is read, a sentence each."""
    yield "A positive effect means that the output is less likely without the example."
    if one.controls_mean_nats is not None:
        yield f"Effects are counted from the controls' mean, a change of {one.controls_mean_nats:+.4f} nats."
    if one.z is not None:
        yield f"The effect is {one.z:.1f} standard errors from the controls."
    method = f"trained again with {one.seeds} seeds" if one.seeds else "one step from the final weights"
    yield f"Method: {method}; {one.cost_seconds or 0.0:.0f} s of computing."
    if isinstance(one, MeasurementRecord) and one.weak:
        yield "This is WEAK evidence: the model was not trained again."


def _effect(one: MeasurementRecord | GroupMeasurementRecord) -> str:
    effect = number(one.effect_nats, digits=4)
    if one.low_nats is None or one.high_nats is None:
        return effect
    return f"{effect} [{one.low_nats:.4f}, {one.high_nats:.4f}]"
