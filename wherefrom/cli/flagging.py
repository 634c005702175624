"""`wherefrom flag`: a JSONL file of flagged outputs, checked whole and then sent, answered after the commit."""

import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.text import Text

from wherefrom.cli.jsonl import CheckedFile, GoodLine, check_file
from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import ExitCode, print_json, progress
from wherefrom.client import Service
from wherefrom.errors import ConfigurationError, InvalidRecord, ServiceUnavailable
from wherefrom.records import AuditState, IntakeResult
from wherefrom.settings import trace_around
from wherefrom.spans import Kind, span
from wherefrom.terminal import err, out, visible

BATCH_RECORDS = 200
BATCH_BYTES = 1_000_000
#: More lines than this are only counted on the screen; `--json` tells all that were kept.
LINES_TOLD = 20
#: One large transaction may take longer than a page.
TIMEOUT_S = 60.0
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 10.0


@dataclass(frozen=True)
class RefusedLine:
    """A checked line that the service did not take."""

    line: int
    status: str
    code: str | None
    reason: str | None


@dataclass
class Outcome:
    """What became of the lines of a file."""

    skipped: int
    statuses: Counter[str] = field(default_factory=Counter)
    #: Stored, but not queued, by code: `unknown_model` waits for a bundle.
    not_queued: Counter[str] = field(default_factory=Counter)
    refused: list[RefusedLine] = field(default_factory=list)

    def count(self, batch: Sequence[GoodLine], results: Sequence[IntakeResult]) -> None:
        """Take in the answers to one batch."""
        for good, result in zip(batch, results, strict=True):
            self.statuses[result.status] += 1
            if result.status in ("conflict", "invalid"):
                self.refused.append(RefusedLine(good.line, result.status, result.code, result.reason))
            elif result.state is AuditState.REJECTED:
                self.not_queued[result.code or "rejected"] += 1

    @property
    def answered(self) -> int:
        """Records that the service answered."""
        return self.statuses.total()

    def as_json(self, checked: CheckedFile) -> dict[str, Any]:
        """The document that `--json` prints."""
        names = ("accepted", "duplicate", "conflict", "invalid")
        return {
            "records": checked.num_good,
            **{name: self.statuses[name] for name in names},
            "skipped": self.skipped,
            "not_queued": dict(self.not_queued),
            "bad_lines": [asdict(one) for one in checked.bad],
            "refused": [asdict(one) for one in self.refused],
        }


def flag(
    file: Annotated[
        Path, typer.Argument(help="JSONL file, one record v1 per line; `-` reads standard input.")
    ],
    *,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Send the good lines even if others are malformed; the number of skipped lines is printed.",
        ),
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait-s", min=0, help="Keep trying for this many seconds while the service is unavailable."
        ),
    ] = 0.0,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Flag the outputs in a JSONL file. The command returns after they are stored.

    All lines are checked first. A malformed line is reported with its number. The command then sends nothing of the file,
    unless --skip-bad is given. A record without `idempotency_key` gets one from its content, so running the same
    command again stores nothing twice.

    Exit code: 0 all stored, 1 some lines skipped or refused, 2 bad input, 3 service unavailable.

    Examples:
      wherefrom flag flagged.jsonl
      my-classifier | wherefrom flag - --skip-bad --json
    """
    with _opened(file) as (stream, size_bytes), _checked(stream, size_bytes) as checked:
        _refuse_bad(checked, file, skip_bad=skip_bad, as_json=as_json)
        outcome = Outcome(skipped=checked.num_bad)
        with (
            Service(url, timeout_s=TIMEOUT_S) as service,
            span("flag", parent=trace_around(), kind=Kind.PRODUCER),
        ):
            try:
                _send(service, checked, outcome, wait_s=wait_s)
            finally:
                _print_outcome(outcome, checked, as_json=as_json)
    if outcome.refused or outcome.skipped:
        raise typer.Exit(ExitCode.REFUSED)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """The file and its size in bytes; standard input has none."""
    if str(file) == "-":
        yield sys.stdin.buffer, None
        return
    try:
        stream = file.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
    with stream:
        yield stream, file.stat().st_size


def _checked(stream: BinaryIO, size_bytes: int | None) -> CheckedFile:
    with progress() as bar:
        task = bar.add_task("checking", total=size_bytes)
        return check_file(stream, lambda step: bar.advance(task, step))


def _refuse_bad(checked: CheckedFile, file: Path, *, skip_bad: bool, as_json: bool) -> None:
    """Report the bad lines; raises where they stop the file."""
    console = err()
    for bad in checked.bad[:LINES_TOLD]:
        console.print(Text(f"line {bad.line}: {visible(bad.problem)}"))
    if checked.num_bad > LINES_TOLD:
        console.print(f"... and {checked.num_bad - LINES_TOLD} more lines")
    if checked.num_bad and not skip_bad:
        if as_json:
            print_json([Outcome(skipped=0).as_json(checked)])
        lines = checked.num_bad + checked.num_good
        raise InvalidRecord(
            f"{checked.num_bad} of {lines} lines of {file} are invalid, so nothing was sent; "
            "fix them, or send the others with --skip-bad"
        )


def _send(service: Service, checked: CheckedFile, outcome: Outcome, *, wait_s: float) -> None:
    """Send all good lines, batch by batch; each batch that is answered is committed."""
    with progress() as bar:
        task = bar.add_task("sending", total=checked.num_good)
        for batch in checked.batches(max_records=BATCH_RECORDS, max_bytes=BATCH_BYTES):
            try:
                results = _submit_patiently(service, [one.record for one in batch], wait_s=wait_s)
            except ServiceUnavailable as error:
                raise ServiceUnavailable(
                    f"{error}; {outcome.answered} of {checked.num_good} records were answered before; "
                    "run the same command again: stored records are answered as duplicates"
                ) from error
            outcome.count(batch, results)
            bar.advance(task, len(batch))


def _submit_patiently(service: Service, records: Sequence[str], *, wait_s: float) -> list[IntakeResult]:
    """Send one batch, again and again while the service is away, for `wait_s` at most."""
    deadline = time.monotonic() + wait_s
    pause_s = FIRST_WAIT_S
    while True:
        try:
            return service.submit_json(records)
        except ServiceUnavailable as error:
            asked_s = error.retry_after_s or pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
            if time.monotonic() + asked_s > deadline:
                raise
            time.sleep(asked_s)
            pause_s = min(pause_s * 2, LONGEST_WAIT_S)


def _print_outcome(outcome: Outcome, checked: CheckedFile, *, as_json: bool) -> None:
    if as_json:
        print_json([outcome.as_json(checked)])
        return
    for one in outcome.refused[:LINES_TOLD]:
        err().print(Text(visible(f"line {one.line}: {one.status} ({one.code}): {one.reason or ''}")))
    if len(outcome.refused) > LINES_TOLD:
        err().print(f"... and {len(outcome.refused) - LINES_TOLD} more refused lines")
    counts = [f"{outcome.statuses[name]} {name}" for name in ("accepted", "duplicate", "conflict", "invalid")]
    out().print(", ".join([*counts, f"{outcome.skipped} skipped"]))
    for code, count in outcome.not_queued.items():
        err().print(Text(f"{count} of them are stored but not queued ({visible(code)})"))
