"""The SQL side of wherefrom: what was flagged, what was audited, what was cited. Knows no model and no queue."""
