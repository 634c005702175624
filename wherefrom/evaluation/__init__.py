"""Measures a finished bundle by given material and writes the figures into its card."""
