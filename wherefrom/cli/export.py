"""`wherefrom export`: audits with their citations as one file, JSONL, CSV or Parquet.

JSONL holds one audit per line with everything in it; CSV and Parquet hold one row per citation (opponents have negative
ranks; an audit without citations has one row without them). The file appears whole or not at all.
"""

import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, UrlOption, takes_filters
from wherefrom.cli.output import print_json, progress
from wherefrom.cli.output_file import output_file
from wherefrom.client import Service
from wherefrom.client.filters import AuditFilters
from wherefrom.csv_text import csv_line
from wherefrom.errors import ConfigurationError
from wherefrom.records import AuditDetail, CitationRecord
from wherefrom.terminal import out, visible

#: Rows of one Parquet row group.
ROW_GROUP = 5000

_AUDIT_FIELDS = (
    "audit_id", "output_id", "state", "code", "reason", "model", "bundle", "flag_reason", "severity", "channel",
    "created_at", "finished_at", "truncated", "weak", "conformal_p", "novelty_p",
)  # fmt: skip
_DETAIL_FIELDS = (
    "idempotency_key",
    "occurred_at",
    "completion",
    "loss_nats",
    "tokens",
    "noise_level",
    "noise_best",
)
#: A citation's own columns; its texts are told apart from the flagged output's.
_CITATION_FIELDS = {
    name: f"example_{name}" if name in ("prompt", "completion") else name
    for name in CitationRecord.model_fields
}
_INTEGERS = frozenset({"audit_id", "output_id", "tokens", "rank", "training_example_id", "duplicates"})
_FLOATS = frozenset(
    {
        "loss_nats", "score", "retrieval_score", "influence_score", "influence_magnitude", "bm25_score",
        "similarity_score", "encoder_score", "effect_nats", "confidence", "ekfac_score", "effect_score", "conformal_p", "novelty_p",
        "measured_effect_nats", "measured_low_nats", "measured_high_nats", "noise_level", "noise_best",
    }
)  # fmt: skip
_TRUTHS = frozenset({"truncated", "weak", "sign_determined"})
COLUMNS = (*_AUDIT_FIELDS, *_DETAIL_FIELDS, "labels", "prompt", *_CITATION_FIELDS.values())

Row = dict[str, Any]


class Format(StrEnum):
    """What the file is."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@takes_filters
def export(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write; an existing file is replaced.")
    ],
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", help="Default: taken from the file name, else jsonl. Parquet needs pyarrow."
        ),
    ] = None,
    verdicts: Annotated[
        bool,
        typer.Option(
            "--verdicts",
            help="Write outputs with the blind verdicts of people instead, as JSONL for `wherefrom calibrate --verdicts`.",
        ),
    ] = False,
    filters: AuditFilters,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write audits with their citations to a file, newest first. The file is written completely or not at all.

    In CSV, an apostrophe precedes everything that a spreadsheet would run as a formula, also inside a text. JSONL and Parquet hold every
    text unchanged.

    Examples:
      wherefrom export --format jsonl --output audits.jsonl

      wherefrom export --format csv --state done --source vendor-batch-7 -o vendor.csv

      wherefrom export --verdicts -o verdicts.jsonl
    """
    if verdicts:
        if any(value is not None for value in filters.values()) or form not in {None, Format.JSONL}:
            raise typer.BadParameter("takes no filters and writes JSONL", param_hint="--verdicts")
        _export_verdicts(output, url, as_json=as_json)
        return
    form = form or next((one for one in Format if output.suffix == f".{one.value}"), Format.JSONL)
    write = _writer(form)
    with Service(url) as service:
        found = service.audits(**filters)
        with progress() as bar, output_file(output) as unfinished:
            task = bar.add_task("reading", total=None)
            count = 0

            def details() -> Iterator[AuditDetail]:
                nonlocal count
                for audit in found:
                    yield service.audit(audit.audit_id)
                    count += 1
                    bar.update(task, completed=count)

            write(unfinished, details())
    if as_json:
        print_json([{"output": str(output), "format": form.value, "audits": count}])
    else:
        out().print(Text(f"{count} audits written to {visible(str(output))}"))


def _export_verdicts(output: Path, url: str | None, *, as_json: bool) -> None:
    """Write every output with blind verdicts that stand."""
    with Service(url) as service, output_file(output) as unfinished:
        found = list(service.judged_outputs())
        with unfinished.open("w", encoding="utf-8") as file:
            file.writelines(one.model_dump_json() + "\n" for one in found)
    given = sum(len(one.verdicts) for one in found)
    if as_json:
        print_json([{"output": str(output), "outputs": len(found), "verdicts": given}])
    else:
        out().print(Text(f"{given} blind verdicts on {len(found)} outputs written to {visible(str(output))}"))


def rows_of(detail: AuditDetail) -> Iterator[Row]:
    """One row per citation, opponents included; one row without a citation where there is none."""
    plain = detail.model_dump(mode="json")
    shared: Row = {name: plain["audit"][name] for name in _AUDIT_FIELDS} | {
        name: plain[name] for name in _DETAIL_FIELDS
    }
    shared["labels"] = json.dumps(plain["labels"], ensure_ascii=False, sort_keys=True)
    shared["prompt"] = "\n".join(f"{turn.role.value}: {turn.content}" for turn in detail.turns)
    nothing: Row = dict.fromkeys(_CITATION_FIELDS)
    for citation in [*plain["citations"], *plain["opponents"]] or [nothing]:
        yield shared | {column: _cell(citation[name]) for name, column in _CITATION_FIELDS.items()}


def _cell(value: object) -> object:
    """A plain value as it is; lists such as `spans` as JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _writer(form: Format) -> Callable[[Path, Iterable[AuditDetail]], None]:
    """What writes this format; a missing pyarrow is told before anything is read."""
    if form is Format.PARQUET:
        return _parquet_writer()
    return _write_csv if form is Format.CSV else _write_jsonl


def _write_jsonl(path: Path, details: Iterable[AuditDetail]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(one.model_dump_json() + "\n" for one in details)


def _write_csv(path: Path, details: Iterable[AuditDetail]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(csv_line(COLUMNS))
        for detail in details:
            file.writelines(csv_line(row[name] for name in COLUMNS) for row in rows_of(detail))


def _parquet_writer() -> Callable[[Path, Iterable[AuditDetail]], None]:
    try:
        arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            'Parquet needs pyarrow: pip install "wherefrom[parquet]", or use --format jsonl or csv'
        ) from error
    kinds = dict.fromkeys(_INTEGERS, arrow.int64()) | dict.fromkeys(_FLOATS, arrow.float64())
    kinds |= dict.fromkeys(_TRUTHS, arrow.bool_())
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in COLUMNS])

    def write(path: Path, details: Iterable[AuditDetail]) -> None:
        rows = (row for detail in details for row in rows_of(detail))
        with parquet.ParquetWriter(path, schema) as file:
            while group := list(islice(rows, ROW_GROUP)):
                file.write_table(arrow.Table.from_pylist(group, schema=schema))

    return write
