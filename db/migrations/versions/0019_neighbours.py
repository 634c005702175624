"""Near-duplicates of what is cited, by id, and the way from a training example to its neighbours and to the audits that cite it first.

The new column may be empty, so the release before goes on writing rows while this schema is in place.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_ROW = "ix_training_example_corpus_id_row"
_FIRST = "ix_citation_first"


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("citation", sa.Column("alike", _JSON, nullable=True))
    op.create_index(op.f(_ROW), "training_example", ["corpus_id", "row"])
    first = sa.text("rank = 1")
    columns = ["training_example_id", "audit_id"]
    op.create_index(_FIRST, "citation", columns, sqlite_where=first, postgresql_where=first)


def downgrade() -> None:
    """Take the schema back to the revision before; which examples are alike is no longer told."""
    op.drop_index(_FIRST, "citation")
    op.drop_index(op.f(_ROW), "training_example")
    op.drop_column("citation", "alike")
