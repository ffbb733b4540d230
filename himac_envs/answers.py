"""Text as language models write it: what stands in tags, and the marks around it.

The readers of blueprints and of commands share these parts. All are total, and linear in the length
of what they are given.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

#: Marks that stand before and behind a text, the longest of a kind first.
_PAIRS = (
    *(("```", "```"), ("``", "``"), ("`", "`")),
    *(("***", "***"), ("**", "**"), ("__", "__"), ("*", "*"), ("_", "_")),
    *(('"', '"'), ("'", "'"), ("\u201c", "\u201d"), ("\u2018", "\u2019")),
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w+-]{0,16}[ \t]*$", re.MULTILINE)
_CUT_TAG = re.compile(r"</\w{0,16}\Z")
_JSON = json.JSONDecoder()
_STRING = r"(?:'(?:[^'\\\n]|\\.)*+'|\"(?:[^\"\\\n]|\\.)*+\")"
#: Python's list of strings: single quotes, or a comma behind the last.
_STRINGS = re.compile(rf"\[\s*+{_STRING}(?:\s*+,\s*+{_STRING})*+\s*+,?\s*+\]")
#: The line between a table's head and its body, and what a column of counts holds.
_RULE = re.compile(r"\|?(?:[ \t]*+:?-+:?[ \t]*+\|?)++")
_COUNT = re.compile(r"(?:step|sub[-_ ]?goal)?[ \t]*#?\d{1,6}[.)]?", re.IGNORECASE)


def tag(name: str) -> re.Pattern[str]:
    """Return the pattern of an opening or closing tag, in any case, with or without attributes."""
    return re.compile(rf"<\s{{0,4}}(/?)\s{{0,4}}{name}\b[^<>]{{0,256}}>", re.IGNORECASE)


def tagged(text: str, pattern: re.Pattern[str], *, closed: bool = False) -> str | None:
    """Return what stands in tags, whole, whatever signs it holds.

    Of several complete pairs the last one that holds anything wins. A pair is a closing tag and the
    opening one before it that is nearest. Where no pair is complete, the text runs from the last
    opening tag to the end; and where the prompt has opened the tag already, so that only the
    closing one is written, from the beginning.

    Args:
        text: What was written.
        pattern: The tag; see `tag`.
        closed: Complete pairs only.

    Returns:
        The text, or None where there are no such tags.
    """
    complete: str | None = None
    loose: str | None = None
    start: int | None = None if closed else 0
    opened = False
    for found in pattern.finditer(text):
        inner = "" if start is None else text[start : found.start()]
        if found[1]:
            if opened and inner.strip():
                complete = inner
            elif not opened and start == 0:
                loose = inner
            start = None
        else:
            if opened and inner.strip():
                loose = inner
            start, opened = found.end(), True
    if complete is not None:
        return complete
    if closed:
        return None
    if opened and start is not None:
        rest = _CUT_TAG.sub("", text[start:])
        loose = rest if rest.strip() or loose is None else loose
    return "" if loose is None and opened else loose


def fenced(text: str) -> str | None:
    """Return what stands in the last code fence, closed or not; None where there is none."""
    inner = [part for part in _FENCE.split(text)[1::2] if part.strip()]
    return inner[-1] if inner else None


def lines(text: str) -> list[str]:
    """Return the lines that say something, without the blanks around them."""
    found = (line.strip() for line in text.splitlines() if not _FENCE.match(line))
    return [line for line in found if line]


def unwrap(text: str) -> str:
    """Return a text without one pair of quotes, backticks or stars around the whole of it."""
    text = text.strip()
    for before, behind in _PAIRS:
        inner = text[len(before) : -len(behind)]
        if inner.strip() and text.startswith(before) and text.endswith(behind):
            # `"a" or "b"` begins and ends with a quote, and is not quoted.
            return text if before in inner or behind in inner else inner.strip()
    return text


def literal(text: str, place: int) -> tuple[Any, int] | None:
    """Return the JSON value, or Python's list of strings, that begins at a place, and its end.

    Returns:
        None where none begins there.
    """
    try:
        value, end = _JSON.raw_decode(text, place)
        return value, end
    except (ValueError, RecursionError):
        pass
    if (found := _STRINGS.match(text, place)) is None:
        return None
    try:
        return ast.literal_eval(found[0]), found.end()
    except (ValueError, SyntaxError):
        return None


def table(text: str) -> list[str]:
    """Return the texts of a Markdown table, one a row: of its first column that says something.

    A column of numbers says nothing, nor does one of "Step 1", "Step 2".
    """
    rows = [line.strip() for line in text.splitlines()]
    ruled = next((i for i, row in enumerate(rows) if i and "|" in row and _RULE.fullmatch(row)), 0)
    if not ruled or "|" not in rows[ruled - 1]:
        return []
    cells: list[list[str]] = []
    for row in rows[ruled + 1 :]:
        if "|" not in row:
            break
        cells.append([cell.strip() for cell in row.strip("|").split("|")])
    for column in range(max(map(len, cells), default=0)):
        found = [row[column] for row in cells if column < len(row) and row[column]]
        if any(not _COUNT.fullmatch(cell) for cell in found):
            return [unwrap(cell) for cell in found]
    return []
