"""How charts look: colours for light and dark, type, and the style sheet."""

from __future__ import annotations

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
_INK = {
    "ink": ("#1c2430", "#e8ecf3"),
    "soft": ("#667085", "#98a2b3"),
    "grid": ("#e4e7ec", "#2b3340"),
    "paper": ("#ffffff", "#151a23"),
}
_FONT = "ui-sans-serif,system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"


def stylesheet(*, standalone: bool = False) -> str:
    """The CSS of charts; with `standalone`, the colours too (light and dark by preference)."""
    rules = [
        f".hc{{font:12px {_FONT};font-variant-numeric:tabular-nums}}",
        ".hc-soft{fill:var(--hc-soft)}.hc-ink{fill:var(--hc-ink)}.hc-title{font-size:14px;"
        "font-weight:600}.hc-paper{fill:var(--hc-paper)}",
        ".hc-grid{stroke:var(--hc-grid);fill:none}.hc-axis{stroke:var(--hc-soft);fill:none}",
        ".hc-line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}",
        ".hc-thin{fill:none;stroke-width:1;opacity:.32}.hc-dash{stroke-dasharray:5 5}",
        ".hc-band{stroke:none;opacity:.16}.hc-stack{stroke:var(--hc-paper);opacity:.85}",
        ".hc-whisker{fill:none;stroke-width:1.6}.hc-ring{fill:var(--hc-paper);stroke-width:2.2}",
        ".hc-disc{stroke:var(--hc-paper);stroke-width:1.5}",
        ".hc-seed{stroke:var(--hc-paper);stroke-width:.8;opacity:.75}",
    ]
    for k in range(len(PALETTE)):
        rules.append(f".hc-s{k}{{stroke:var(--hc-{k})}}.hc-f{k}{{fill:var(--hc-{k})}}")
        rules.append(f".hc-dot.hc-s{k}{{fill:var(--hc-{k})}}")
    if standalone:
        dark = f"@media(prefers-color-scheme:dark){{.hc{{{variables(dark=True)}}}}}"
        rules = [f".hc{{{variables()}}}", dark, *rules]
    return "".join(rules)


def variables(*, dark: bool = False) -> str:
    """The colours as CSS variables of one theme."""
    theme = int(dark)
    found = {f"--hc-{k}": pair[theme] for k, pair in enumerate(PALETTE)}
    found |= {f"--hc-{name}": pair[theme] for name, pair in _INK.items()}
    return ";".join(f"{name}:{value}" for name, value in found.items())


def text_width(text: str, size: float = 12.0) -> float:
    """About how many pixels wide a text of the page's font is."""
    narrow = sum(c in "iljtfr.,:;'|!()[] " for c in text)
    wide = sum(c in "%mwMW@" for c in text)
    return size * (0.61 * len(text) - 0.28 * narrow + 0.3 * wide)
