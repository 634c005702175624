"""The root of all errors, and the two kinds that decide what the queue does."""

from typing import ClassVar

from wherefrom.masking import mask


class WherefromError(Exception):
    """Root of all errors of wherefrom."""

    code: ClassVar[str] = "error"

    def __str__(self) -> str:
        """The message without secrets."""
        return mask(super().__str__())


class PermanentError(WherefromError):
    """A retry cannot help: the input, the bundle or the request is wrong."""

    code = "permanent"


class TransientError(WherefromError):
    """Something that wherefrom depends on is unavailable or full; a later retry may help."""

    code = "transient"
