"""Runs the benchmark; see `run`."""

from benchmarks.stress.run import main

main()
