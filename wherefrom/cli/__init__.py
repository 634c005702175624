"""The `wherefrom` command: offline work on files, and a running service over HTTP."""

from wherefrom.cli.app import main

__all__ = ["main"]
