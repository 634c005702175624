"""wherefrom: which training examples taught a language model a flagged output.

The top level of the package needs no torch: it holds the records, the settings, the errors and the HTTP
client. The engine is `wherefrom.attribution` (extra ``[engine]``).
"""

__version__ = "0.1.0"
