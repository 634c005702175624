"""What a blind reviewer is shown beside an output: citations sampled over the ranks, and training examples at random.

A judge who sees only what was cited can be right by saying yes each time. The examples that were mixed in say how often that would be
wrong. The sample is drawn once per item and stored, so that all reviewers of it judge the same rows in the same places.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import and_, func, insert, select
from sqlalchemy.orm import Session

from db.audit_trail.reads import note_texts
from db.models import Audit, Bundle, Citation, FlaggedText, ReviewItem, ReviewRow, TrainingExample
from db.session import Database
from wherefrom.errors import NotFound
from wherefrom.records import Message

#: Citations shown: the first, and some spread over the other ranks; and examples that are not cited.
CITED, MIXED_IN = 4, 2


@dataclass(frozen=True)
class BlindRow:
    """A training example as a blind reviewer sees it: its text, and nothing that was computed."""

    training_example_id: int
    prompt: str
    completion: str


@dataclass(frozen=True)
class BlindItem:
    """An output and the rows to be judged, in their fixed places."""

    audit_id: int
    turns: tuple[Message, ...]
    completion: str
    rows: tuple[BlindRow, ...]


def sample_ranks(ranks: Sequence[int], rng: random.Random, *, most: int = CITED) -> list[int]:
    """Ranks to be judged: the first, and one from each of `most` - 1 equal parts of the others.

    Args:
        ranks: The proponents' ranks, ascending from 1.
        rng: Chooses within each part.
        most: How many are wanted.
    """
    if len(ranks) <= most:
        return list(ranks)
    others, parts = list(ranks[1:]), most - 1
    edges = [len(others) * part // parts for part in range(parts + 1)]
    return [ranks[0], *(rng.choice(others[edges[part] : edges[part + 1]]) for part in range(parts))]


def draw(session: Session, item_ids: Sequence[int]) -> None:
    """Draw and store what is shown beside new items of a blind queue; three statements for all items of a transaction, and one per corpus."""
    rng = random.SystemRandom()
    cited = _cited(session, item_ids)
    known = (
        select(ReviewItem.id, Bundle.corpus_id)
        .join(Audit, Audit.id == ReviewItem.audit_id)
        .join(Bundle, Bundle.id == Audit.bundle_id)
        .where(ReviewItem.id.in_(item_ids))
    )
    corpora = {row.id: row.corpus_id for row in session.execute(known)}
    pools = {corpus: _pool(session, corpus, rng) for corpus in set(corpora.values())}
    rows = []
    for item_id in item_ids:
        by_rank = cited.get(item_id, {})
        proponents = sorted(rank for rank in by_rank if rank > 0)
        shown: list[tuple[int, int | None]] = [
            (by_rank[rank], rank) for rank in sample_ranks(proponents, rng)
        ]
        taken = set(by_rank.values())
        free = [one for one in pools.get(corpora.get(item_id, 0), []) if one not in taken]
        shown += [(one, None) for one in rng.sample(free, min(MIXED_IN, len(free)))]
        rng.shuffle(shown)
        rows += [
            {"item_id": item_id, "place": place, "training_example_id": example_id, "rank": rank}
            for place, (example_id, rank) in enumerate(shown)
        ]
    if rows:
        session.execute(insert(ReviewRow), rows)


def _cited(session: Session, item_ids: Sequence[int]) -> dict[int, dict[int, int]]:
    """Training examples of the items' citations, opponents too, by rank."""
    found: dict[int, dict[int, int]] = {}
    query = (
        select(ReviewItem.id, Citation.rank, Citation.training_example_id)
        .join(Citation, Citation.audit_id == ReviewItem.audit_id)
        .where(ReviewItem.id.in_(item_ids))
    )
    for item_id, rank, example_id in session.execute(query):
        found.setdefault(item_id, {})[rank] = example_id
    return found


def _pool(session: Session, corpus_id: int, rng: random.Random, *, most: int = 400) -> list[int]:
    """Stored training examples of a corpus at random, all of them where there are few; none without a text, which would tell itself apart."""
    mine = and_(TrainingExample.corpus_id == corpus_id, TrainingExample.erased_at.is_(None))
    low, high, count = session.execute(
        select(func.min(TrainingExample.id), func.max(TrainingExample.id), func.count()).where(mine)
    ).one()
    if not count:
        return []
    wanted = select(TrainingExample.id).where(mine)
    if count > most:
        guesses = {rng.randint(low, high) for _ in range(4 * most)}
        wanted = wanted.where(TrainingExample.id.in_(guesses))
    return list(session.scalars(wanted.order_by(TrainingExample.id)))


def blind_item(db: Database, item_id: int) -> BlindItem:
    """What a blind reviewer sees of an item; two statements.

    Raises:
        NotFound: there is no such item.
    """
    with db.reading() as session:
        head = session.execute(
            select(Audit.id, FlaggedText.turns, FlaggedText.completion)
            .join(ReviewItem, ReviewItem.audit_id == Audit.id)
            .outerjoin(FlaggedText, FlaggedText.flagged_output_id == Audit.flagged_output_id)
            .where(ReviewItem.id == item_id)
        ).one_or_none()
        if head is None:
            raise NotFound(f"review item {item_id} does not exist")
        rows = session.execute(
            select(TrainingExample.id, TrainingExample.prompt, TrainingExample.completion)
            .join(ReviewRow, ReviewRow.training_example_id == TrainingExample.id)
            .where(ReviewRow.item_id == item_id)
            .order_by(ReviewRow.place)
        ).all()
    note_texts((head.id,))
    turns = tuple(Message.model_validate(one) for one in head.turns or ())
    return BlindItem(head.id, turns, head.completion or "", tuple(BlindRow(*row) for row in rows))
