"""Other libraries and papers, one module each, scored on the same folder: `python -m benchmarks.peers`. None of them is needed by the product."""
