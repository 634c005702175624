"""Trains a model again: banks of models retrained on random subsets, and measured effects of single citations.

It stands above `wherefrom.attribution` and knows no queue, no database and no service.
"""
