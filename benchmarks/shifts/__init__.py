"""What breaks citations: shifted wording, poisoned corpora; `python -m benchmarks.shifts`."""
