"""How the processor threads of torch wait for each other."""

import os


def sleep_while_waiting() -> None:
    """Let idle threads of torch sleep instead of spin; call it before torch is imported.

    OpenMP's threads spin by default until the slowest has finished. On a machine that others use too, the slowest waits for a core
    while the rest burn theirs: two processes with two threads each on two cores are several times slower than in turn.
    A value that the user has set is left alone. Child processes inherit it.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
