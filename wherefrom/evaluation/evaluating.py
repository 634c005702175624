"""Measures a bundle by whatever material is given; what lacks material is listed with the reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.calibration.fitted import JUDGED, Calibration
from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.attribution.groups import Groups, read_groups
from wherefrom.attribution.offline import read_queries
from wherefrom.attribution.progress import Progress
from wherefrom.attribution.query import ScoredQuery
from wherefrom.attribution.retrieval.index import evenly, unit_rows
from wherefrom.evaluation.asking import ask
from wherefrom.evaluation.cost import overhead
from wherefrom.evaluation.estimates import mean_of
from wherefrom.evaluation.heads import Heads, heads_of
from wherefrom.evaluation.material import (
    MaterialFiles,
    content_hash,
    read_bank,
    read_control_groups,
    read_gold,
    read_result,
)
from wherefrom.evaluation.report import Report
from wherefrom.evaluation.sanity import FEWEST_OUTPUTS, FEWEST_ROWS, cardinality, mixed_corpus, randomised
from wherefrom.evaluation.trust import Verdicts, conformal_table, reliability, verdict_estimates, verdicts_of
from wherefrom.evaluation.truth import (
    candidates_hold,
    cause_ranks,
    ceiling_estimate,
    lds_estimates,
    recall_curve,
    recall_estimates,
    search_recall,
)
from wherefrom.records import Message, Query, Role

#: Training examples that are asked where no file of queries is given.
_OWN_ROWS = 64


@dataclass
class _Bench:
    """An opened bundle with the files that were already sent through it, by hash, so that no file is asked twice."""

    bundle: Bundle
    attributor: LanguageAttributor
    groups: Groups
    progress: Progress
    asked: dict[str, list[ScoredQuery]] = field(default_factory=dict)
    scored: dict[str, Heads] = field(default_factory=dict)

    def ask(self, file: Path) -> list[ScoredQuery]:
        """The queries of one file after search and scoring."""
        key = content_hash(file)
        if key not in self.asked:
            self.asked[key] = self.ask_queries(read_queries(file)[0])
        return self.asked[key]

    def ask_queries(self, queries: Sequence[Query]) -> list[ScoredQuery]:
        """Queries after search and scoring."""
        limit = self.bundle.manifest.parameters.max_tokens
        return ask(self.attributor, queries, max_tokens=limit, progress=self.progress)

    def heads(self, file: Path) -> Heads:
        """All heads over the queries of one file."""
        key = content_hash(file)
        if key not in self.scored:
            self.scored[key] = heads_of(self.attributor, self.bundle, self.ask(file), self.progress)
        return self.scored[key]

    def judge(self, asked: list[ScoredQuery]) -> list[CitationFeatures]:
        """What the calibration looks at."""
        return [self.attributor.judged(one, count=JUDGED) for one in asked]


def evaluate_bundle(bundle: Bundle, files: MaterialFiles, progress: Progress) -> Report:
    """Measure everything that the material allows.

    Raises:
        ConfigurationError: material does not fit the bundle, or options lack one another.
        InvalidRecord: a file is malformed, or names causes that the corpus does not have.
    """
    files.check()
    groups = read_groups(bundle.path, len(bundle.store))
    bench = _Bench(bundle, LanguageAttributor(bundle), groups, progress)
    report = Report()
    rows = {example.example_id: example.row for example in iter_examples(bundle.path)}
    gold = [] if files.known is None else read_gold(files.known, rows)
    _take_over(report, files)
    _against_bank(report, bench, files)
    _known_causes(report, bench, files, gold)
    _calibration(report, bench, files, gold)
    _search(report, bench, files)
    _sanity(report, bench, files)
    report.set_aside()
    return report


def _take_over(report: Report, files: MaterialFiles) -> None:
    """Results of benchmarks, as they are."""
    if files.stress is None:
        report.missing["stress"] = "no result of python -m benchmarks.shifts given (--stress)"
    else:
        report.stress = read_result(files.stress, holds="kinds")
    if files.overhead is not None:
        report.overhead = read_result(files.overhead, holds="forms")


def _against_bank(report: Report, bench: _Bench, files: MaterialFiles) -> None:
    if files.bank is None or files.bank_queries is None:
        report.missing["LDS"] = "no bank given (--bank, --bank-queries)"
        return
    losses, asked = files.bank_losses or files.bank_queries.stem, read_queries(files.bank_queries)[0]
    corpus = bench.bundle.manifest.corpus.sha256
    truth, content = read_bank(files.bank, losses)
    truth.check(examples=len(bench.bundle.store), queries=len(asked))
    untied = content.check(corpus_sha256=corpus, name=losses, queries=asked)
    made_of = "bank, bank queries"
    if files.bank_repeat is None:
        report.missing["share of the ceiling of LDS"] = "no repeated bank given (--bank-repeat)"
    else:
        repeat, content = read_bank(files.bank_repeat, losses)
        untied = content.check(corpus_sha256=corpus, name=losses, queries=asked) or untied
        report.ceiling = ceiling_estimate(truth, repeat, made_of=f"{made_of}, repeated bank")
    if untied is not None:
        report.missing["content of the bank"] = untied
    heads = bench.heads(files.bank_queries).judged()
    report.add("LDS, ", lds_estimates(heads, truth, made_of=made_of))


def _known_causes(report: Report, bench: _Bench, files: MaterialFiles, gold: Sequence[Sequence[int]]) -> None:
    if files.known is None or not any(gold):
        report.missing["recall"] = (
            "no outputs with known causes given (--known)"
            if files.known is None
            else "no output of --known names a cause"
        )
        return
    heads = bench.heads(files.known).judged()
    ranks = {name: cause_ranks(scores, gold, bench.groups) for name, scores in heads.items()}
    report.add("", recall_estimates(ranks, made_of="known outputs"))
    report.recall = recall_curve(ranks)


def _calibration(report: Report, bench: _Bench, files: MaterialFiles, gold: Sequence[Sequence[int]]) -> None:
    calibration = Calibration.load(bench.bundle.path)
    if calibration.null is None:
        why = f"the bundle is not calibrated ({calibration.reason or 'no reason given'}); see `wherefrom calibrate`"
        report.missing["reliability, conformal p-values, abstention"] = why
        return
    known_file = _held_out(report, files.known, calibration, "known")
    control_file = _held_out(report, files.controls, calibration, "controls")
    judged = [] if known_file is None else bench.judge(bench.ask(known_file))
    known_causes = [(one, causes) for one, causes in zip(judged, gold, strict=False) if causes]
    known = verdicts_of(calibration, [one for one, _ in known_causes], bench.groups) if known_causes else None
    controls: Verdicts | None = None
    names: list[str] = []
    if control_file is not None:
        names = read_control_groups(control_file)
        controls = verdicts_of(calibration, bench.judge(bench.ask(control_file)), bench.groups)
        report.conformal = conformal_table(controls.p, names, made_of="controls")
    report.add("", verdict_estimates(known, controls, names, made_of="known outputs, controls"))
    if known is None or controls is None or calibration.citations is None:
        report.missing["reliability of confidence"] = (
            "needs known outputs and controls that did not fit a calibration with known causes"
        )
        return
    report.bins, error = reliability(
        known,
        [one for one, _ in known_causes],
        [causes for _, causes in known_causes],
        controls=controls,
        groups=bench.groups,
        made_of="known outputs, controls",
    )
    report.measures["calibration error (ECE) of confidence"] = error


def _held_out(report: Report, file: Path | None, calibration: Calibration, name: str) -> Path | None:
    """The file, unless the bundle was calibrated with this very file."""
    what = {"known": "abstention on known outputs", "controls": "conformal p-values on controls"}[name]
    if file is None:
        report.missing[what] = f"no file given (--{name})"
    elif calibration.fitted_on.get(f"{name}_sha256") == content_hash(file):
        report.missing[what] = (
            f"{file.name} was used to calibrate this bundle; give held-out outputs (--{name})"
        )
        return None
    return file


def _sanity(report: Report, bench: _Bench, files: MaterialFiles) -> None:
    """Whether citations hang on the model, are spread, and leave alone what it never saw."""
    file = files.known or files.bank_queries
    if file is None or len(bench.ask(file)) < FEWEST_OUTPUTS or len(bench.bundle.store) < FEWEST_ROWS:
        why = (
            f"needs {FEWEST_OUTPUTS} outputs (--known or --bank-queries) and {FEWEST_ROWS} training examples"
        )
        report.missing["model randomisation, cardinality"] = why
        return
    heads, asked = bench.heads(file), bench.ask(file)
    report.add("order shown: ", cardinality(heads.shown, made_of=file.name))
    found = randomised(bench.bundle, heads.influence, asked, made_of=file.name)
    report.add("", found)
    if not found:
        report.missing["model randomisation"] = "the shuffled model's states are not finite"
    if files.controls is None:
        report.missing["mixed corpus"] = "no outputs of another corpus given (--controls)"
        return
    foreign = bench.ask(files.controls)
    made_of = f"{file.name}, {files.controls.name}"
    report.add("", mixed_corpus(heads.influence, asked, foreign, made_of=made_of))


def _search(report: Report, bench: _Bench, files: MaterialFiles) -> None:
    """What search loses, and what a pass costs; asked with the first given file of queries, else with training examples."""
    file = files.known or files.bank_queries or files.controls
    if file is None:
        asked, unit = bench.ask_queries(_own_rows(bench.bundle)), "training examples as queries"
        influence = heads_of(bench.attributor, bench.bundle, asked, bench.progress).influence
    else:
        asked, unit = bench.ask(file), "outputs"
        influence = bench.heads(file).influence
    made_of = "the bundle" if file is None else file.name
    rows = [one.scores.candidates.rows for one in asked]
    report.add("", candidates_hold(influence, rows, unit=unit, made_of=made_of))
    vectors, searched_by = unit_rows(np.asarray(bench.bundle.vectors)), bench.bundle.searched_by
    queries = np.stack([one.signals.projected for one in asked])
    for count in sorted({10, bench.bundle.manifest.parameters.candidates}):
        shares = search_recall(bench.bundle.index, vectors, queries, min(count, len(vectors)))
        report.measures[f"{searched_by} recall@{count} against exhaustive search"] = mean_of(
            shares, unit, made_of
        )
    report.add("", overhead(bench.attributor, bench.bundle.language, asked, made_of=made_of))


def _own_rows(bundle: Bundle) -> list[Query]:
    """Training examples as queries, evenly over the corpus; the turns before the completion as one turn of a user."""
    rows = evenly(len(bundle.store), _OWN_ROWS).tolist()
    return [
        Query(
            key=one.example_id,
            turns=(Message(role=Role.USER, content=one.prompt),) if one.prompt else (),
            completion=one.completion,
            plain_prompt=True,
        )
        for one in bundle.texts.read(rows)
    ]
