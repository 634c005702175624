"""Do the words that a citation names carry it; `python -m benchmarks.tokens`."""
