"""Word segmentation as Lucene 8.11's StandardTokenizer does it: UAX#29 of Unicode 9, with emoji.

A text is mapped to a string of one class letter a character, and one regular expression over the
classes finds the words. The classes are shipped (``word_break.txt``) and not taken from
`unicodedata`, whose tables differ between Python versions: the same text gives the same words on
every machine.

Source of the rules: Unicode Standard Annex #29, section 4, and the behaviour of Lucene 8.11.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

#: Lucene cuts a word after so many UTF-16 units and goes on behind the cut.
MAX_WORD = 255

_LETTERS = {
    "ALetter": "L",
    "Complex": "C",
    "ComplexExtend": "c",
    "DoubleQuote": "D",
    "Emoji": "E",
    "EmojiLetter": "A",
    "EmojiModifier": "p",
    "EmojiModifierBase": "M",
    "EmojiStyle": "V",
    "EnclosingKeycap": "q",
    "Extend": "x",
    "ExtendNumLet": "_",
    "HebrewLetter": "h",
    "Hiragana": "R",
    "Ideographic": "I",
    "Katakana": "K",
    "KeycapBase": "k",
    "MidLetter": "m",
    "MidNum": "n",
    "MidNumLet": "b",
    "Numeric": "N",
    "RegionalIndicator": "r",
    "SingleQuote": "S",
    "ZWJ": "z",
}
_OTHER = "o"


class _Classes(dict[int, str]):
    """Code point -> class letter, for `str.translate`; unlisted code points separate words."""

    def __missing__(self, code: int) -> str:
        return _OTHER


@cache
def _classes() -> _Classes:
    classes = _Classes()
    text = resources.files(__package__).joinpath("word_break.txt").read_text(encoding="ascii")
    letter, end = _OTHER, 0
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        fields = line.split()
        if not line.startswith(" "):
            letter, end = _LETTERS[fields.pop(0)], 0
        for entry in fields:
            gap, _, more = entry.partition("+")
            start = end + int(gap, 16)
            end = start + int(more or "0", 16)
            for code in range(start, end + 1):
                classes[code] = letter
    return classes


def _word_pattern() -> re.Pattern[str]:
    extend = "[xczVq]*"  # WB4: what may follow any character without breaking
    joiner = f"(?:_{extend})"  # ExtendNumLet
    letter = f"(?:[LhA]{extend})"
    number = f"(?:N{extend})"
    kana = f"(?:K{extend})"
    mid_letter = f"(?:[mbS]{extend})"  # WB6, WB7
    mid_number = f"(?:[nbS]{extend})"  # WB11, WB12
    numbers = f"{number}(?:(?:{joiner}*|{mid_number}){number})*"
    # WB7a-c: Hebrew letters may be joined by a double quote and keep a final single one.
    hebrew_quote = f"(?<=h)(?:D{extend})(?:h{extend})"
    letters = (
        f"{letter}(?:(?:{joiner}*|{mid_letter}){letter}|{hebrew_quote})*(?:(?<=h)(?:S{extend}))?"
    )
    core = f"(?:{kana}(?:{joiner}*{kana})*|(?:{numbers}|{letters})+)"
    word = f"{joiner}*{core}(?:{joiner}+{core})*{joiner}*"
    after_emoji = "[xcVq]*"
    emoji = f"(?:M{after_emoji}p[xcq]*|p[xcq]*|[EMA]{after_emoji})"
    emoji_sequence = f"z*{emoji}(?:z+{emoji})*{extend}"
    flag = f"r{extend}r{extend}"
    keycap = "kV?q"
    south_east_asian = f"(?:[Cc]{extend})+"
    single = f"I{extend}|R{extend}"  # ideographs and hiragana: one word each
    return re.compile(f"(?:{word}|{emoji_sequence}|{flag}|{keycap}|{south_east_asian}|{single})")


_WORD = _word_pattern()


def _ascii_pattern() -> re.Pattern[str]:
    # The same rules over plain ASCII, where no class string is needed: eight times faster.
    numbers = r"[0-9]+(?:(?:_*|[,;.'])[0-9]+)*"
    letters = r"[A-Za-z]+(?:(?:_*|[:.'])[A-Za-z]+)*"
    core = f"(?:{numbers}|{letters})+"
    return re.compile(f"_*{core}(?:_+{core})*_*")


_ASCII_WORD = _ascii_pattern()


def split_words(text: str) -> list[str]:
    """Return the words of a text in order, as Lucene's StandardTokenizer cuts them."""
    if text.isascii():
        words = _ASCII_WORD.findall(text)
    else:
        classes = text.translate(_classes())
        words = [text[m.start() : m.end()] for m in _WORD.finditer(classes)]
    # A character takes at most two UTF-16 units, so shorter words cannot reach the limit.
    if words and max(map(len, words)) > MAX_WORD // 2:
        return _split_long(text)
    return words


def _split_long(text: str) -> list[str]:
    """Split as `split_words` does, cutting words after `MAX_WORD` UTF-16 units."""
    classes = text.translate(_classes())
    words: list[str] = []
    start = 0
    while start < len(text):
        match = _WORD.match(classes, start)
        if match is None:
            start += 1
            continue
        end, units = start, 0
        while end < match.end():
            units += 2 if ord(text[end]) > 0xFFFF else 1
            if units > MAX_WORD:
                break
            end += 1
        if end < match.end():
            # The longest word that ends inside the window, as the original's scanner finds it.
            inner = _WORD.match(classes, start, end)
            end = inner.end() if inner else end
        words.append(text[start:end])
        start = end
    return words
