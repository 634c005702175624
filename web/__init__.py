"""The HTTP API and the auditor's pages over `db.reader`; writes only what is flagged."""
