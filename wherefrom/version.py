"""The version of wherefrom, apart from `wherefrom/__init__.py`, which also offers the engine: the client and the page must not import that."""

__version__ = "0.1.0"
