"""Finding the bad source of unsafe outputs; `python -m benchmarks.safety`."""
