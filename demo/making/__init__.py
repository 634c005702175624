"""Makes what the demo shows: the invented company's corpus, the tiny model, the adapter."""
