"""Alembic's entry: runs revisions on the connection that `db.migrate` hands over, in its transaction."""

from alembic import context

from db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite changes a table by rewriting it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
