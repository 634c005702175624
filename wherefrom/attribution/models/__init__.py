"""Language models from folders: loading, rendering rows as tokens, and the signals that are read off them."""
