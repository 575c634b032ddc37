"""The speed-of-light line of a model on a GPU."""

from __future__ import annotations

from upcurve.dashboard.answers.axes import X_AXES, Y_AXES
from upcurve.dashboard.contract.curves import Limit
from upcurve.dashboard.contract.questions import LimitQuestion
from upcurve.dashboard.reader import Reader


def limit(_: Reader, question: LimitQuestion) -> Limit:
    """Answer `limit`."""
    return Limit(
        x=X_AXES[question.x],
        y=Y_AXES[question.y],
        model=question.model or "",
        hardware=question.hardware or "",
        precision=question.precision or "fp8",
        points=[],
        assumptions=[],
        reason="no shape is known",
    )
