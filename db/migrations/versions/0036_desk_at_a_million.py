"""Support in the order of its list, and how many citations an audit has for PostgreSQL's planner. The release before leaves all alone."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0036"
down_revision: str | None = "0035"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BEFORE, _NOW = "ix_audit_conformal_p", "ix_audit_conformal_p_id"
#: PostgreSQL looks at a sample: of the audits that a large table of citations names it finds a sixth, and then reads the whole table where a few audits are asked for.
_CITATIONS_OF_AN_AUDIT = 10


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_index(op.f(_NOW), "audit", ["conformal_p", "id"])
    op.drop_index(op.f(_BEFORE), "audit")
    _plan_with(f"SET (n_distinct = {-1 / _CITATIONS_OF_AN_AUDIT})")


def downgrade() -> None:
    """Take the schema back to the revision before."""
    _plan_with("RESET (n_distinct)")
    op.create_index(op.f(_BEFORE), "audit", ["conformal_p"])
    op.drop_index(op.f(_NOW), "audit")


def _plan_with(setting: str) -> None:
    """Change what the planner supposes of a citation's audit; it holds from the next ANALYZE on, which looks at a sample."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(sa.text(f"ALTER TABLE citation ALTER COLUMN audit_id {setting}"))
        op.execute(sa.text("ANALYZE citation (audit_id)"))
