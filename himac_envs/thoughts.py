"""What a model thinks before it answers, in the dialects that models have learned."""

from __future__ import annotations

import re

_NAME = (
    r"(?:think|thinking|thoughts?|reason|reasoning|reflection|analysis|scratchpad|inner_monologue)"
)
#: Opening and closing marks. A closing one matches one of the groups named c0 to c5.
_MARK = re.compile(
    # <think>, </thinking >, <reasoning effort="low">, <seed:think>
    rf"<\s{{0,4}}(?P<c0>/?)\s{{0,4}}(?:\w{{1,16}}:)?{_NAME}(?:[\s/][^<>]{{0,256}})?>"
    # [THINK], but not the button click[think]
    rf"|(?<![\w\]])\[{_NAME}\]|(?P<c1>\[/{_NAME}\])"
    # <|begin_of_thought|>, <|END_THINKING|>
    rf"|<\|(?:(?:begin|start)(?:_of)?|(?P<c2>end(?:_of)?))_{_NAME}\|>"
    # <|think|>, <|/think|>
    rf"|<\|(?P<c3>/?){_NAME}\|>"
    # a triangle for each bracket
    rf"|\u25c1(?P<c4>/?){_NAME}\u25b7"
    # <|channel>thought ... <channel|>
    rf"|<\|channel>\s{{0,4}}{_NAME}\b|(?P<c5><channel\|>)",
    re.IGNORECASE,
)
_CHANNEL = re.compile(
    r"<\|channel\|>\s{0,4}(?P<name>\w{0,32})[^<]{0,128}(?:<\|constrain\|>[^<]{0,64})?<\|message\|>",
    re.IGNORECASE,
)
_MESSAGE_ENDS = re.compile(r"<\|(?:end|return|call|start|channel)\|>", re.IGNORECASE)


def visible(text: str) -> str:
    """Return an answer without its thoughts.

    Thoughts may stand in tags or brackets of many names, with attributes, one in another; or in a
    channel of their own, beside the channel "final" that alone is visible then. One that never
    ends is dropped to the end. Where a chat template has opened the thought already, so that the
    answer begins inside it, all that stands before the closing mark is dropped.
    """
    kept, place = [], 0
    for begin, end in _thoughts(text := _final(text)):
        kept.append(text[place:begin])
        place = end
    kept.append(text[place:])
    return " ".join(kept)


def _final(text: str) -> str:
    """What stands in the channels that are no thoughts; the text itself where it has none."""
    headers = list(_CHANNEL.finditer(text))
    if not headers:
        return text
    kept = []
    for header in headers:
        if header["name"].lower() == "final":
            ends = _MESSAGE_ENDS.search(text, header.end())
            kept.append(text[header.end() : ends.start() if ends else len(text)])
    return " ".join(kept)


def _thoughts(text: str) -> list[tuple[int, int]]:
    """Where the thoughts begin and end, in order."""
    found: list[tuple[int, int]] = []
    depth, begin, closed = 0, 0, 0
    marks = list(_MARK.finditer(text))
    said = _said(text, marks)
    for mark in marks:
        if not _closes(mark):
            if mark[0].endswith("/>"):  # an empty one
                if depth == 0:
                    found.append(mark.span())
                continue
            if depth == 0:
                begin, closed = mark.start(), 0
            depth += 1
        elif depth > 1:
            depth, closed = depth - 1, mark.end()
        elif depth == 1:
            found.append((begin, mark.end()))
            depth = 0
        elif not found or mark.start() < said:
            # Closed and never opened: the template did, so that all before was thought.
            found = [(0, mark.end())]
        else:
            found.append(mark.span())  # closed once too often, behind the answer
    if depth:
        # Opened more often than closed: a tag that was only mentioned in a thought, which ends
        # with the last one that closes; or a thought without an end.
        found.append((begin, closed or len(text)))
    return found


def _closes(mark: re.Match[str]) -> bool:
    return any(mark[f"c{i}"] for i in range(6))


def _said(text: str, marks: list[re.Match[str]]) -> int:
    """Where the text ends, closing marks at its end left out."""
    end = len(text)
    for mark in reversed(marks):
        if not _closes(mark) or text[mark.end() : end].strip():
            break
        end = mark.start()
    return end
