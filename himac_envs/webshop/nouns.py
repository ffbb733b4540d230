"""The nouns of product titles, on which the reward's type part hangs.

The original asks a spaCy model for the nouns of two titles at every purchase. Titles never change,
so nouns come from one of three places, and ``info["nouns"]`` says which:

- a table that is given (``title_nouns=PATH``): exact for whatever the table was made with;
- the catalogue, when it was compiled where spaCy and ``en_core_web_sm`` are installed: exact, and
  playing needs no spaCy;
- the built-in tagger below: an approximation. Where a purchase's query and category do not settle
  its type, it can differ from spaCy's answer.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from himac_envs.webshop.errors import CatalogueError

SPACY_MODEL = "en_core_web_sm"


@dataclass(frozen=True)
class Tagger:
    """Something that finds the nouns of a title.

    Attributes:
        name: What ``info["nouns"]`` says.
        tag: Title -> its nouns in lower case, in order, with repetitions.
    """

    name: str
    tag: Callable[[str], Iterable[str]]


# Pronouns, determiners, prepositions, conjunctions, auxiliaries and the commonest adverbs.
_FUNCTION_WORDS = frozenset(
    str.split(
        "a about above across after again against all almost along already also although always "
        "am among an and another any anybody anyone anything are around as at be because been "
        "before behind being below beside besides between beyond both but by can could did do "
        "does doing done down due during each either else enough even ever every everybody "
        "everyone everything everywhere except few first for from further get go had has have he "
        "hence her here hers herself him himself his how however i if in indeed into is it its "
        "itself just last least less made make many may me might mine more most mostly much must "
        "my myself name namely neither never nevertheless next no nobody none nor not nothing now "
        "nowhere of off often on once one only onto or other others our ours ourselves out over "
        "own per perhaps please put quite rather re really regarding same say see seem several "
        "she should show since so some somehow someone something sometimes somewhere still such "
        "take than that the their them themselves then there therefore these they this those "
        "though through throughout thus to together too toward towards under unless until up upon "
        "us use used using various very via was we well were what whatever when whenever where "
        "wherever whether which while who whoever whole whom whose why will with within without "
        "would yet you your yours yourself two three four five six seven eight nine ten eleven "
        "twelve fifteen twenty thirty forty fifty sixty hundred w"
    )
)
# A word as the tagger's tokens are cut: letters and digits, joined by inner marks that do not
# stand between letters ("16.5", "don't", "red,40"); a hyphen or slash between letters cuts.
_TOKEN = re.compile(r"[^\W_]+(?:['\u2019][^\W\d_]+|[.,:/-](?=[\d])[^\W_]+|(?<=\d)[.,:/-][^\W_]+)*")
_LETTER = re.compile(r"[^\W\d_]")
# Lower-case words of these endings are adjectives, participles or adverbs more often than nouns.
_NOT_NOUN = re.compile(r".{3,}(?:able|ible|ful|less|ous|ly|ish|ible|est|ic|al|ive|ed)$")


@lru_cache(maxsize=1 << 13)
def builtin_nouns(title: str) -> tuple[str, ...]:
    """Return the nouns of a title by the built-in tagger.

    Titles are telegrams of nouns, most of them capitalised and so read as proper nouns. What is
    left out: function words, tokens without letters, numbers with a unit, and words written in
    lower case that end like adjectives, adverbs or participles.
    """
    found = []
    for match in _TOKEN.finditer(title):
        word = match.group()
        low = word.lower()
        if low in _FUNCTION_WORDS or not _LETTER.search(word) or word[0].isdigit():
            continue
        if word.islower() and _NOT_NOUN.match(word):
            continue
        found.append(low)
    return tuple(found)


BUILTIN = Tagger("builtin", builtin_nouns)


@lru_cache(maxsize=1)
def stored_tagger() -> Tagger | None:
    """Return spaCy's tagger where it and its model are installed, else None."""
    try:
        import spacy

        model = spacy.load(SPACY_MODEL, disable=["ner", "lemmatizer"])
    except (ImportError, OSError):
        return None

    def tag(title: str) -> list[str]:
        # The original also accepts "PNOUN", a tag that does not exist.
        return [t.text.lower() for t in model(title) if t.pos_ in ("NOUN", "PROPN")]

    return Tagger(f"spacy:{SPACY_MODEL}", tag)


@lru_cache(maxsize=4)
def _read_table(path: Path, stamp: int) -> Mapping[str, tuple[str, ...]]:
    try:
        raw = path.read_bytes()
        table = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        return {str(title): tuple(map(str, nouns)) for title, nouns in table.items()}
    except FileNotFoundError as error:
        raise CatalogueError(f"title_nouns={str(path)!r}: there is no such file") from error
    except (OSError, EOFError, ValueError, AttributeError, TypeError) as error:
        raise CatalogueError(
            f"{path}: expected a JSON object of title -> list of nouns (may be gzipped): {error}"
        ) from error


def read_table(path: str | Path) -> Mapping[str, tuple[str, ...]]:
    """Read a table of title -> nouns from a JSON file, gzipped or not.

    Raises:
        CatalogueError: There is no such file, or it holds something else.
    """
    path = Path(path).resolve()
    return _read_table(path, path.stat().st_mtime_ns if path.is_file() else 0)
