"""A shop of fourteen products made by hand, some of them awkward."""

from __future__ import annotations

from functools import cache

from qsft.envs.webshop.catalogue import document
from qsft.envs.webshop.products import Goal, Product, Review
from qsft.envs.webshop.search import SearchEngine
from qsft.envs.webshop.session import Shop

PATH = "Sports › Mats › Mats"


def _plain(number: int) -> Product:
    return Product(f"B{number:09d}", "mats", PATH, f"Plain Mat {'abcdefghijklmn'[number]}", ("mat",), price_text="$9.0")


class HandMadeCatalogue:
    """Of two kinds: twelve mats, and things with odd texts, no price and no features."""

    name = "hand-made catalogue"
    key = "hand-made"
    goals = 1
    products = (
        Product(
            "B000000000",
            "mats",
            PATH,
            "Quillon Cork Mat",
            ("quillon", "cork", "mat"),
            ("non slip", "fold flat"),
            ("Non slip.", "Folds flat."),
            "A mat of cork.",
            {"color": ("deep purple", "sky blue"), "thickness": ("4 mm", "6 mm")},
            29.99,
            "$29.99",
            "4.5",
            (Review("Good", "Nice.", 4.0), Review("Perfect", "Lovely.", 5.0)),
        ),
        _plain(1),
        Product(
            "B000000002",
            "tricks",
            PATH,
            'Trick <b>Rug</b> & "Co"',
            ("trick",),
            options={"color": ("description", "☃ white")},
        ),
        *(_plain(number) for number in range(3, 13)),
        Product("B000000013", "<script>alert(1)</script>", "", "</h2><script>alert(2)</script>", ()),
    )

    def __len__(self) -> int:
        return len(self.products)

    def product(self, number: int) -> Product:
        return self.products[number]

    listing = product

    def document(self, number: int) -> str:
        return document(self.products[number])

    def goal(self, number: int) -> Goal:
        first = self.products[0]
        instruction = "find me a <i>non slip</i> mat in deep purple, and price lower than 40.00 dollars"
        return Goal(first.asin, "mats", PATH, first.nouns, instruction, ("non slip",), ("deep purple",), 40.0)


@cache
def hand_made_shop() -> Shop:
    catalogue = HandMadeCatalogue()
    return Shop(catalogue, SearchEngine(catalogue))
