"""Figures as short texts, alike in every output."""

from __future__ import annotations

import math


def throughput_text(value: float) -> str:
    """Format tok/s/GPU: whole from 100 up, three significant digits below."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def ratio_text(value: float) -> str:
    """Format a ratio: two decimals below 10, one above, `inf` where it is infinite."""
    if math.isinf(value):
        return "inf"
    return f"{value:.2f}x" if value < 9.995 else f"{value:,.1f}x"


def cost_text(value: float) -> str:
    """Format USD with three significant digits."""
    return f"${value:,.0f}" if value >= 999.5 else f"${value:#.3g}"
