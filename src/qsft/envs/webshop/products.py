"""What the shop sells and what a customer is sent to buy."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Price of a product for which the files of the original name none.
UNKNOWN_PRICE = 100.0
#: Limit of a goal that names none, as in the original.
NO_PRICE_LIMIT = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Review:
    """What a customer wrote: its title, its text, and a score from 1 to 5, which the original's files may tell in words."""

    title: str
    body: str
    score: float | str


@dataclass(frozen=True, slots=True)
class Product:
    """One product, with all that its pages show and its purchase is judged by.

    Args:
        asin: its name in the shop, ten capital letters and digits.
        query: what one would search for to find its kind, ``"plant pots"``; decides the type part of the reward.
        product_category: the path to it, its parts separated by ``" › "``.
        title: as shown.
        nouns: the nouns of the title, in lower case (what spaCy tags in the original).
        attributes: what is true of it; not shown as such.
        features: the lines of its page Features.
        description: the text of its page Description.
        options: name -> values, both in lower case, in the order of the page.
        price: what it costs, in dollars.
        price_text: what the pages say about that, ``"$12.99"`` or ``"$9.99 to $14.99"``.
        rating: as shown, ``"4.3"`` or ``"N.A."``.
        reviews: of its page Reviews.
    """

    asin: str
    query: str
    product_category: str
    title: str
    nouns: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    description: str = ""
    options: dict[str, tuple[str, ...]] = field(default_factory=dict)
    price: float = UNKNOWN_PRICE
    price_text: str = f"${UNKNOWN_PRICE}"
    rating: str = "N.A."
    reviews: tuple[Review, ...] = ()


@dataclass(frozen=True, slots=True)
class Goal:
    """What a customer is sent to buy, and how the purchase will be judged.

    Args:
        asin: the product it was written for (buying another may score as high).
        query, product_category, nouns: of that product.
        instruction: as shown.
        attributes: what the purchase is to be; at least one.
        options: the values that are to be chosen; or (name, value) pairs, which the original compares as one text.
        price_upper: what it may cost, in dollars.
    """

    asin: str
    query: str
    product_category: str
    nouns: tuple[str, ...]
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str | tuple[str, str], ...] = ()
    price_upper: float = NO_PRICE_LIMIT

    @classmethod
    def of(
        cls,
        product: Product,
        instruction: str,
        attributes: tuple[str, ...],
        options: tuple[str | tuple[str, str], ...],
        price_upper: float,
    ) -> Goal:
        """A goal written for a product."""
        of_it = (product.asin, product.query, product.product_category, product.nouns)
        return cls(*of_it, instruction, attributes, options, price_upper)
