"""`wherefrom measure`: has the effect of one citation measured by the service, and shows what came out."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import ExitCode, number, print_json, progress
from wherefrom.client import Service
from wherefrom.records import MeasurementRecord, MeasurementState, Method
from wherefrom.terminal import out, print_table, visible

#: Seconds between two looks of `--wait`.
POLL_S = 2.0


def measure(  # noqa: PLR0917 - Typer gives arguments by position
    audit_id: Annotated[int, typer.Argument(min=1, metavar="AUDIT_ID", help="The audit's number.")],
    rank: Annotated[
        int, typer.Argument(metavar="RANK", help="Rank of its citation; `-- -1` for an opponent.")
    ],
    method: Annotated[
        Method,
        typer.Option("--method", help="refit retrains the model; one-step and unlearn are weak evidence."),
    ] = Method.REFIT,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the measurement has ended.")] = False,  # noqa: FBT002 - a command's switch
    url: UrlOption = None,
    as_json: JsonOption = False,  # noqa: FBT002 - a command's switch
) -> None:
    """Measure the effect of one citation: retrain the model without the training example.

    The service answers at once and measures on a separate queue. Run the command again to see the state.

    The effect is the change of the output's mean loss without the example and its near-duplicates. Matched random controls run beside it.
    Positive means that the example made the output more likely.

    Exit code 1: with --wait, the measurement ended dead.

    Examples:
      wherefrom measure 17 1

      wherefrom measure 17 1 --wait --json

      wherefrom measure 17 1 --method one-step
    """
    with Service(url) as service:
        found = service.measure(audit_id, rank, method=method)
        if wait:
            with progress() as bar:
                task = bar.add_task("measuring", total=None)
                while found.state.is_open:
                    time.sleep(POLL_S)
                    found = service.measurement(found.measurement_id)
                    bar.update(task, description=f"measuring ({found.state.value})")
    if as_json:
        print_json([found])
    else:
        print_measurement(found)
    if wait and found.state is MeasurementState.DEAD:
        raise typer.Exit(ExitCode.REFUSED)


def print_measurement(one: MeasurementRecord) -> None:
    """One measurement: its effect beside its controls, or its state."""
    heading = f"Effect of {one.example_id} on audit {one.audit_id} by {one.method.value}: {one.state.value}"
    out().print(Text(visible(heading), style="bold"))
    if one.state is MeasurementState.DEAD:
        out().print(Text(visible(f"{one.code}: {one.reason}")))
        out().print("To try again, run the same command again.")
    if one.state.is_open:
        out().print("Measurements have their own queue. Run the same command again to see the state.")
    if one.effect_nats is None:
        return
    rows = [
        (
            "without it" if len(one.group) < 2 else f"without its group of {len(one.group)}",
            _effect(one),
            ", ".join(one.group),
        )
    ]
    rows += [
        ("control", number(control.effect_nats, digits=4), ", ".join(control.example_ids))
        for control in one.controls
    ]
    print_table(
        [("left out", "left"), ("effect, nats [95 % interval]", "right"), ("training examples", "left")],
        rows,
        empty="",
    )
    for sentence in _reading(one):
        out().print(sentence)


def _reading(one: MeasurementRecord) -> Iterator[str]:
    """How the table is read, a sentence each."""
    yield "A positive effect means that the output is less likely without the example."
    if one.z is not None:
        yield f"The effect is {one.z:.1f} standard errors from the controls."
    method = f"trained again with {one.seeds} seeds" if one.seeds else "one step from the final weights"
    yield f"Method: {method}; {one.cost_seconds or 0.0:.0f} s of computing."
    if one.weak:
        yield "This is WEAK evidence: the model was not trained again."


def _effect(one: MeasurementRecord) -> str:
    effect = number(one.effect_nats, digits=4)
    if one.low_nats is None or one.high_nats is None:
        return effect
    return f"{effect} [{one.low_nats:.4f}, {one.high_nats:.4f}]"
