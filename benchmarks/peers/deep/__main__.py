"""Runs the benchmark; see `run`."""

from benchmarks.peers.deep.run import main

if __name__ == "__main__":
    main()
