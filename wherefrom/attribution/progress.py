"""Progress that nobody looks at."""


def silent(stage: str, done: int, total: int) -> None:
    """Say nothing; what a caller gives where a function asks for its `Progress`."""
