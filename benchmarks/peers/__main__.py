"""Runs the benchmark; see `run`."""

from benchmarks.peers.run import main

main()
