"""When a question is one, and when it is the right guess: the rules of LMRL-Gym, on texts alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from itertools import zip_longest

#: A noun tagger: the tokens of a question -> those that are nouns.
Tagger = Callable[[Sequence[str]], Collection[str]]

STARTS = ("Is", "Does", "Can", "Do", "Are", "Could")
LONGEST = 40  # words
# A guess may hold these nouns beside the object's own: "Is the object a kind of ...?"
_FREE_NOUNS = frozenset(("object", "something", "type", "kind"))

# Words as the Penn Treebank splits them: clitics and punctuation marks are tokens of their own, while hyphens and
# apostrophes inside of a word are not.
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|m|d|ll|re|ve))$")
_MARKS = re.compile(r"(\.\.\.|[,:](?!\d)|[;@#$%&?!()\[\]{}<>\"]|``|''|--)")


def clean_question(text: str, starts: Sequence[str] = STARTS) -> str | None:
    """The question that ``text`` asks, or ``None`` for a malformed one, which is always answered No.

    Blanks around it are cut, a missing question mark is added and the first letter made upper case. Malformed is what
    is empty, has more than 40 words, does not begin with one of ``starts``, or ends with a full stop (except "etc.").
    """
    question = text.strip()
    if not question:
        return None
    if not question.endswith("?"):
        question += "?"
    question = question[0].upper() + question[1:]
    words = question.split(" ")
    if len(words) > LONGEST or words[0] not in starts:
        return None
    if question[-2] == "." and words[-1] != "etc.?":
        return None
    return question


def tokens(text: str) -> list[str]:
    """The words of a text in lower case, without what is no letter at its end.

    ``'Is it a jack-o\\'-lantern?' -> ["is", "it", "a", "jack-o'-lantern"]``
    """
    text = text.lower()
    end = next((place for place in range(len(text), 0, -1) if text[place - 1].isalpha()), 0)
    text = text[:end]
    found: list[str] = []
    for word in _MARKS.sub(r" \1 ", text).split():
        parts = _CLITIC.split(word)
        found += ["``" if part == '"' else part for part in parts if part]
    return found


def names_item(question: str, names: Sequence[str], nouns: Tagger | None) -> bool:
    """Whether a question is a guess of the item with these names.

    It is when it ends in one of the names and holds no other noun: "Is it a cat or a dog?" guesses nothing. A noun
    before "of" is free ("a cup of coffee"), and so are "object", "something", "type" and "kind".

    Args:
        question: as it was asked.
        names: all names of the item, without articles.
        nouns: says which tokens are nouns; ``None`` leaves the check for other nouns out.
    """
    words = tokens(question)
    spelt = [tokens(name) for name in names]
    if nouns is not None:
        tagged = nouns(words)
        free = _FREE_NOUNS.union(*spelt)
        for word, following in zip_longest(words, words[1:]):
            if word in tagged and word not in free and following != "of":
                return False
    return any(words[-len(name) :] == name for name in spelt if name)
