"""Do the words that a citation names carry it? Deletion check, coverage of known answers, and what the evidence costs.

    python -m benchmarks.tokens --yardstick PATH [--limit N] [--json]
    python -m benchmarks.tokens --bundle B --model M [--adapter A] --corpus C.jsonl --asked Q.jsonl [--json]

Deletion check: of each query's best citations, the tokens that the spans name in the training example are taken away, the model reads what is left
anew, and the kernel with the query is computed again; beside it the same number of random completion tokens, three draws. Ratio = fall of the score for
the named tokens / mean fall for the random ones (infinite where those do not lower it). `delete` leaves the tokens out, `replace` puts the padding token in their place and does
not count it as an answer. Known answers: words that query and known training example share beyond the prompt. Nothing is fitted on the evaluation queries; the threshold of the
spans was chosen on the teacher queries.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.program import command, run
from benchmarks.small_model import SmallModel, add_queries, add_yardstick
from benchmarks.tokens.deletion import replaced, summary, touches, without
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.corpus import CorpusRow, read_corpus
from wherefrom.attribution.explanation.passage import Passage
from wherefrom.attribution.explanation.spans import Explainer
from wherefrom.attribution.kernel import token_kernel
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.offline import attribute_all, signals_of_all
from wherefrom.attribution.progress import silent
from wherefrom.attribution.query import ReadQuery, TokenizedQuery
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.asking import read_file
from wherefrom.evaluation.cost import timed
from wherefrom.evaluation.tables import Column, table
from wherefrom.records import Attribution, CitationDraft, Query, Role

TOP_K = 10
OPPONENTS = 3
DRAWS = 3
MASKINGS = ("delete", "replace")
_SEED = 11
#: Queries whose examples are masked and read at a time.
_QUERIES_AT_ONCE = 10
#: Shorter words say little by themselves, unless they are numbers.
_LEAST_LETTERS = 4


_COLUMNS = (
    Column("masking", 10, left=True),
    Column("ratio", 8, ".2f"),
    Column("95 %", 16, ".2f"),
    Column("named > random", 16, ".3f"),
    Column("fall named", 12, ".3f"),
    Column("random", 8, ".3f"),
)
_FIGURES = (
    "median_ratio",
    "median_ratio_95",
    "named_over_random",
    "median_fall_named",
    "median_fall_random",
)


@dataclass(frozen=True)
class Subject:
    """What is checked: the engine, its corpus, the queries and their citations."""

    attributor: LanguageAttributor
    bundle: Bundle
    corpus: Sequence[CorpusRow]
    queries: Sequence[ReadQuery]
    attributions: Sequence[Attribution]
    asked: Sequence[CorpusRow]


@dataclass(frozen=True)
class MaskedExample:
    """A cited example as tokens, and which of them are named."""

    row: TokenRow
    completion: str
    chat: bool
    #: Completion tokens (counted from the completion's first) that show something.
    shown: npt.NDArray[np.int64]
    named: npt.NDArray[np.int64]


def main() -> None:
    """Check the spans of one bundle and print one table."""
    parser = command(__doc__)
    add_yardstick(parser, required=False)
    add_queries(parser)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--corpus", type=Path, help="the corpus that the bundle was built from")
    parser.add_argument("--asked", type=Path, help="queries, as `wherefrom attribute` reads them")
    parser.add_argument("--limit", type=int, help="only the first N queries")
    parser.add_argument("--top", type=int, default=3, help="best citations of each query that are checked")
    run(parser, check_spans, table=_table)


def check_spans(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All checks.

    Raises:
        ConfigurationError: neither a yardstick nor a bundle with all that belongs to it is given.
    """
    needed = (arguments.bundle, arguments.model, arguments.corpus, arguments.asked)
    if arguments.yardstick is None and None in needed:
        raise ConfigurationError("give --yardstick, or all of --bundle, --model, --corpus and --asked")
    subject = _subject(arguments, work)
    spans = [
        citation.spans
        for one in subject.attributions
        for citation in one.citations
        if 0 < citation.rank <= arguments.top
    ]
    return {
        "queries": len(subject.queries),
        "citations": len(spans),
        "pairs_per_citation": float(np.mean([len(one) for one in spans])),
        "mass_in_spans": float(np.median([sum(pair.share for pair in one) for one in spans])),
        "deletion": deletion_check(subject, arguments.top),
        "answers": known_answers(subject),
        "cost": cost(subject),
    }


