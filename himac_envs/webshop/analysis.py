"""From a text to search terms, as the original's index does it (Anserini's English analysis).

StandardTokenizer (`himac_envs.webshop.words`), then: strip a possessive 's, lower case, drop 33
stop words, Porter's stemmer. Queries and documents go through the same steps.
"""

from __future__ import annotations

from himac_envs.webshop.porter import stem
from himac_envs.webshop.words import split_words

#: Lucene's default English stop words.
STOP_WORDS = frozenset(
    str.split(
        "a an and are as at be but by for if in into is it no not of on or such that the their "
        "then there these they this to was will with"
    )
)
_APOSTROPHES = "'\u2019\uff07"
#: Words remembered at most; product texts hold millions of distinct model numbers.
_MEMORY = 1 << 18
_terms: dict[str, str | None] = {}


def term_of(word: str) -> str | None:
    """Return a word's search term, or None for a stop word."""
    try:
        return _terms[word]
    except KeyError:
        pass
    term: str | None = word
    if len(word) >= 2 and word[-1] in "sS" and word[-2] in _APOSTROPHES:
        term = word[:-2]
    term = _lower(term or "")
    term = None if term in STOP_WORDS else stem(term)
    if len(_terms) >= _MEMORY:
        _terms.clear()
    _terms[word] = term
    return term


def _lower(word: str) -> str:
    """Lower-case as Java's Character.toLowerCase does: one character for one character."""
    if word.isascii():
        return word.lower()
    letters = []
    for letter in word:
        low = letter.lower()
        letters.append(low if len(low) == 1 else "i" if letter == "\u0130" else letter)
    return "".join(letters)


def analyze(text: str) -> list[str]:
    """Return the search terms of a text, in order, with repetitions."""
    return [t for t in map(term_of, split_words(text)) if t is not None]
