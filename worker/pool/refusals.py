"""What a process refused a short while ago, so that it does not look at it again with every hint."""

from typing import Generic, TypeVar

Refusal = TypeVar("Refusal", bound=Exception)

#: Seconds until something that was refused is looked at again.
REFUSED_S = 30.0


class Refusals(Generic[Refusal]):
    """Errors by the number of the bundle or build that they refuse."""

    def __init__(self) -> None:
        self._noted: dict[int, tuple[float, Refusal]] = {}

    def note(self, number: int, error: Refusal, *, now: float) -> None:
        """Refuse it for a while from now on, in seconds of the process's clock."""
        self._noted[number] = (now + REFUSED_S, error)

    def of(self, number: int, *, now: float) -> Refusal | None:
        """Why it is refused without another look; None where it is to be looked at."""
        until, error = self._noted.get(number, (0.0, None))
        return error if now < until else None