def _subject(arguments: argparse.Namespace, work: Path) -> Subject:
    if arguments.yardstick is not None:
        folder: SmallModel = arguments.yardstick
        bundle = folder.bundle(work / "bundle", BuildOptions())
        asked, corpus = folder.queries_file(arguments.queries), folder.corpus
    else:
        bundle = open_bundle(arguments.bundle, ModelFolders(arguments.model, arguments.adapter))
        asked, corpus = arguments.asked, tuple(read_corpus(arguments.corpus).rows)
    attributor = LanguageAttributor(bundle)
    queries = read_file(attributor, asked, max_tokens=bundle.manifest.parameters.max_tokens)[
        : arguments.limit
    ]
    return Subject(
        attributor,
        bundle,
        corpus,
        queries,
        attribute_all(attributor, queries, top_k=TOP_K, opponents=OPPONENTS, progress=silent),
        read_corpus(asked).rows,
    )


def deletion_check(subject: Subject, top: int) -> dict[str, Any]:
    """How much the named tokens lower the score, beside as many random ones."""
    generator = np.random.default_rng(_SEED)
    falls: dict[str, list[tuple[int, float, float]]] = {masking: [] for masking in MASKINGS}
    named_shares: list[float] = []
    for first in range(0, len(subject.queries), _QUERIES_AT_ONCE):
        chosen = [
            (index, example)
            for index in range(first, min(first + _QUERIES_AT_ONCE, len(subject.queries)))
            for example in _examples(subject, index, top)
        ]
        named_shares += [len(example.named) / len(example.shown) for _, example in chosen]
        for index, masking, named, random in _falls(subject, chosen, generator):
            falls[masking].append((index, named, random))
    return {
        "named_share_of_tokens": float(np.median(named_shares)),
        "citations": len(named_shares),
        **{masking: summary(np.array(rows)) for masking, rows in falls.items()},
    }


def _examples(subject: Subject, index: int, top: int) -> list[MaskedExample]:
    """The best citations of one query whose spans name a part of the tokens."""
    found = []
    for citation in subject.attributions[index].citations:
        if not 0 < citation.rank <= top or not citation.spans:
            continue
        example = masked_example(subject.bundle, subject.corpus[citation.example.row], citation)
        if 0 < len(example.named) < len(example.shown):
            found.append(example)
    return found


def masked_example(bundle: Bundle, content: CorpusRow, citation: CitationDraft) -> MaskedExample:
    """Render a cited row as the build did and mark what the spans name."""
    renderer = bundle.language.renderer
    row = renderer.render(
        content.turns,
        content.completion,
        max_tokens=bundle.manifest.parameters.max_tokens,
        over_long="truncate",
    )
    ranges = renderer.ranges(content.completion, row, chat=bool(content.turns))
    shown = [place for place, (start, end) in enumerate(ranges) if end > start]
    spans = [pair.example for pair in citation.spans]
    named = [place for place in shown if touches(ranges[place], spans)]
    return MaskedExample(
        row, content.completion, bool(content.turns), np.array(shown), np.array(named, dtype=np.int64)
    )


def _falls(
    subject: Subject, chosen: Sequence[tuple[int, MaskedExample]], generator: np.random.Generator
) -> list[tuple[int, str, float, float]]:
    """Query, masking, and the fall of the score as a share of it: for the named tokens, and the mean over random draws."""
    tokenizer = subject.bundle.language.tokenizer
    filler = next(
        one
        for one in (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.eos_token_id)
        if one is not None
    )
    rows: list[tuple[int, MaskedExample, TokenRow]] = []
    for index, example in chosen:
        rows.append((index, example, example.row))
        draws = [
            generator.choice(example.shown, size=len(example.named), replace=False) for _ in range(DRAWS)
        ]
        for masking in MASKINGS:
            for places in (example.named, *draws):
                masked = (
                    without(example.row, places)
                    if masking == "delete"
                    else replaced(example.row, places, filler)
                )
                rows.append((index, example, masked))
    scores = iter(_scores(subject, rows))
    found = []
    for index, _ in chosen:
        score = next(scores)
        for masking in MASKINGS:
            named, *random = [(score - next(scores)) / abs(score) for _ in range(1 + DRAWS)]
            found.append((index, masking, named, float(np.mean(random))))
    return found


def _scores(subject: Subject, rows: Sequence[tuple[int, MaskedExample, TokenRow]]) -> list[float]:
    """Kernel of each row, read as the engine reads a query, with the query that stands beside it."""
    prepared = [
        TokenizedQuery(Query(key="example", turns=(), completion=example.completion), row)
        for _, example, row in rows
    ]
    read = signals_of_all(subject.attributor, prepared)
    return [
        float(token_kernel(subject.queries[index].signals.factors, one.signals.factors).sum())
        for (index, _, _), one in zip(rows, read, strict=True)
    ]


