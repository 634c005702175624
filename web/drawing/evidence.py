"""What the pages show about citations: shared words, score bars, shares of sources. No SQL, no HTML.

Marks and bars help the eye; the numbers beside them are the stored ones.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from web.drawing.display import share, signed
from web.drawing.marks import Marked, marked_texts
from web.drawing.parts import PartsView, parts_view
from web.drawing.shorten import (
    CITED_CHARACTERS,
    OUTPUT_CHARACTERS,
    TURNS_CHARACTERS,
    Part,
    last_that_fit,
    shortened,
)
from wherefrom.records import AuditDetail, CitationRecord, Message, SourceSummary

_WORD = re.compile(r"\w+(?:['\u2019.-]\w+)*")

# Words that stand in most texts: marking them would mark everything.
_COMMON_TEXT = """
a about after all also am an and any are as at be because been before being but by can could did do does
doing don't down each for from further had has have having he her here him his how i i'm if in into is
it it's its just let like may me more most my no nor not now of off on once only or other our out over
own please s she should so some such t than that the their them then there these they this those through
to too under until up us very was we were what when where which while who whom why will with would yes
you you're your yours
"""
_COMMON_WORDS = frozenset(_COMMON_TEXT.split())
#: Turns before the output whose words are marked in citations.
_READ_TURNS = 20


@dataclass(frozen=True)
class Segment:
    """A piece of a text, marked or not."""

    text: str
    marked: bool
    #: Characters behind it that the page does not show.
    left_out: int = 0


@dataclass(frozen=True)
class TurnView:
    """One turn before the flagged answer."""

    role: str
    content: tuple[Segment, ...]


@dataclass(frozen=True)
class Score:
    """One part of a citation's evidence, ready for a bar."""

    label: str
    #: The stored number; None where it was not computed.
    value: float | None
    #: The number as it is shown.
    text: str
    #: Length of the bar in percent of its track.
    percent: float
    meaning: str


@dataclass(frozen=True)
class CitationView:
    """A citation with what the page adds to it."""

    record: CitationRecord
    #: Length of the bar of the order score, percent of the strongest one on the page.
    percent: float
    scores: tuple[Score, ...]
    prompt: tuple[Segment, ...]
    completion: tuple[Segment, ...]
    #: Output and training example side by side; None where no spans are stored.
    marked: Marked | None
    #: Which parts of the model carry it; None where that is not stored.
    parts: PartsView | None


@dataclass(frozen=True)
class SourceShare:
    """How many of the citations shown come from one source, and where its part of the bar starts."""

    source: str
    citations: int
    start_percent: float
    percent: float


@dataclass(frozen=True)
class SourceView:
    """A source with its shares of the corpus and of all citations."""

    record: SourceSummary
    corpus_percent: float
    citation_percent: float
    #: Share of citations over share of examples; None where one of them is empty.
    lift: float | None


INFLUENCE_MEANING = (
    "Cosine of the exact kernel, -1 to 1: does learning this example change the same predictions of the model? "
    "Above 0: it made the output more likely."
)
BM25_MEANING = (
    "BM25 word overlap, 0 and up: how many rare words the two texts share. It knows nothing about the model."
)
SIMILARITY_MEANING = (
    "Cosine of the mean hidden states, -1 to 1: does the model see the two texts as alike? "
    "It finds the source of a behaviour well and predicts effects poorly."
)
ENCODER_MEANING = (
    "Cosine of a sentence encoder's vectors, -1 to 1: do the two texts say the same? It reads only the text. "
    "It finds paraphrases, but does not show that the model learned from them."
)
EKFAC_MEANING = "Cosine of EK-FAC over all linear layers, -1 to 1: the full tier, computed for audits marked important. Above 0: it made the output more likely."
EFFECT_MEANING = (
    "Predicted change of the output's mean loss without this example, nats per token; the scale was fitted on retrained models. "
    "A measured effect is stronger evidence."
)
CONFIDENCE_MEANING = "Probability that a known cause is in this example's near-duplicate group, calibrated on outputs with known causes."
RETRIEVAL_MEANING = "Cosine in the projected space, -1 to 1: the quick estimate that found this candidate."
PARTS_MEANING = (
    "Which parts of the model carry the influence: its share per block and per kind of linear layer. "
    "The words name the fewest neighbouring blocks and the fewest kinds that hold half of what goes with it. "
    "Ticks and the word usually give the same for pairs of training examples that are alike. Only the form adapter can tell."
)
ORDER_MEANING = (
    "The order shown. It adds influence, word overlap, similarity and, if the bundle has one, the sentence encoder. Each is standardised within this "
    "output and has a fixed weight. What an example gains by its length is subtracted. "
    "The score has no unit and no sign rule: the influence says whether an example speaks for or against the output. Compare scores only within one audit."
)


def words_of(text: str) -> set[str]:
    """The words of a text that are worth marking, case folded."""
    return {
        word
        for word in (found.group().casefold() for found in _WORD.finditer(text))
        if word not in _COMMON_WORDS
    }


