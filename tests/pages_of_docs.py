"""What the documentation's pages hold: their blocks of code, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?^```(?P<kind>\w*)(?P<more>[^\n]*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        kind: Its language; "" where none is named.
        body: The code.
        title: The file that it stands for, if any.
        not_run: Why nobody can run it here; "" where it is run.
    """

    kind: str
    body: str
    title: str = ""
    not_run: str = ""


def pages() -> list[Path]:
    """README and every page of docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order; files that it quotes are put in."""
    found = []
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', match["more"])
        body = re.sub(
            r'^--8<-- "([^"]+)"$',
            lambda quoted: (ROOT / quoted[1]).read_text(encoding="utf-8"),
            match["body"],
            flags=re.MULTILINE,
        )
        found.append(Block(match["kind"], body, title[1] if title else "", match["why"] or ""))
    return found


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command of a block, comments left out; lines that go on are joined."""
    for line in block.body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words
