"""The append-only trail: events, the chain that seals them, how it is read, and how it is checked."""
