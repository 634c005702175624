"""The read-only SQL views, a public interface; docs/sql.md describes every column."""
