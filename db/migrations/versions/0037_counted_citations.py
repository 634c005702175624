"""The rank in the index of a training example's citations: the outputs that cite it are counted there. The release before leaves it alone."""

from collections.abc import Sequence

from alembic import op

revision: str = "0037"
down_revision: str | None = "0036"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BEFORE = "ix_citation_training_example_id_score_audit_id"
_NOW = f"{_BEFORE}_rank"
_COLUMNS = ["training_example_id", "score", "audit_id"]


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_index(op.f(_NOW), "citation", [*_COLUMNS, "rank"])
    op.drop_index(op.f(_BEFORE), "citation")


def downgrade() -> None:
    """Take the schema back to the revision before."""
    op.create_index(op.f(_BEFORE), "citation", _COLUMNS)
    op.drop_index(op.f(_NOW), "citation")
