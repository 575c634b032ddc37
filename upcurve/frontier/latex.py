"""A comparison as a LaTeX table."""

from __future__ import annotations

from collections.abc import Sequence

from upcurve.frontier.comparison import Comparison
from upcurve.frontier.grid import grid, header

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        # Other glyphs in LaTeX's own encoding of fonts.
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        # Would begin the optional argument of an item.
        "[": "{[}",
        **{each: f"\\{each}" for each in "&%$#_{}"},
    }
)


def escaped(text: str) -> str:
    """Return a text that LaTeX sets as it stands."""
    return text.translate(_ESCAPES)


def latex(comparison: Comparison, notes: Sequence[str]) -> str:
    r"""Return the grid as a booktabs table over a list of notes (`\usepackage{booktabs}`)."""
    head = ["tok/s/user", "", *header(comparison)]
    lines = [rf"\begin{{tabular}}{{rl{'r' * len(comparison.series)}}}", r"\toprule", _row(head)]
    for block in grid(comparison):
        lines.append(r"\midrule")
        lines += [
            _row([line.target if position == 0 else "", line.label.strip(), *line.texts])
            for position, line in enumerate(block)
        ]
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\begin{itemize}"]
    lines += [rf"\item {escaped(note)}" for note in notes]
    return "\n".join([*lines, r"\end{itemize}"]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"
