"""Measured effects as those who ask for them see them; `db.queues` has what the measurer does."""
