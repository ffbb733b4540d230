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
    r"(?:<!-- not run: (?P<why>[^>]+) -->\n)?(?:<!-- in the tests: (?P<tiny>[^>]+) -->\n)?"
    r"^```(?P<kind>\w*)(?P<more>[^\n]*)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_LOOP = re.compile(r"^for (\w+) in ([^;\n]+); do\n(.*?)^done$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        kind: Its language; "" where none is named.
        body: The code.
        title: The file that it stands for, if any.
        not_run: Why nobody can run it here; "" where it is run.
        tiny: Options that make its trainings small enough for a test; "" where it is run as it is.
    """

    kind: str
    body: str
    title: str = ""
    not_run: str = ""
    tiny: str = ""


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
        marks = match["why"] or "", match["tiny"] or ""
        found.append(Block(match["kind"], body, title[1] if title else "", *marks))
    return found


def lines(block: Block) -> list[str]:
    """The lines of a block: those that go on are joined, and loops of a shell are written out."""

    def unrolled(loop: re.Match[str]) -> str:
        name, values, body = loop.groups()
        return "".join(body.replace(f"${name}", value) for value in values.split())

    body = block.body.replace("\\\n", " ")
    return [line.strip() for line in _LOOP.sub(unrolled, body).splitlines()]


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command of a block, comments left out."""
    for line in lines(block):
        words = shlex.split(line, comments=True)
        if words:
            yield words


def dead_links(page: Path) -> list[str]:
    """The links of a page that lead to no file or heading in the repository."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            dead.append(link)
    return dead


def _prose(page: Path) -> str:
    """A page without its blocks of code and without what stands between backticks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]+`", "code", text)


def _anchors(page: Path) -> set[str]:
    """The names of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}
