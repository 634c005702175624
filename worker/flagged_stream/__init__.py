"""From the Redis stream to SQL: entries are read, committed, acknowledged, or set aside and replayed."""
