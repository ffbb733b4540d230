"""What becomes of a drawn SVG in a page: colours that follow a theme, ids of its own, less text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from html import escape

#: Colours of series 0, 1, 2 ..., light theme and dark theme; distinguishable without red and green.
PALETTE = (
    ("#2f6bff", "#7aa2ff"),
    ("#e0660b", "#ff9d54"),
    ("#0d8f72", "#35d0a5"),
    ("#a63fbf", "#dd8cf0"),
    ("#b58500", "#f0c649"),
    ("#0a7ea4", "#56c7ec"),
    ("#d02f5a", "#ff7f9e"),
    ("#6b7280", "#a5adbb"),
)
INK, SOFT, GRID, PAPER = "#1c2430", "#667085", "#e4e7ec", "#ffffff"
_DARK = {INK: "#e8ecf3", SOFT: "#98a2b3", GRID: "#2b3340", PAPER: "#151a23", **dict(PALETTE)}
#: The CSS variable of each colour.
_NAMES = {light: f"--hc-{k}" for k, (light, _) in enumerate(PALETTE)}
_NAMES |= {INK: "--hc-ink", SOFT: "--hc-soft", GRID: "--hc-grid", PAPER: "--hc-paper"}


def variables(*, dark: bool = False) -> str:
    """The colours as CSS variables: the dark ones, or those of whichever `color-scheme` holds."""
    values = {c: _DARK[c] if dark else f"light-dark({c},{_DARK[c]})" for c in _NAMES}
    return ";".join(f"{_NAMES[c]}:{value}" for c, value in values.items())


def tidied(body: str, titles: Sequence[str]) -> str:
    """A drawing of matplotlib as a part of a page that holds many of them.

    Ids become the chart's own or go, colours become variables, numbers lose the digits that nobody
    sees, and clipping goes, since nothing lies beyond the axes.
    """
    key = hashlib.sha256(body.encode()).hexdigest()[:8]

    def group(found: re.Match[str]) -> str:
        if found[1] is None:
            return "<g>"
        title = titles[int(found[2])]
        said = f"<title>{escape(clean(title))}</title>" if title else ""
        told = ' pointer-events="auto"' if title else ""
        return f'<g class="hc-series" data-colour="{found[1]}"{told}>{said}'

    def attribute(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if name == "style":
            value = re.sub(r"font-family: [^;]*;? ?", "", value).replace(": ", ":")
            value = re.sub("#[0-9a-f]{6}", _variable, value).replace("; ", ";")
        else:
            value = re.sub(r"(\.\d)\d+", r"\1", value)
            value = re.sub(r"\s*([MLQCz])\s*", r"\1", value).strip()
        return f' {name}="{value}"'

    body = re.sub(r'<g id="[^"]*"/>', "", body)
    body = re.sub(r'<g id="(?:hc(\d)\.(\d+)|[^"]*)">', group, body)
    body = re.sub(r' (d|style|transform|x|y)="([^"]*)"', attribute, body)
    body = re.sub(r' clip-path="[^"]*"| transform="rotate\(-?0 [^"]*"', "", body)
    body = re.sub(r"<defs>\s*<clipPath.*?</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'( id="| xlink:href="#)m', rf"\g<1>{key}m", body)
    return re.sub(r">\s+<", "><", body.replace(" xlink:href=", " href=")).strip()


def _variable(found: re.Match[str]) -> str:
    name = _NAMES.get(found[0])
    return f"var({name},{found[0]})" if name else found[0]


def clean(text: str) -> str:
    """Text without the characters that XML forbids."""
    return re.sub("[\x00-\x1f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)
