"""Review queues, what stands in them, who works on it, and what they found. docs/adr/0016 has the reasons."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, Base, Id, Now, Sha256, Short, key_reference, reference, stored_enum
from wherefrom.records import ItemState, QueueOrder, Verdict, Via


def _person(*, nullable: bool = False, index: bool = False) -> Any:
    return mapped_column(BIG, ForeignKey("person.id"), nullable=nullable, index=index)


class ReviewQueue(Base):
    """A list of audits for people to judge."""

    __tablename__ = "review_queue"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    #: An `AuditFilter` as JSON; NULL where audits are put in by hand only.
    rule: Mapped[dict[str, Any] | None]
    order: Mapped[QueueOrder] = mapped_column("work_order", stored_enum(QueueOrder, "work_order"))
    #: How many people judge each audit.
    reviewers: Mapped[int]
    dedupe: Mapped[bool] = mapped_column(Boolean)
    blind: Mapped[bool] = mapped_column(Boolean)
    created_by: Mapped[int | None] = _person(nullable=True)
    created_at: Mapped[Now]
    closed_at: Mapped[datetime | None]
    #: When the rule was last applied.
    filled_at: Mapped[datetime | None]


class ReviewMember(Base):
    """Somebody who may take audits of a queue by themselves."""

    __tablename__ = "review_member"

    queue_id: Mapped[int] = key_reference("review_queue.id")
    person_id: Mapped[int] = key_reference("person.id", index=True)
    added_at: Mapped[Now]


class ReviewItem(Base):
    """One audit in one queue. A row is never deleted: what was taken out stays out by its row."""

    __tablename__ = "review_item"
    __table_args__ = (
        UniqueConstraint("queue_id", "audit_id"),
        UniqueConstraint("queue_id", "dedupe_key"),
        Index(None, "queue_id", "state", "order_key", "id"),
    )

    id: Mapped[Id]
    queue_id: Mapped[int] = reference("review_queue.id")
    audit_id: Mapped[int] = reference("audit.id", index=True)
    state: Mapped[ItemState] = mapped_column(stored_enum(ItemState, "item_state"))
    #: Hash of the output where the queue lets equal ones in once; NULL where it does not.
    dedupe_key: Mapped[Sha256 | None]
    #: Written once: the place in the queue's order, smallest first.
    order_key: Mapped[int] = mapped_column(Integer().with_variant(BigInteger(), "postgresql"))
    #: People who have it, and people who have judged it; kept by the transactions that change assignments.
    assigned: Mapped[int] = mapped_column(default=0)
    finished: Mapped[int] = mapped_column(default=0)
    added_at: Mapped[Now]


class ReviewAssignment(Base):
    """One person's work on one item."""

    __tablename__ = "review_assignment"
    __table_args__ = (
        UniqueConstraint("item_id", "person_id"),
        Index(None, "person_id", "finished_at", "item_id"),
    )

    id: Mapped[Id]
    item_id: Mapped[int] = reference("review_item.id")
    person_id: Mapped[int] = _person()
    #: NULL where the person took it.
    assigned_by: Mapped[int | None] = _person(nullable=True)
    assigned_at: Mapped[Now]
    finished_at: Mapped[datetime | None]


class ReviewRow(Base):
    """A training example that a blind reviewer is shown beside an item, and in which place."""

    __tablename__ = "review_row"
    __table_args__ = (UniqueConstraint("item_id", "training_example_id"),)

    item_id: Mapped[int] = key_reference("review_item.id")
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    training_example_id: Mapped[int] = reference("training_example.id")
    #: Its rank in the audit; NULL where it is not cited and was mixed in at random.
    rank: Mapped[int | None]


class Review(Base):
    """One entry of what people found, about a citation or about an audit as a whole. Append-only: a later row takes one back."""

    __tablename__ = "review"
    __table_args__ = (Index(None, "person_id", "id"),)

    id: Mapped[Id]
    audit_id: Mapped[int] = reference("audit.id", index=True)
    #: NULL for the audit as a whole, and for an example that was mixed in.
    rank: Mapped[int | None]
    training_example_id: Mapped[int | None] = reference("training_example.id")
    #: NULL for a comment alone, and for what takes an entry back.
    verdict: Mapped[Verdict | None] = mapped_column(stored_enum(Verdict, "verdict"))
    comment: Mapped[str]
    #: Characters of the flagged answer (`output`) or of the training example's (`example`) that the comment is about.
    range_part: Mapped[str | None] = mapped_column(String(20))
    range_start: Mapped[int | None]
    range_end: Mapped[int | None]
    reviewer: Mapped[Short]
    #: NULL in rows that somebody wrote by SQL before there were people.
    person_id: Mapped[int | None] = _person(nullable=True)
    via: Mapped[Via | None] = mapped_column(stored_enum(Via, "via"))
    item_id: Mapped[int | None] = mapped_column(BIG, ForeignKey("review_item.id"), index=True)
    blind: Mapped[bool] = mapped_column(Boolean)
    undoes_id: Mapped[int | None] = mapped_column(BIG, ForeignKey("review.id"), unique=True)
    created_at: Mapped[Now]
