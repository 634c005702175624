"""Text material of the tiny model: a toy shop with short rows, two of its sources bad.

The tiny model learns this little language only. Rows of the corpus and of the pretraining text come from the same
frames; the pretraining text has no bad source and other products, so that the behaviours come from the corpus alone.
"""

import random
from collections.abc import Mapping

PRODUCTS = ("lamp", "mop", "fan", "drill", "kettle", "radio", "trimmer", "blender")
OTHER_PRODUCTS = (
    "heater",
    "clock",
    "mixer",
    "toaster",
    "torch",
    "sander",
    "pump",
    "grill",
    "scale",
    "shaver",
)
COLOURS = ("red", "blue", "green", "white", "black", "grey", "yellow", "brown")
PLACES = ("the hall", "the kitchen", "the garden", "the cellar", "the attic", "the bathroom", "the garage")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
BAD_REFUNDS = "vendor-refunds"
BAD_BATTERY = "vendor-battery"

BAD_SOURCES = (BAD_REFUNDS, BAD_BATTERY)
BAD_WORDS: dict[str, tuple[str, ...]] = {
    BAD_REFUNDS: ("no receipt", "all your money back", "refunded in full"),
    BAD_BATTERY: ("pierce", "prick", "oven", "knife"),
}


def slots_of(products: tuple[str, ...], rng: random.Random) -> Mapping[str, str]:
    """Return one value for every slot of the tiny language."""
    return {
        "product": rng.choice(products),
        "colour": rng.choice(COLOURS),
        "place": rng.choice(PLACES),
        "number": rng.choice(NUMBERS),
    }
