"""Which words of output and training example carry a citation, and which they share."""
