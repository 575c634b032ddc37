"""Whether an answer is right: what is extracted from it, and how it is compared.

Patterns and order are those of the task gsm8k, version 3, of lm-eval 0.4.13 (EleutherAI, MIT
License); `tests/accuracy/golden` holds what lm-eval itself said.
"""

from __future__ import annotations

import re
from typing import Literal

Metric = Literal["strict", "flexible"]
METRICS: tuple[Metric, ...] = ("strict", "flexible")
"""strict: the first number after "#### "; flexible: the last number of the answer."""

INVALID = "[invalid]"
"""What stands for the number where there is none."""

_STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_IGNORED = [re.compile(each) for each in (",", r"\$", r"(?s).*#### ", r"\.$")]


def extract(answer: str, metric: Metric) -> str:
    """Return the number that an answer gives, as it is written, or `INVALID`."""
    found = _STRICT.search(answer) if metric == "strict" else None
    if found:
        return found[1]
    numbers = _FLEXIBLE.findall(answer) if metric == "flexible" else []
    return numbers[-1] if numbers else INVALID


def normalised(text: str) -> str:
    """Return a number, or a worked answer's last one, without what does not count in it."""
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()


def is_right(answer: str, reference: str, metric: Metric) -> bool:
    """Whether an answer gives the number of the worked answer `reference`."""
    return normalised(extract(answer, metric)) == normalised(reference)
