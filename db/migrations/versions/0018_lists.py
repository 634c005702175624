"""What listings say of themselves, views that people save, and when they last looked. The release before does not know the tables."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_BIG = sa.Integer().with_variant(sa.BigInteger(), "postgresql")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "listing_facts",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("filter", _JSON, nullable=False),
        sa.Column("level", sa.Float(53), nullable=True),
        sa.Column("matching", sa.Integer(), nullable=False),
        sa.Column("more", sa.Boolean(), nullable=False),
        sa.Column("p_limit", sa.Float(53), nullable=True),
        *(sa.Column(name, sa.Integer(), nullable=True) for name in ("supported", "judged", "uncalibrated")),
        sa.Column("newest_event", _BIG, nullable=False),
        sa.Column("first_asked_at", _TIME, nullable=False),
        sa.Column("asked_at", _TIME, nullable=False),
        sa.Column("computed_at", _TIME, nullable=True),
        sa.UniqueConstraint("key", name=op.f("uq_listing_facts_key")),
    )
    op.create_table(
        "saved_view",
        sa.Column("id", _BIG, primary_key=True, nullable=False),
        sa.Column(
            "person_id",
            _BIG,
            sa.ForeignKey("person.id", name=op.f("fk_saved_view_person_id")),
            nullable=False,
        ),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("parameters", _JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.UniqueConstraint("person_id", "name", name=op.f("uq_saved_view_person_id_name")),
    )
    for name in ("seen_at", "seen_before"):
        op.add_column("person", sa.Column(name, _TIME, nullable=True))


def downgrade() -> None:
    """Take the schema back to the revision before; saved views are gone."""
    for name in ("seen_before", "seen_at"):
        op.drop_column("person", name)
    op.drop_table("saved_view")
    op.drop_table("listing_facts")
