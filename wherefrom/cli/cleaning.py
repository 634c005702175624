"""`wherefrom fix-list-clean`: the corpus without the rows that a fix list removes or fixes."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.attribution.corpus.cleaning import Cleaned, cleaned_rows, write_lines
from wherefrom.attribution.corpus.rows import ReadAs, Turns
from wherefrom.cli.corpus_options import FormatOption, SplitOption, TurnsOption
from wherefrom.cli.fixing import ListArgument, list_of, told
from wherefrom.cli.options import JsonOption, OutputOption, UrlOption
from wherefrom.cli.output import print_json
from wherefrom.cli.output_file import output_file
from wherefrom.client import Service
from wherefrom.records import FixRow
from wherefrom.records.erasing import NO_DIGEST
from wherefrom.terminal import out


def add_commands(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fix-list-clean")(clean)


def clean(
    fix_list: ListArgument,
    *,
    corpus: Annotated[
        Path, typer.Option(help="The corpus that the bundle was built from: a file or a folder.")
    ],
    output: OutputOption,
    turns: TurnsOption = Turns.ALL,
    dialect: FormatOption = None,
    split: SplitOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the corpus without the rows that a fix list removes or fixes, as JSON lines. Rows to keep stay.

    The corpus is read row by row, so its size does not matter. A row is left out where id and text are those that were judged.

    Examples:
      wherefrom fix-list-clean "refund promises" --corpus corpus.jsonl -o cleaned.jsonl
    """
    how, done = ReadAs(turns=turns, dialect=dialect, split=split), Cleaned()
    with Service(url) as service:
        exported = service.export_fix_rows(list_of(service, fix_list).list_id)
    leaving = _leaving(
        [FixRow.model_validate(json.loads(line), extra="ignore") for line in exported.splitlines()]
    )
    with output_file(output) as unfinished:
        write_lines(cleaned_rows(corpus, leaving, how=how, done=done), unfinished)
    missing = len(leaving.keys() - set(done.left_out))
    if as_json:
        found = {
            "output": str(output),
            "kept": done.kept,
            "left_out": len(done.left_out),
            "not_in_corpus": missing,
        }
        print_json([found])
    else:
        out().print(told(done.kept, len(done.left_out), missing, output))


def _leaving(rows: list[FixRow]) -> dict[str, frozenset[str]]:
    """Hashes of the texts that leave, by id. A row that stays under any corpus of the list is not among them. Of an erased text there is no hash: its id alone must not be learned again."""
    found: dict[str, set[str]] = defaultdict(set)
    for one in rows:
        if one.action.leaves:
            found[one.example_id].add(one.text_sha256)
    return {name: frozenset() if NO_DIGEST in hashes else frozenset(hashes) for name, hashes in found.items()}
