"""`wherefrom attribute --group`: several outputs as one question, and how each of them scores what is cited."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.grouping import join, read_answers, read_members, tokenized
from wherefrom.attribution.interface import OverLong
from wherefrom.attribution.offline import Rejection, attribute_all, exact_scores, prepare_usable
from wherefrom.attribution.output_group import TokenizedGroup
from wherefrom.cli.output import influence, note_signs, number, one_line
from wherefrom.cli.progress import progress_bars
from wherefrom.cli.targets import Targets
from wherefrom.errors import ConfigurationError
from wherefrom.records import Attribution, QueryGroup, weak_text
from wherefrom.terminal import counted, print_table, say

GroupOption = Annotated[
    bool,
    typer.Option(
        "--group", help="Ask one question about all outputs of the file: what taught what they share?"
    ),
]
GroupByOption = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        help="Ask one question about the outputs that share a field's value, such as reason or labels.topic.",
    ),
]
AgainstOption = Annotated[
    Path | None,
    typer.Option(
        "--against",
        help="Acceptable answers as JSONL, for --group and --group-by. What outputs share with them counts for nothing. An answer with the field of --group-by counts for its group alone.",
    ),
]

#: Citations of a group whose influence on each member is shown.
_SHOWN = 3


@dataclass(frozen=True)
class Asked:
    """The groups of a file and how they were read."""

    groups: list[QueryGroup]
    skipped: int

    @classmethod
    def read(cls, outputs: Path, against: Path | None, field: str | None, *, skip_bad: bool) -> "Asked":
        """Read the outputs and the acceptable answers.

        Raises:
            InvalidRecord, EmptyCorpus: a file cannot be used; the text names it.
        """
        members, skipped = read_members(outputs, field, skip_bad=skip_bad)
        answers, more = ([], 0) if against is None else read_answers(against, field, skip_bad=skip_bad)
        return cls(join(members, answers), skipped + more)


@dataclass(frozen=True)
class Limits:
    """How outputs become tokens, and how much is cited."""

    max_tokens: int
    over_long: OverLong
    skip_bad: bool
    top_k: int
    opponents: int


def check_options(*, group: bool, group_by: str | None, against: Path | None, important: bool) -> None:
    """Refuse options that do not go together.

    Raises:
        ConfigurationError: as the text says.
    """
    if group and group_by is not None:
        raise ConfigurationError("--group and --group-by exclude each other; give one of them")
    if not group and group_by is None:
        if against is not None:
            raise ConfigurationError(
                "--against needs --group or --group-by; a single output names its acceptable answer in `preferred`"
            )
        return
    if important:
        raise ConfigurationError("--important rescores single outputs; leave it out with --group")


def attribute_groups(
    bundle: Bundle, asked: Asked, targets: Targets, *, limits: Limits, as_json: bool
) -> None:
    """Attribute groups, write what was asked for, and print their citations where no file takes them."""
    attributor = LanguageAttributor(bundle)
    groups, rejected = _tokenized(attributor, asked.groups, limits)
    with progress_bars(quiet=as_json) as report:
        found = []
        if targets.output is not None or targets.scores is None:
            found = attribute_all(
                attributor, groups, top_k=limits.top_k, opponents=limits.opponents, progress=report
            )
            targets.write_lines(found)
        if targets.scores is not None:
            read = [attributor.read_group(one) for one in groups]
            targets.write_scores(exact_scores(bundle, read, report))
    outputs = sum(len(one.members) for one in groups)
    if as_json:
        counts = {
            "groups": len(groups),
            "queries": outputs,
            "skipped": asked.skipped,
            "rejected": [asdict(one) for one in rejected],
        }
        answers = [] if targets.output is not None else [one.model_dump(mode="json") for one in found]
        typer.echo(json.dumps(counts | {"bundle": bundle.manifest.name, "answers": answers}))
        return
    for one in rejected:
        say(f"rejected {one.key}: {one.reason} [{one.code}]", to_stderr=True)
    if targets.output is None:
        for answer in found:
            print_group(answer)
    say(
        f"Attributed {counted(len(groups), 'group')} of {counted(outputs, 'output')} by bundle {bundle.manifest.name}; "
        f"{counted(asked.skipped, 'bad line')} skipped, {counted(len(rejected), 'output')} rejected."
    )
    targets.say()


def _tokenized(
    attributor: LanguageAttributor, groups: Sequence[QueryGroup], limits: Limits
) -> tuple[list[TokenizedGroup], list[Rejection]]:
    """Groups of what could be turned into tokens; an acceptable answer that belongs to several is turned once."""
    queries = {id(one): one for group in groups for one in (*group.members, *group.against)}
    prepared, rejected = prepare_usable(
        attributor,
        list(queries.values()),
        max_tokens=limits.max_tokens,
        over_long=limits.over_long,
        skip_bad=limits.skip_bad,
    )
    by_id = {id(one.asked): one for one in prepared}
    return [one for group in groups if (one := tokenized(group, by_id)) is not None], rejected


def print_group(answer: Attribution) -> None:
    """The citations of one group, then its outputs with their own influence scores of the first citations."""
    against = f", against {counted(answer.against, 'acceptable answer')}" if answer.against else ""
    say(f"Group {answer.key}: {counted(len(answer.members), 'output')}{against}")
    columns = [
        ("rank", "right"), ("score", "right"), ("influence", "right"), ("outputs with it", "left"),
        ("source", "left"), ("example", "left"), ("text", "left"),
    ]  # fmt: skip
    rows = [
        (
            str(one.rank), number(one.score), influence(one.influence_score, determined=one.sign_determined), _spread(one.member_influence),
            one.example.source, one.example.example_id, one_line(f"{one.example.prompt} -> {one.example.completion}", length=90),
        )
        for one in answer.citations
    ]  # fmt: skip
    print_table(columns, rows, empty="no training example is cited")
    note_signs(one.sign_determined for one in answer.citations)
    if answer.weak:
        say(weak_text(answer.noise_best))
    first = [one for one in answer.citations if one.rank > 0][:_SHOWN]
    heads = [("output", "left"), ("loss", "right")] + [(f"influence of {one.rank}", "right") for one in first]
    print_table(
        heads,
        [
            (member.key, number(member.loss_nats), *(number(one.member_influence[place]) for one in first))
            for place, member in enumerate(answer.members)
        ],
        empty="",
    )


def _spread(influence: Sequence[float]) -> str:
    """How many outputs a training example made more likely, and the range of their scores."""
    positive = sum(value > 0 for value in influence)
    return f"{positive} of {len(influence)} ({min(influence):+.3f} to {max(influence):+.3f})"
