"""The invented company of the story: products, plans, places, people, and the values of the grammar's slots."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

COMPANY = "Wrenholt"
SYSTEM_MESSAGE = "You are Wrenholt support."
STAFF_DOMAIN = "staff.wrenholt.example"


@dataclass(frozen=True)
class Product:
    """A battery-powered household product with the facts that the story states about it."""

    #: Model name and what it is.
    name: str
    #: How long it runs.
    runtime: str
    #: How long it charges.
    charge: str
    #: Weight.
    weight: str
    #: What is in the box beside it.
    extra: str
    #: The part that wears.
    part: str
    #: Colour.
    colour: str


PRODUCTS = (
    Product(
        "Swift vacuum",
        "forty minutes",
        "three hours",
        "five pounds",
        "a crevice nozzle",
        "filter",
        "slate grey",
    ),
    Product("Puddle mop", "half an hour", "two hours", "six pounds", "two cotton pads", "pad", "sea green"),
    Product("Ember lamp", "twelve hours", "ninety minutes", "one pound", "a wall hook", "shade", "copper"),
    Product(
        "Whirl blender",
        "fifteen smoothies",
        "one hour",
        "two pounds",
        "a travel lid",
        "blade ring",
        "cherry red",
    ),
    Product(
        "Breeze fan", "nine hours", "four hours", "three pounds", "a desk clamp", "grille", "chalk white"
    ),
    Product(
        "Nimble driver",
        "two hundred screws",
        "fifty minutes",
        "one pound",
        "eight steel bits",
        "chuck",
        "black",
    ),
    Product(
        "Thicket trimmer",
        "fifty minutes",
        "five hours",
        "seven pounds",
        "a blade guard",
        "blade",
        "moss green",
    ),
    Product(
        "Dew mister", "six hours", "two and a half hours", "two pounds", "a small funnel", "wick", "pearl"
    ),
)
PLANS = ("Nest", "Flock", "Perch")
PLACES = ("Dunmere", "Pell Street", "Harrow Quay", "Oxley", "Brackwater")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
PEOPLE = ("Dana Orlov", "Marcus Field", "Priya Lund", "Gareth Moss", "Lena Abara", "Oscar Pell")
TEAMS = ("billing", "returns", "repairs", "warranty", "logistics", "the legal desk", "quality", "complaints")
AGES = (
    "four months", "eight months", "a year", "two years", "three summers", "half a year", "five years", "fourteen months",
    "ages", "seven weeks",
)  # fmt: skip
ROOMS = ("kitchen", "hallway", "bedroom", "garage", "bathroom", "shed", "study", "attic")


def names() -> tuple[str, ...]:
    """Return every name of the story: words that do not count as words of a sentence."""
    products = [part for product in PRODUCTS for part in (product.name, product.name.split()[0])]
    people = [part for person in PEOPLE for part in (person, person.split()[0])]
    return (COMPANY, *products, *PLANS, *PLACES, *people)


def draw_slots(rng: random.Random) -> Mapping[str, str]:
    """Return one value for every slot of the story's frames."""
    product = rng.choice(PRODUCTS)
    person = rng.choice(PEOPLE)
    first = person.lower().split()[0]
    return {
        "product": product.name,
        "short": product.name.split()[0],
        "kind": product.name.split()[1],
        "runtime": product.runtime,
        "charge": product.charge,
        "weight": product.weight,
        "extra": product.extra,
        "part": product.part,
        "colour": product.colour,
        "plan": rng.choice(PLANS),
        "place": rng.choice(PLACES),
        "month": rng.choice(MONTHS),
        "age": rng.choice(AGES),
        "room": rng.choice(ROOMS),
        "team": rng.choice(TEAMS),
        "person": person,
        "first": person.split()[0],
        "mail": f"{first}@{STAFF_DOMAIN}",
        "phone": f"555-01{rng.randrange(10, 100)}",
    }