def known_answers(subject: Subject) -> dict[str, Any] | None:
    """Share of the words of known answers that the output spans cover, beside the output's other words; None without known answers."""
    covered: dict[bool, list[bool]] = {True: [], False: []}
    found = queries = 0
    for asked, attribution in zip(subject.asked, subject.attributions, strict=False):
        gold = set(asked.fields.get("gold") or [])
        queries += bool(gold)
        citation = next(
            (one for one in attribution.citations if one.rank > 0 and one.example.example_id in gold), None
        )
        if citation is None:
            continue
        found += 1
        prompt = "\n".join(turn.content for turn in asked.turns if turn.role != Role.SYSTEM)
        output, known = _whole(asked.completion), set(_whole(citation.example.completion).keys)
        known -= set(_whole(prompt).keys)
        spans = [pair.output for pair in citation.spans]
        for key, (start, end) in zip(output.keys, output.words.tolist(), strict=True):
            says = len(key) >= _LEAST_LETTERS or any(letter.isdigit() for letter in key)
            covered[says and key in known].append(touches((start, end), spans))
    if not queries:
        return None
    return {
        "queries": queries,
        "known_example_among_citations": found,
        "answer_words": len(covered[True]),
        "answer_words_covered": float(np.mean(covered[True])) if covered[True] else None,
        "other_words_covered": float(np.mean(covered[False])) if covered[False] else None,
    }


def _whole(text: str) -> Passage:
    return Passage(text, [(0, len(text))])


def cost(subject: Subject) -> dict[str, float]:
    """Processor seconds per query of attribution without evidence, and of the evidence as a share of it: examples cited for the first time, and again."""
    _, plain = timed(lambda: _score(subject), clock=time.process_time)
    explainer = Explainer(subject.bundle.language.renderer, subject.bundle.store)
    seconds = [timed(lambda: _explain_all(explainer, subject), clock=time.process_time)[1] for _ in range(2)]
    return {
        "attribution_s": plain / len(subject.queries),
        "evidence_share_first": seconds[0] / plain,
        "evidence_share_again": seconds[1] / plain,
    }


def _score(subject: Subject) -> None:
    for query in signals_of_all(subject.attributor, subject.queries):
        subject.attributor.score(query)


def _explain_all(explainer: Explainer, subject: Subject) -> None:
    for query, attribution in zip(subject.queries, subject.attributions, strict=True):
        _explain(explainer, subject.bundle, query, attribution)


def _explain(explainer: Explainer, bundle: Bundle, query: ReadQuery, attribution: Attribution) -> None:
    """What the engine does for the evidence of one query's citations."""
    completion = query.asked.completion
    ranges = bundle.language.renderer.ranges(completion, query.row, chat=bool(query.asked.turns))
    read = bundle.reader.reads(query.row)
    explained = [one for one, flag in zip(ranges, read, strict=True) if flag]
    examples = [citation.example for citation in attribution.citations]
    signs = [citation.influence_score or 0.0 for citation in attribution.citations]
    explainer.explain(query.signals.of_completion(), Passage(completion, explained), examples, signs=signs)


def _table(result: dict[str, Any]) -> list[str]:
    deletion, answers, spent = result["deletion"], result["answers"], result["cost"]
    head = f"{result['queries']} queries, {result['citations']} citations, {result['pairs_per_citation']:.1f} pairs each"
    rows = [(masking, *(deletion[masking][figure] for figure in _FIGURES)) for masking in MASKINGS]
    lines = [
        f"{head}, holding {result['mass_in_spans']:.2f} of the positive mass (median)",
        f"spans name {deletion['named_share_of_tokens']:.2f} of the example's tokens (median of {deletion['citations']} citations)",
        *table(_COLUMNS, rows),
    ]
    if answers is not None:
        lines.append(
            f"known answers ({answers['known_example_among_citations']} of {answers['queries']} queries cite the known example): output spans cover "
            f"{answers['answer_words_covered']:.3f} of {answers['answer_words']} answer words, {answers['other_words_covered']:.3f} of the others"
        )
    lines.append(
        f"evidence costs {spent['evidence_share_first']:.1%} of an attribution without it ({spent['attribution_s'] * 1e3:.1f} ms of processor time); "
        f"{spent['evidence_share_again']:.1%} where the examples were cited before"
    )
    return lines
