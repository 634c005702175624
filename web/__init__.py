"""The HTTP API and the auditor's pages over `db.reading.reader`; writes only what is flagged."""
