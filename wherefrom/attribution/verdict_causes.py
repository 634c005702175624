"""Known causes from people: the blind verdicts of `wherefrom export --verdicts`, ready for a calibration.

An example is a cause of an output where more people confirm it than find it plausible or unrelated. Requests for a second look say nothing.
What nobody judged is neither a cause nor none: the model of citations learns from judged ones only.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from wherefrom.attribution.bundles.manifest import hash_file
from wherefrom.errors import ConfigurationError, InvalidRecord
from wherefrom.json_text import objects_in
from wherefrom.records import JudgedOutput, Query, Verdict
from wherefrom.records.explain import first_problem

#: Fewest verdicts that calibrate, and fewest people who gave a tenth of that or more.
FEWEST_VERDICTS, FEWEST_PEOPLE = 50, 2


@dataclass(frozen=True)
class PeopleCauses:
    """Judged outputs of one corpus."""

    queries: Sequence[Query]
    #: Corpus rows of the causes of each output, and of everything that was judged beside it.
    gold: Sequence[Sequence[int]]
    judged: Sequence[Sequence[int]]
    verdicts: int
    people: int
    #: Verdicts under a chosen name, which proves nothing.
    unproven: int
    #: Outputs with training examples of another corpus.
    skipped: int
    sha256: str

    def provenance(self) -> dict[str, int]:
        """What the calibration keeps about them."""
        return {"verdicts": self.verdicts, "people": self.people, "unproven_verdicts": self.unproven}


def read_verdicts(file: Path, rows: Mapping[str, int]) -> PeopleCauses:
    """The causes that people found.

    Args:
        file: JSONL of `JudgedOutput`.
        rows: Corpus row by id of the training example.

    Raises:
        InvalidRecord: a line has another shape; the text names it.
        ConfigurationError: there are too few verdicts, or too few people.
    """
    outputs = [one for one in _read(file) if any(verdict.verdict.decides for verdict in one.verdicts)]
    ours = [one for one in outputs if all(verdict.example_id in rows for verdict in one.verdicts)]
    given = [verdict for one in ours for verdict in one.verdicts if verdict.verdict.decides]
    by_person = Counter(verdict.reviewer for verdict in given)
    people = sum(count >= FEWEST_VERDICTS // 10 for count in by_person.values())
    if len(given) < FEWEST_VERDICTS or people < FEWEST_PEOPLE:
        left = (
            f"; {len(outputs) - len(ours)} outputs name examples of another corpus"
            if len(ours) < len(outputs)
            else ""
        )
        raise ConfigurationError(
            f"{file}: {len(given)} blind verdicts by {people} people; at least {FEWEST_VERDICTS} by {FEWEST_PEOPLE} people are needed, "
            f"{FEWEST_VERDICTS // 10} or more from each{left}"
        )
    judged = [_judged(one) for one in ours]
    return PeopleCauses(
        queries=[
            Query(
                key=f"audit-{one.audit_id}",
                turns=one.messages,
                completion=one.completion,
                plain_prompt=one.plain_prompt,
            )
            for one in ours
        ],
        gold=[[rows[name] for name, is_cause in found.items() if is_cause] for found in judged],
        judged=[[rows[name] for name in found] for found in judged],
        verdicts=len(given),
        people=people,
        unproven=sum(not verdict.proven for verdict in given),
        skipped=len(outputs) - len(ours),
        sha256=hash_file(file).sha256,
    )


def _read(file: Path) -> list[JudgedOutput]:
    found = []
    for place, content in objects_in(file):
        try:
            found.append(JudgedOutput.model_validate(content))
        except ValidationError as error:
            field, what = first_problem(error)
            raise InvalidRecord(
                f"{place}: field `{field}`: {what}; make the file with `wherefrom export --verdicts`"
            ) from error
    return found


def _judged(output: JudgedOutput) -> dict[str, bool]:
    """Whether each judged training example is a cause, by its id."""
    balance: dict[str, int] = defaultdict(int)
    for one in output.verdicts:
        if one.verdict.decides:
            balance[one.example_id] += 1 if one.verdict is Verdict.CONFIRMED else -1
    return {name: votes > 0 for name, votes in balance.items()}
