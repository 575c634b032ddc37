from __future__ import annotations

import re

from upcurve.frontier.comparison import compare
from upcurve.frontier.latex import escaped, latex
from upcurve.frontier.point import Point

OLD = [Point(10, 1000, 8, 8, 64), Point(30, 400, 8, 8, 8)]


def test_special_characters_stand_as_they_are():
    assert escaped(r"a_b 5% $1 & {x} #1 ~^ \n") == (
        r"a\_b 5\% \$1 \& \{x\} \#1 \textasciitilde{}\textasciicircum{} \textbackslash{}n"
    )
    assert escaped("[a] <b> | c") == r"{[}a] \textless{}b\textgreater{} \textbar{} c"


def test_every_row_has_a_cell_for_each_column():
    found = compare(
        {"old_1": OLD, "new&": OLD}, baseline="old_1", targets=[15, 40], usd_per_gpu_hour={}
    )
    text = latex(found, ["95 % sure"])
    table = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {3}
    assert text.startswith(r"\begin{tabular}{rlrr}")
    assert r"tok/s/user &  & old\_1 (baseline) & new\& \\" in rows
    assert r"\item 95 \% sure" in text
    assert table.count(r"\midrule") == 2
