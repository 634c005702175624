"""Which assistant turns of a row training trained on: all, but those that a weight, a flag or a mask takes out.

Corpora say it per message (`weight: 0`, `train: false`, `loss_mask: 0`, ...), per row as a list (`loss_mask: [0, 1]`, one entry per message or per assistant turn),
or for a whole row (`train: false`). 1 and true mean trained; `masked` means the opposite. `mask` alone is read as a loss mask, unless the other speakers'
messages of the row carry it too and are marked 1: then 1 stands for masked out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wherefrom.attribution.corpus.messages import ROLES, Said, decoded
from wherefrom.attribution.corpus.rows import Turns
from wherefrom.errors import InvalidRecord
from wherefrom.records import Role

#: Columns that hold one entry per message, or per assistant turn.
MASK_COLUMNS = ("loss_mask", "mask", "train_mask", "turn_mask", "weights", "loss_weights")
#: Columns that take a whole row out.
ROW_COLUMNS = ("train", "trainable", "learn", "weight", "loss_weight")
EARLIER = "earlier than the last (--turns last)"
EMPTY = "empty"
IN_PROMPT = "in the prompt"
_FALSE = frozenset({"0", "0.0", "false", "no", "off"})
_TRUE = frozenset({"1", "1.0", "true", "yes", "on"})


@dataclass(frozen=True)
class Trained:
    """The trained turns of one row."""

    #: Places, ascending.
    places: tuple[int, ...]
    #: Assistant turns that are not explained, by reason.
    left_out: Mapping[str, int]


def trained_turns(turns: Sequence[Said], row: Mapping[str, Any], *, first: int, policy: Turns) -> Trained:
    """The assistant turns that are to be explained.

    Args:
        turns: the whole conversation.
        row: its row, for masks in columns.
        first: place of the first turn that the format trains on; those before are prompt.
        policy: all of them or the last one.

    Raises:
        InvalidRecord: a mask does not fit the conversation.
    """
    left: Counter[str] = Counter()
    whole = next((name for name in ROW_COLUMNS if _truth(row.get(name)) is False), None)
    masks = _mask_of_row(turns, row)
    inverted = _mask_is_inverted(turns)
    places = []
    for place, one in enumerate(turns):
        if not one.by_assistant:
            continue
        reason = (
            IN_PROMPT
            if place < first
            else _said_no(whole)
            if whole
            else masks.get(place)
            or _flagged(one.flags, inverted=inverted)
            or (EMPTY if one.is_empty else None)
        )
        if reason is None:
            places.append(place)
        else:
            left[reason] += 1
    if policy is Turns.LAST and len(places) > 1:
        left[EARLIER] += len(places) - 1
        places = places[-1:]
    return Trained(tuple(places), left)


def _said_no(name: str) -> str:
    return f"by `{name}`"


def _truth(value: Any) -> bool | None:
    """What a flag says; None where it says nothing."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value != 0
    word = value.strip().lower() if isinstance(value, str) else ""
    return False if word in _FALSE else True if word in _TRUE else None


def _flagged(flags: Mapping[str, Any], *, inverted: bool) -> str | None:
    """Why a message was not trained on, by its own flags."""
    for name, value in sorted(flags.items()):
        truth = _truth(value)
        if name == "masked" or (name == "mask" and inverted):
            truth = None if truth is None else not truth
        if truth is False:
            return _said_no(name)
    return None


def _mask_is_inverted(turns: Sequence[Said]) -> bool:
    others = [_truth(one.flags["mask"]) for one in turns if not one.by_assistant and "mask" in one.flags]
    return bool(others) and all(others)


def _mask_of_row(turns: Sequence[Said], row: Mapping[str, Any]) -> dict[int, str]:
    """Places that a column takes out, with the reason."""
    spoken = [place for place, one in enumerate(turns) if one.by_assistant]
    found: dict[int, str] = {}
    for name in MASK_COLUMNS:
        mask = decoded(row.get(name))
        if isinstance(mask, str) and ROLES.get(mask.strip().lower()) == Role.ASSISTANT:
            found |= dict.fromkeys(spoken, _said_no(name))
        if not isinstance(mask, list) or not mask or any(_truth(entry) is None for entry in mask):
            continue
        if len(mask) not in {len(turns), len(spoken)}:
            if name.endswith("weights"):  # a column of that name may say something else
                continue
            raise InvalidRecord(
                f"`{name}` has {len(mask)} entries for {len(turns)} messages ({len(spoken)} of the assistant); "
                "give one per message or one per assistant turn"
            )
        places = range(len(turns)) if len(mask) == len(turns) else spoken
        found |= {
            place: _said_no(name) for place, entry in zip(places, mask, strict=True) if not _truth(entry)
        }
    return found
