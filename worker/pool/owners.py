"""Names under which processes hold leases: a worker's main process can tell which leases a pool process of its own left."""

import os
import secrets
import socket


def owner_prefix(pid: int, node: str) -> str:
    """How the names of a pool process begin: machine, process, and the worker that it belongs to.

    Args:
        pid: The pool process.
        node: The worker's own random name; without it a process id that comes back would be taken for the dead one.
    """
    return f"{socket.gethostname()}:{pid}:{node}:"


def owner_name(node: str = "") -> str:
    """Name under which this process claims; no two are ever alike."""
    return owner_prefix(os.getpid(), node) + secrets.token_hex(4)
