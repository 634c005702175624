"""What changed from one bundle to another, over all outputs that both have answered for."""
