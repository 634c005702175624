"""The attribution engine: hidden states -> error-weighted features -> projection -> index -> exact rerank.

Knows no queue and no database. Extra ``[engine]``.
"""
