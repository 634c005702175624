"""What a finding is called by itself: words that its outputs have and the others do not; and where its first citations come from.

A word is stored with outputs that have it. These rows go when a text is erased, so a word that only erased texts had is gone with them.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from db.clock import db_now
from db.models import (
    Audit,
    Bundle,
    Finding,
    FindingOutput,
    FindingWord,
    FlaggedText,
    TrainingExample,
)
from db.models.findings import WORD_CHARS
from db.reading.finding_roots import whole_of
from db.session import Database
from db.statements import insert_rows
from db.storing.search import words_of
from db.storing.vectors import lock_texts

#: Words of a name, and outputs that each of them is stored with.
WORDS, WITNESSES = 4, 20
#: Newest outputs of a finding whose texts are read, others that they are held against, and characters of each.
INSIDE, OUTSIDE, READ_CHARS = 200, 400, 2_000
#: With fewer other outputs, training examples of the corpus say what words are common.
FEW_OTHERS = 50
#: Newest outputs whose sources are counted, and sources that are told.
COUNTED, SOURCES = 10_000, 5
#: A word of a name is in at least this share of the outputs, so many times as often as elsewhere, and has so many letters.
_SHARE, _TIMES, _LETTERS = 0.2, 2.0, 3
#: Invisible characters: they are taken out of a word, so that it is the same word.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def telling_words(inside: Mapping[int, str], outside: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Words that outputs have and others do not, the most telling first, each with the outputs that have it.

    Args:
        inside: Texts of the outputs, by output.
        outside: Texts of others.
    """
    having: dict[str, list[int]] = {}
    for output_id, text in inside.items():
        for word in _words(text):
            having.setdefault(word, []).append(output_id)
    others = Counter(word for text in outside for word in _words(text))
    least = max(min(2, len(inside)), _SHARE * len(inside))

    def telling(word: str) -> float:
        here, there = len(having[word]) / len(inside), (others[word] + 0.5) / (len(outside) + 1)
        return here * math.log(here / there) if here >= _TIMES * there else 0.0

    known = [word for word, outputs in having.items() if len(outputs) >= least and telling(word) > 0]
    best = sorted(known, key=lambda word: (-telling(word), word))[:WORDS]
    return [(word, having[word]) for word in best]


def _words(text: str) -> set[str]:
    """The words of a text that may stand in a name: of letters alone. Letters of a script without spaces go in pairs."""
    shown = "".join(" " if one in "\n\t\r" else one for one in text if one in "\n\t\r" or _is_shown(one))
    found = words_of(shown)
    pairs = {a + b for a, b in pairwise(found) if _stands_alone(a) and _stands_alone(b)}
    return {one for one in found if len(one) >= _LETTERS and one.isalpha() and len(one) <= WORD_CHARS} | pairs


def _is_shown(character: str) -> bool:
    return unicodedata.category(character) not in _HIDDEN


def _stands_alone(word: str) -> bool:
    return len(word) == 1 and unicodedata.category(word) == "Lo"


def name_finding(db: Database, finding_id: int) -> None:
    """Work out the words and the sources of a finding that stands by itself; nothing where there is none."""
    with db.reading() as session:
        finding = session.get(Finding, finding_id)
        if finding is None or finding.merged_into is not None:
            return
        whole = whole_of(session, finding_id)
        inside = _texts(session, FindingOutput.finding_id.in_(whole), most=INSIDE)
        outside = list(
            _texts(
                session,
                FindingOutput.bundle_id == finding.bundle_id,
                func.coalesce(FindingOutput.finding_id, 0).not_in(whole),
                most=OUTSIDE,
            ).values()
        )
        if len(outside) < FEW_OTHERS:
            outside += _corpus_texts(session, finding.bundle_id)
        sources, newest_at = _sources(session, whole)
    words = telling_words(inside, outside)
    with db.writing() as session:
        stored = _store_words(session, finding_id, words)
        values = {"sources": sources, "newest_at": newest_at, "num_words": stored, "due": False}
        session.execute(update(Finding).where(Finding.id == finding_id).values(counted_at=db_now(), **values))


def _texts(session: Session, *wanted: Any, most: int) -> dict[int, str]:
    """The newest texts, by output."""
    newest = (
        select(FindingOutput.audit_id)
        .where(*wanted)
        .order_by(FindingOutput.audit_id.desc())
        .limit(most)
        .subquery("newest")
    )
    query = (
        select(
            FlaggedText.flagged_output_id, func.substr(FlaggedText.completion, 1, READ_CHARS).label("text")
        )
        .join(Audit, Audit.flagged_output_id == FlaggedText.flagged_output_id)
        .join(newest, newest.c.audit_id == Audit.id)
    )
    return {row.flagged_output_id: row.text for row in session.execute(query)}


def _corpus_texts(session: Session, bundle_id: int) -> Sequence[str]:
    corpus = select(Bundle.corpus_id).where(Bundle.id == bundle_id).scalar_subquery()
    text = func.substr(TrainingExample.completion, 1, READ_CHARS)
    query = (
        select(text).where(TrainingExample.corpus_id == corpus).order_by(TrainingExample.id).limit(OUTSIDE)
    )
    return session.scalars(query).all()


def _sources(session: Session, whole: Sequence[int]) -> tuple[list[dict[str, Any]], Any]:
    newest = (
        select(FindingOutput.audit_id)
        .where(FindingOutput.finding_id.in_(whole))
        .order_by(FindingOutput.audit_id.desc())
        .limit(COUNTED)
        .subquery("newest")
    )
    rows = session.execute(
        select(Audit.top_source, func.count().label("outputs"), func.max(Audit.created_at).label("newest_at"))
        .join(newest, newest.c.audit_id == Audit.id)
        .group_by(Audit.top_source)
        .order_by(func.count().desc(), Audit.top_source)
    ).all()
    named = [{"source": row.top_source, "outputs": row.outputs} for row in rows if row.top_source is not None]
    return named[:SOURCES], max((row.newest_at for row in rows), default=None)


def _store_words(session: Session, finding_id: int, words: Sequence[tuple[str, list[int]]]) -> int:
    """Put words in the place of those that are stored, with outputs whose text is there; how many have any."""
    session.execute(delete(FindingWord).where(FindingWord.finding_id == finding_id))
    there = set(lock_texts(session, {output_id for _, having in words for output_id in having[-WITNESSES:]}))
    rows = [
        {"finding_id": finding_id, "place": place, "flagged_output_id": output_id, "word": word}
        for place, (word, having) in enumerate(words, start=1)
        for output_id in having[-WITNESSES:]
        if output_id in there
    ]
    if rows:
        session.execute(insert_rows(FindingWord), rows)
    return len({row["place"] for row in rows})
