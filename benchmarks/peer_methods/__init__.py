"""Other libraries and papers, one module each, scored on the same folder by `benchmarks/peers.py`; none of them is needed by the product."""
