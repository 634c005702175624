"""The first stage: projection, indexes, BM25, sentence encoder, and the candidates that they bring."""
