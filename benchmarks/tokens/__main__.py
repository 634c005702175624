"""Runs the benchmark; see `run`."""

from benchmarks.tokens.run import main

main()
