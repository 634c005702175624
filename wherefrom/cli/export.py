"""`wherefrom export`: audits, their citations or the training examples that they cite as one file, JSONL, CSV or Parquet.

JSONL holds one audit per line with everything in it, unless other rows are asked for; CSV and Parquet hold one row per citation (opponents
have negative ranks; an audit without citations has one row without them). The file appears whole or not at all.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, OutputOption, UrlOption, takes_filters
from wherefrom.cli.output import print_json, progress
from wherefrom.cli.output_file import output_file
from wherefrom.client import Service
from wherefrom.client.filters import AuditFilters
from wherefrom.export_files import Origins, Tally, check_format, pieces_of
from wherefrom.export_rows import Row, rows_of
from wherefrom.records import (
    AuditDetail,
    ExportFormat,
    ExportManifest,
    ExportRows,
    utc_now,
)
from wherefrom.terminal import counted, out, visible
from wherefrom.version import __version__

_Form = Annotated[
    ExportFormat | None,
    typer.Option("--format", help="Default: taken from the file name, else jsonl. Parquet needs pyarrow."),
]
_Rows = Annotated[
    ExportRows | None,
    typer.Option(
        "--rows",
        help="One row per audit, per citation, or per training example that answered audits cite. Default: audits in JSONL, citations in CSV and Parquet.",
    ),
]
_Manifest = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        help="Write a manifest as well: filter, bundles, rows, hash, times and version, as JSON.",
    ),
]
_Verdicts = Annotated[
    bool,
    typer.Option(
        "--verdicts",
        help="Write outputs with the blind verdicts of people instead, as JSONL for `wherefrom calibrate --verdicts`.",
    ),
]


@takes_filters
def export(
    *,
    output: OutputOption,
    form: _Form = None,
    rows: _Rows = None,
    manifest: _Manifest = None,
    verdicts: _Verdicts = False,
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

      wherefrom export --rows examples --reason refund_promise -o taught.parquet --manifest taught.json

      wherefrom export --verdicts -o verdicts.jsonl
    """
    if verdicts:
        plain = rows is None and manifest is None and form in {None, ExportFormat.JSONL}
        if any(value is not None for value in filters.values()) or not plain:
            raise typer.BadParameter("takes no filters and writes JSONL", param_hint="--verdicts")
        _export_verdicts(output, url, as_json=as_json)
        return
    form = form or next((one for one in ExportFormat if output.suffix == f".{one.value}"), ExportFormat.JSONL)
    kind = rows or (ExportRows.AUDITS if form is ExportFormat.JSONL else ExportRows.CITATIONS)
    check_format(form)
    with Service(url) as service:
        taken = _Taking(service, kind, form, filters)
        found = taken.write(output)
        if manifest is not None:
            with output_file(manifest) as unfinished:
                unfinished.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if as_json:
        told = found.model_dump(mode="json", include={"num_rows", "rows", "sha256"})
        print_json([{"output": str(output), "format": form.value, "audits": taken.audits} | told])
        return
    number = counted(found.num_rows, "row")
    what = f"{taken.audits} audits" if kind is not ExportRows.EXAMPLES else number
    beside = f" in {number}" if kind is ExportRows.CITATIONS else ""
    out().print(Text(f"{what}{beside} written to {visible(str(output))}"))


class _Taking:
    """One export on its way from the service into a file."""

    def __init__(self, service: Service, kind: ExportRows, form: ExportFormat, filters: AuditFilters) -> None:
        self._service, self._kind, self._form, self._filters = service, kind, form, filters
        self._origins = Origins()
        self.audits = 0

    def write(self, output: Path) -> ExportManifest:
        """Write the file, and say what it holds."""
        tally, begun_at = Tally(), utc_now()
        with progress() as bar, output_file(output) as unfinished, unfinished.open("wb") as file:
            task = bar.add_task("reading", total=None)
            rows = tally.counted(self._rows())
            for piece in tally.hashed(pieces_of(rows, self._kind, self._form)):
                file.write(piece)
                bar.update(task, completed=self.audits or tally.num_rows)
        return ExportManifest(
            file=output.name,
            rows=self._kind,
            format=self._form,
            num_rows=tally.num_rows,
            sha256=tally.digest.hexdigest(),
            size_bytes=tally.size_bytes,
            filter={name: str(value) for name, value in self._filters.items() if value is not None},
            bundles=self._origins.among(self._service.bundles()),
            begun_at=begun_at,
            finished_at=utc_now(),
            exported_by="command line",
            version=__version__,
        )

    def _rows(self) -> Iterator[Row]:
        if self._kind is ExportRows.EXAMPLES:
            for row in self._service.export_rows(self._kind, **self._filters):
                self._origins.corpora.add(str(row["corpus_sha256"]))
                yield row
            return
        for audit in self._service.export_rows(ExportRows.AUDITS, **self._filters):
            self.audits += 1
            if (name := audit["audit"]["bundle"]) is not None:
                self._origins.bundles.add(name)
            yield from self._of_audit(audit)

    def _of_audit(self, audit: Row) -> Iterable[Row]:
        if self._kind is ExportRows.AUDITS and self._form is ExportFormat.JSONL:
            return [audit]
        return rows_of(AuditDetail.model_validate(audit, extra="ignore"), self._kind)


def _export_verdicts(output: Path, url: str | None, *, as_json: bool) -> None:
    """Write every output with blind verdicts that stand."""
    outputs = given = 0
    with (
        Service(url) as service,
        output_file(output) as unfinished,
        unfinished.open("w", encoding="utf-8") as file,
    ):
        for one in service.judged_outputs():
            file.write(one.model_dump_json() + "\n")
            outputs, given = outputs + 1, given + len(one.verdicts)
    told: dict[str, Any] = {"output": str(output), "outputs": outputs, "verdicts": given}
    if as_json:
        print_json([told])
    else:
        out().print(Text(f"{given} blind verdicts on {outputs} outputs written to {visible(str(output))}"))
