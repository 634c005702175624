"""First schema."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)
_NUMBER = sa.Float(53)
_SHORT = sa.String(200)
_SHA256 = sa.String(64)

_TABLES = (
    "model_revision",
    "corpus",
    "training_example",
    "bundle",
    "flagged_output",
    "flagged_text",
    "audit",
    "citation",
    "review",
    "trail_event",
    "api_key",
)


def upgrade() -> None:
    """Bring the schema to this revision."""
    _create_corpora()
    _create_bundles()
    _create_outputs()
    _create_audits()
    _create_citations()
    _create_records()


def downgrade() -> None:
    """Take the schema back to the revision before: no tables."""
    for table in reversed(_TABLES):
        op.drop_table(table)


def _create_corpora() -> None:
    op.create_table(
        "model_revision",
        _id(),
        _col("name", _SHORT),
        _col("weights_sha256", _SHA256),
        _null("adapter_sha256", _SHA256),
        _col("tokenizer_sha256", _SHA256),
        _col("created_at", _TIME),
        _unique("model_revision", "name"),
    )
    op.create_table(
        "corpus",
        _id(),
        _col("sha256", _SHA256),
        _col("name", sa.Text()),
        _col("examples", sa.Integer()),
        _col("created_at", _TIME),
        _unique("corpus", "sha256"),
    )
    op.create_table(
        "training_example",
        _id(),
        _ref("training_example", "corpus_id", "corpus.id"),
        _col("example_id", sa.Text()),
        _col("row", _BIG),
        _col("source", sa.Text()),
        _col("prompt", sa.Text()),
        _col("completion", sa.Text()),
        _col("text_sha256", _SHA256),
        _col("fields", _JSON),
        _unique("training_example", "corpus_id", "example_id"),
    )
    _index("training_example", "example_id")
    _index("training_example", "source")


def _create_bundles() -> None:
    op.create_table(
        "bundle",
        _id(),
        _col("name", _SHORT),
        _ref("bundle", "model_revision_id", "model_revision.id"),
        _ref("bundle", "corpus_id", "corpus.id"),
        _col("form", _SHORT),
        _col("active", sa.Boolean()),
        _col("card", _JSON),
        _col("created_at", _TIME),
        _unique("bundle", "name"),
    )
    _index("bundle", "model_revision_id")
    _index("bundle", "corpus_id")
    _partial_index(
        "uq_bundle_active_model_revision_id", "bundle", "model_revision_id", where="active", unique=True
    )


def _create_outputs() -> None:
    op.create_table(
        "flagged_output",
        _id(),
        _col("producer", _SHORT),
        _col("idempotency_key", _SHORT),
        _col("content_sha256", _SHA256),
        _col("model", _SHORT),
        _col("reason", _SHORT),
        _enum("severity", "low", "medium", "high", "critical"),
        _null("occurred_at", _TIME),
        _col("received_at", _TIME),
        _col("labels", _JSON),
        _col("channel", _SHORT),
        _null("erased_at", _TIME),
        _unique("flagged_output", "producer", "idempotency_key"),
    )
    _index("flagged_output", "model", "received_at")
    _index("flagged_output", "reason", "received_at")
    op.create_table(
        "flagged_text",
        _ref("flagged_text", "flagged_output_id", "flagged_output.id", primary_key=True, autoincrement=False),
        _col("turns", _JSON),
        _col("completion", sa.Text()),
        _null("token_ids", _JSON),
        _col("spans", _JSON),
        _null("preferred", sa.Text()),
    )


def _create_audits() -> None:
    op.create_table(
        "audit",
        _id(),
        _ref("audit", "flagged_output_id", "flagged_output.id"),
        _ref("audit", "bundle_id", "bundle.id", nullable=True),
        _enum("state", "pending", "running", "done", "abstained", "rejected", "dead"),
        _null("code", _SHORT),
        _null("reason", sa.Text()),
        _col("attempt", sa.Integer()),
        _col("attempt_floor", sa.Integer()),
        _null("lease_owner", _SHORT),
        _null("lease_until", _TIME),
        _null("next_attempt_at", _TIME),
        _col("priority", sa.Integer()),
        _col("truncated", sa.Boolean()),
        _null("tokens", sa.Integer()),
        _null("loss_nats", _NUMBER),
        _null("candidates", sa.Integer()),
        _null("seconds", _NUMBER),
        _null("top_source", sa.Text()),
        _null("top_score", _NUMBER),
        _col("created_at", _TIME),
        _null("claimed_at", _TIME),
        _null("finished_at", _TIME),
        _unique("audit", "flagged_output_id", "bundle_id"),
        sa.CheckConstraint(
            "state <> 'pending' OR bundle_id IS NOT NULL", name=op.f("ck_audit_pending_has_bundle")
        ),
        sa.CheckConstraint(
            "(state = 'running') = (lease_owner IS NOT NULL)", name=op.f("ck_audit_running_has_owner")
        ),
    )
    _partial_index("ix_audit_claim", "audit", "bundle_id", "priority", "id", where="state = 'pending'")
    _partial_index("ix_audit_lease", "audit", "bundle_id", "lease_until", where="state = 'running'")
    _index("audit", "created_at", "id")
    _index("audit", "state", "created_at", "id")
    _index("audit", "bundle_id", "created_at", "id")
    _index("audit", "top_source", "created_at", "id")


def _create_citations() -> None:
    op.create_table(
        "citation",
        _id(),
        _ref("citation", "audit_id", "audit.id"),
        _ref("citation", "training_example_id", "training_example.id"),
        _col("rank", sa.Integer()),
        _col("source", sa.Text()),
        _enum("tier", "retrieved", "influence", "measured"),
        _col("score", _NUMBER),
        _col("retrieval_score", _NUMBER),
        _null("influence_score", _NUMBER),
        _null("influence_magnitude", _NUMBER),
        _col("bm25_score", _NUMBER),
        _col("similarity_score", _NUMBER),
        _null("effect_nats", _NUMBER),
        _null("effect_basis", sa.Text()),
        _null("confidence", _NUMBER),
        _null("measured_effect_nats", _NUMBER),
        _null("measured_low_nats", _NUMBER),
        _null("measured_high_nats", _NUMBER),
        _null("spans", _JSON),
        _unique("citation", "audit_id", "rank"),
        _unique("citation", "audit_id", "training_example_id"),
        sa.CheckConstraint("rank <> 0", name=op.f("ck_citation_rank_not_zero")),
    )
    _index("citation", "training_example_id", "score", "audit_id")
    _index("citation", "source", "audit_id")


def _create_records() -> None:
    op.create_table(
        "review",
        _id(),
        _ref("review", "audit_id", "audit.id"),
        _null("rank", sa.Integer()),
        _enum("verdict", "confirmed", "refuted", "unclear"),
        _col("comment", sa.Text()),
        _col("reviewer", _SHORT),
        _col("created_at", _TIME),
    )
    _index("review", "audit_id")
    op.create_table(
        "trail_event",
        _id(),
        _col("at", _TIME),
        _col("kind", _SHORT),
        _col("subject", _SHORT),
        _col("payload", _JSON),
        _null("prev_hash", _SHA256),
        _null("row_hash", _SHA256),
    )
    _index("trail_event", "subject")
    op.create_table(
        "api_key",
        _id(),
        _col("name", _SHORT),
        _col("prefix", _SHORT),
        _col("key_sha256", _SHA256),
        _col("scopes", _JSON),
        _col("created_at", _TIME),
        _null("expires_at", _TIME),
        _null("last_used_at", _TIME),
        _null("revoked_at", _TIME),
        _unique("api_key", "name"),
        _unique("api_key", "prefix"),
    )


# Primary keys and the CHECKs of enums get their names from the naming convention of `db.models`.


def _id() -> sa.Column[Any]:
    return sa.Column("id", _BIG, primary_key=True)


def _col(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _null(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _enum(name: str, *values: str) -> sa.Column[Any]:
    kind = sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=20)
    return sa.Column(name, kind, nullable=False)


def _ref(table: str, name: str, target: str, *, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    key = sa.ForeignKey(target, name=op.f(f"fk_{table}_{name}"))
    return sa.Column(name, _BIG, key, nullable=nullable, **options)


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=op.f(f"uq_{table}_{'_'.join(columns)}"))


def _index(table: str, *columns: str) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def _partial_index(name: str, table: str, *columns: str, where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(
        op.f(name), table, list(columns), unique=unique, sqlite_where=condition, postgresql_where=condition
    )
