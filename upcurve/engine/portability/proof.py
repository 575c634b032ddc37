"""The proof as a whole: which GPUs, which models, and whether kernels can be compiled here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from upcurve.engine.errors import EngineInputError
from upcurve.engine.platform import HAS_TRITON, INTERPRETED

if TYPE_CHECKING:
    from upcurve.engine.portability.report import Finding


def prove(targets: str, folder: Path | None, *, every: bool) -> list[Finding]:
    """Compile what steps launch for each of comma-separated targets.

    Args:
        targets: architectures of `chips`.
        folder: of a model whose shapes count instead of the known ones.
        every: all sizes, switches and formats, not only some of the first.

    Raises:
        EngineInputError: there is no Triton that compiles, no such target or model.
    """
    if not HAS_TRITON:
        raise EngineInputError("triton", "not installed", "pip install triton")
    if INTERPRETED:
        raise EngineInputError("TRITON_INTERPRET", "is set: nothing is compiled", "unset it")
    from upcurve.engine.model.shapes import ModelShapes
    from upcurve.engine.parallel.layout import Layout
    from upcurve.engine.portability.chips import chips_of
    from upcurve.engine.portability.models import ServedModel, known_models
    from upcurve.engine.portability.report import findings
    from upcurve.engine.portability.steps import FEW, every_step, variants

    chips = chips_of(targets)
    models = known_models()
    if folder is not None:
        models = [ServedModel(folder.name, ModelShapes.from_folder(folder), Layout())]
    steps = every_step() if every else FEW
    return [
        each
        for chip in chips
        for each in findings(chip, variants(chip, models, steps, every=every))
    ]
