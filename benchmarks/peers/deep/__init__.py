"""Other libraries and papers on the deep bank: gradients of the LoRA weights of a 30-block model, one module each: `python -m benchmarks.peers.deep`."""