def mark_words(text: str, vocabulary: frozenset[str]) -> tuple[Segment, ...]:
    """The text in pieces, those words marked that stand in the vocabulary; neighbours share one mark."""
    ranges: list[tuple[int, int]] = []
    for found in _WORD.finditer(text):
        if found.group().casefold() not in vocabulary:
            continue
        if ranges and text[ranges[-1][1] : found.start()].isspace():
            ranges[-1] = (ranges[-1][0], found.end())
        else:
            ranges.append(found.span())
    return mark_ranges(text, ranges)


def _cited_text(text: str, vocabulary: frozenset[str]) -> tuple[Segment, ...]:
    """A text of a training example, shortened; shared words stand everywhere, so only the beginning is looked at."""
    marked = mark_words(text[:CITED_CHARACTERS], vocabulary)
    left_out = max(0, len(text) - CITED_CHARACTERS)
    return (*marked[:-1], replace(marked[-1], left_out=left_out)) if marked and left_out else marked


def mark_ranges(text: str, ranges: Iterable[tuple[int, int]]) -> tuple[Segment, ...]:
    """The text in pieces; ranges of characters are marked, overlapping ones once."""
    segments: list[Segment] = []
    at = 0
    for first, last in sorted(ranges):
        start, end = max(first, at), min(last, len(text))
        if end <= start:
            continue
        segments += [Segment(text[at:start], marked=False), Segment(text[start:end], marked=True)]
        at = end
    segments.append(Segment(text[at:], marked=False))
    return tuple(one for one in segments if one.text)


def is_shortened(*texts: Sequence[Part]) -> bool:
    """Whether something of one of the texts is not shown."""
    return any(piece.left_out for text in texts for piece in text)


def plain_segments(text: str) -> tuple[Segment, ...]:
    """A text without marks, shortened."""
    return shortened((Segment(text, marked=False),), OUTPUT_CHARACTERS)


def turn_views(turns: Sequence[Message]) -> tuple[int, tuple[TurnView, ...]]:
    """How many of the first turns are not shown, and the others, shortened: the last ones matter most."""
    skipped = last_that_fit([turn.content[:OUTPUT_CHARACTERS] for turn in turns], TURNS_CHARACTERS)
    return skipped, tuple(TurnView(turn.role.value, plain_segments(turn.content)) for turn in turns[skipped:])


def citation_views(detail: AuditDetail) -> tuple[tuple[CitationView, ...], tuple[CitationView, ...]]:
    """Citations and opponents of an audit, ready for the page, in stored order."""
    said = (*(turn.content for turn in detail.turns[-_READ_TURNS:]), detail.completion)
    vocabulary = frozenset(words_of(" ".join(text[:OUTPUT_CHARACTERS] for text in said)))
    everything = [*detail.citations, *detail.opponents]
    top_score = max((abs(one.score) for one in everything), default=0.0)
    top_against = max((abs(one.influence_score or 0.0) for one in detail.opponents), default=0.0)
    top_bm25 = max((one.bm25_score for one in everything), default=0.0)

    def view(record: CitationRecord) -> CitationView:
        return CitationView(
            record=record,
            percent=share(abs(record.score), top_score)
            if record.rank > 0
            else share(abs(record.influence_score or 0.0), top_against),
            scores=_scores(record, top_bm25),
            prompt=_cited_text(record.prompt, vocabulary),
            completion=_cited_text(record.completion, vocabulary),
            marked=marked_texts(record, detail.completion),
            parts=parts_view(record),
        )

    return tuple(map(view, detail.citations)), tuple(map(view, detail.opponents))


def _scores(record: CitationRecord, top_bm25: float) -> tuple[Score, ...]:
    cosines = (
        ("Influence", record.influence_score, INFLUENCE_MEANING),
        *([("Full tier", record.ekfac_score, EKFAC_MEANING)] if record.ekfac_score is not None else []),
        ("Similarity", record.similarity_score, SIMILARITY_MEANING),
        *([("Encoder", record.encoder_score, ENCODER_MEANING)] if record.encoder_score is not None else []),
        ("Projection", record.retrieval_score, RETRIEVAL_MEANING),
    )
    made = [
        Score(name, value, signed(value), share(abs(value or 0.0), 1.0), meaning)
        for name, value, meaning in cosines
    ]
    made.insert(
        1,
        Score(
            "Word overlap",
            record.bm25_score,
            f"{record.bm25_score:.1f}",
            share(record.bm25_score, top_bm25),
            BM25_MEANING,
        ),
    )
    return tuple(made)


def source_shares(citations: Sequence[CitationRecord]) -> tuple[SourceShare, ...]:
    """The sources of the citations shown, most cited first; their parts fill one bar."""
    made: list[SourceShare] = []
    start = 0.0
    for source, number in Counter(one.source for one in citations).most_common():
        width = share(number, len(citations))
        made.append(SourceShare(source, number, start, width))
        start += width
    return tuple(made)


def source_views(sources: Sequence[SourceSummary]) -> tuple[SourceView, ...]:
    """All sources with their shares, those cited most for their size first."""
    examples = sum(one.examples for one in sources)
    citations = sum(one.citations for one in sources)
    views = [
        SourceView(
            record=one,
            corpus_percent=share(one.examples, examples),
            citation_percent=share(one.citations, citations),
            lift=(one.citations / citations) / (one.examples / examples)
            if one.examples and citations
            else None,
        )
        for one in sources
    ]
    return tuple(sorted(views, key=lambda view: (-(view.lift or 0.0), view.record.source)))
