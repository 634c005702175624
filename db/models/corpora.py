"""What outputs are traced to: model revisions, corpora, training examples, and the bundles that tie them together."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, Base, Id, Now, Sha256, Short, reference


class ModelRevision(Base):
    """The weights whose training is explained; `name` is what producers put into a record's `model`."""

    __tablename__ = "model_revision"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    weights_sha256: Mapped[Sha256]
    adapter_sha256: Mapped[Sha256 | None]
    tokenizer_sha256: Mapped[Sha256]
    created_at: Mapped[Now]


class Corpus(Base):
    """All training examples of one training run."""

    __tablename__ = "corpus"

    id: Mapped[Id]
    sha256: Mapped[Sha256] = mapped_column(unique=True)
    name: Mapped[str]
    examples: Mapped[int]
    created_at: Mapped[Now]


class TrainingExample(Base):
    """The text of what was cited, and of small corpora: evidence outlives changes of the corpus."""

    __tablename__ = "training_example"
    __table_args__ = (
        UniqueConstraint("corpus_id", "example_id"),
        Index(None, "corpus_id", "row"),
        Index(
            "ix_training_example_unindexed",
            "id",
            sqlite_where=text("indexed IS NULL"),
            postgresql_where=text("indexed IS NULL"),
        ),
    )

    id: Mapped[Id]
    corpus_id: Mapped[int] = reference("corpus.id")
    example_id: Mapped[str] = mapped_column(index=True)
    row: Mapped[int] = mapped_column(BIG)
    source: Mapped[str] = mapped_column(index=True)
    prompt: Mapped[str]
    completion: Mapped[str]
    text_sha256: Mapped[Sha256]
    fields: Mapped[dict[str, Any]]
    #: The search knows it (`ExampleWords`); NULL: the sweeper has yet to index it.
    indexed: Mapped[bool | None]
    #: Its text is gone; what cited it still does. NULL where it is there.
    erased_at: Mapped[datetime | None]
    erased_by: Mapped[Short | None]


class Bundle(Base):
    """A versioned set of artefacts that explains one model revision; at most one per revision is active."""

    __tablename__ = "bundle"
    __table_args__ = (
        Index(
            "uq_bundle_active_model_revision_id",
            "model_revision_id",
            unique=True,
            sqlite_where=text("active"),
            postgresql_where=text("active"),
        ),
    )

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    model_revision_id: Mapped[int] = reference("model_revision.id", index=True)
    corpus_id: Mapped[int] = reference("corpus.id", index=True)
    form: Mapped[Short]
    active: Mapped[bool] = mapped_column(Boolean)
    card: Mapped[dict[str, Any]]
    created_at: Mapped[Now]
